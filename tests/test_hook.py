"""`AfterImport`: acts once, when the outermost import is done, and takes itself off the path."""

import importlib
import sys

import pytest

from tove_lvlm._hook import AfterImport


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`waited.outer`, which imports `waited.inner` before it has a value of its own."""
    (tmp_path / "waited").mkdir()
    (tmp_path / "waited" / "__init__.py").write_text("")
    (tmp_path / "waited" / "outer.py").write_text("import waited.inner\nvalue = 1\n")
    (tmp_path / "waited" / "inner.py").write_text("")
    (tmp_path / "waited" / "broken.py").write_text("import waited.inner\nraise OSError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield "waited"
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "waited"]:
        del sys.modules[name]


def test_it_acts_after_the_outermost_import_and_once(package):
    seen = []
    finder = AfterImport({"waited.inner": lambda: seen.append(sys.modules["waited.outer"].value)}, within=("waited.",))
    finder.install()
    assert seen == []
    importlib.import_module("waited.outer")
    importlib.import_module("waited.inner")
    assert seen == [1], "not while `outer` was half imported"
    assert finder not in sys.meta_path


def test_what_is_imported_already_is_acted_on_at_once(package):
    importlib.import_module("waited.inner")
    seen = []
    finder = AfterImport({"waited.inner": lambda: seen.append(1)}, within=("waited.",))
    finder.install()
    assert seen == [1]
    assert finder not in sys.meta_path


def test_an_import_that_fails_leaves_it_waiting(package):
    seen = []
    AfterImport({"waited.inner": lambda: seen.append(1)}, within=("waited.",)).install()
    with pytest.raises(OSError):  # noqa: PT011
        importlib.import_module("waited.broken")
    assert seen == []
    importlib.import_module("waited.outer")
    assert seen == [1]
