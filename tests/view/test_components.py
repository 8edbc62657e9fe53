"""The page's picture is checked before anything decodes it, also in the objects that gradio makes anew."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.pictures import paint
from tove_lvlm.view import components
from tove_lvlm.view.components import PictureInput, gr


def test_a_broken_file_is_refused_by_every_object(tmp_path):
    picture, drawing = tmp_path / "upload", tmp_path / "drawing.svg"
    paint(tmp_path / "a.png", seed=0)
    (tmp_path / "a.png").rename(picture)
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    component = PictureInput(type="filepath", label="a")
    again = component.__class__(**component.constructor_args)  # what an update does
    for one in (component, again):
        assert one.preprocess(None) is None
        assert one.preprocess(SimpleNamespace(path=str(picture), orig_name="a.png")) == str(picture)
        with pytest.raises(gr.Error, match="drawing.svg is no picture that can be read"):
            one.preprocess(SimpleNamespace(path=str(drawing), orig_name=None))
    assert component.get_block_name() == "image"


def test_nothing_is_written_beside_the_source():
    assert not list(Path(components.__file__).parent.glob("*.pyi"))
