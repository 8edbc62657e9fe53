import pytest
from PIL import Image

from tove_lvlm.viz.examples import LINE, MARGIN, SIDE, example_sheet


def test_images_stand_side_by_side_over_their_text(tmp_path):
    for name, color in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{name}.png")
    sheet = example_sheet([(tmp_path / "a.png", ["one", "two"]), (tmp_path / "b.png", ["three"])])
    assert sheet.size == (2 * SIDE + 3 * MARGIN, SIDE + 2 * MARGIN + 2 * LINE)
    assert sheet.getpixel((MARGIN + 5, MARGIN + 5)) == (255, 0, 0)
    assert sheet.getpixel((2 * MARGIN + SIDE + 5, MARGIN + 5)) == (0, 0, 255)
    text = sheet.crop((MARGIN, MARGIN + SIDE, MARGIN + SIDE, sheet.height))
    assert min(low for low, _ in text.getextrema()) < 100  # something is written there
    with pytest.raises(ValueError, match="no examples"):
        example_sheet([])
