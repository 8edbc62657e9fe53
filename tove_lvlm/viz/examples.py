"""A sheet of images with what was asked about them and what was answered."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, LINE, MARGIN = 256, 14, 8


def example_sheet(examples: Sequence[tuple[str | Path, Sequence[str]]]) -> Image.Image:
    """Images side by side, each enlarged to 256 pixels, with its lines of text beneath.

    Args:
        examples: (image file, lines) for each column; at least one.

    Raises:
        ValueError: There are no examples.
    """
    if not examples:
        raise ValueError("no examples to show")
    height = SIDE + 2 * MARGIN + LINE * max(len(lines) for _, lines in examples)
    sheet = Image.new("RGB", (len(examples) * (SIDE + MARGIN) + MARGIN, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (path, lines) in enumerate(examples):
        left = MARGIN + column * (SIDE + MARGIN)
        with Image.open(path) as image:
            sheet.paste(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, MARGIN))
        for row, text in enumerate(lines):
            draw.text((left, SIDE + MARGIN + 4 + row * LINE), text, fill="black")
    return sheet
