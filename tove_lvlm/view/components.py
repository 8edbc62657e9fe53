"""Gradio with its analytics off and more contrast, and pictures that are checked before they are decoded."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # before it is imported

from ..data.errors import DataError
from ..registry import require
from .pictures import check_upload

gr: Any = require("gradio", extra="view")

with mock.patch("gradio.component_meta.create_or_modify_pyi"):  # a stub beside this file, wherever it is installed

    class PictureInput(gr.Image):  # type: ignore[misc]
        """`gr.Image` that gives the file as it was uploaded; gradio's own decodes whatever it gets.

        A class, and no changed object: gradio makes a new object of it with each update.
        """

        is_template = True  # it has gr.Image's front end

        def preprocess(self, payload: Any) -> str | None:
            """The path of an uploaded picture.

            Args:
                payload: Gradio's `ImageData`; None where there is no picture.

            Raises:
                gr.Error: One sentence on what is wrong with it.
            """
            if payload is None or not payload.path:
                return None
            try:
                return str(check_upload(Path(payload.path), payload.orig_name or Path(payload.path).name))
            except (DataError, OSError) as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from error


def theme() -> Any:
    """Gradio's plain theme with more contrast and the machine's own fonts: nothing is loaded from elsewhere."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    plain = gr.themes.Base(primary_hue="blue", neutral_hue="slate", **fonts)
    return plain.set(  # what gradio has is too pale for WCAG AA
        color_accent="#1d4ed8",
        color_accent_soft="*primary_50",
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8",
        body_text_color_subdued="#57606a",
        block_label_text_color="#3f4852",
        block_title_text_color="#3f4852",
        block_info_text_color="#57606a",
        input_placeholder_color="#57606a",
    )
