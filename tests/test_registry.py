import sys

import pytest

from tove_lvlm.registry import FolderRegistry, Registry, nearest, require


def test_register_and_get_exact_names_only():
    things = Registry("thing")

    @things.register("depth")
    class Depth:
        pass

    assert things.get("depth") is Depth
    assert things.names() == ["depth"]
    with pytest.raises(ValueError, match=r"unknown thing `dept`; did you mean `depth`\?"):
        things.get("dept")  # a prefix is not a name


def test_duplicate_names_both_origins():
    things = Registry("thing")
    things.register("a")(Registry)
    things.register("a")(Registry)  # the same object again, as on a reload
    with pytest.raises(ValueError, match=r"`a` is taken by .*Registry; .*nearest needs another"):
        things.register("a")(nearest)


@pytest.mark.parametrize("name", ["", " depth", "Depth"])
def test_malformed_names_are_refused(name):
    with pytest.raises(ValueError, match="lower case"):
        Registry("thing").register(name)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A package with the folders `one`, which registers itself, and `two`, which cannot be imported."""
    for name, text in {
        "": "from tove_lvlm.registry import FolderRegistry\nTHINGS = FolderRegistry('thing', __name__, 'thing')\n",
        "one": "from .. import THINGS\n\n@THINGS.register('one')\nclass One: pass\n",
        "two": "import what_it_needs\n",
    }.items():
        folder = tmp_path / "things_of_a_test" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("" if name else text)
        (folder / "thing.py").write_text(text if name else "")
    monkeypatch.syspath_prepend(str(tmp_path))
    import things_of_a_test

    yield things_of_a_test.THINGS
    for module in [name for name in sys.modules if name.startswith("things_of_a_test")]:
        del sys.modules[module]


def test_a_folder_is_known_by_its_name_and_imported_when_it_is_asked_for(folders):
    assert folders.names() == folders.folders() == ["one", "two"]
    assert "two" in folders
    assert "thing" not in folders, "a file is no folder"
    assert "things_of_a_test.one.thing" not in sys.modules
    assert folders.get("one").__name__ == "One"
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        folders.get("two")
    with pytest.raises(ValueError, match=r"unknown thing `onee`; did you mean `one`\?"):
        folders.get("onee")


def test_others_register_beside_the_folders_and_not_under_their_names(folders):
    folders.register("three")(Registry)
    assert folders.names() == ["one", "three", "two"]
    assert folders.get("three") is Registry
    with pytest.raises(ValueError, match="`one` is taken by things_of_a_test.one.thing.One"):
        folders.register("one")(Registry)
    assert folders.get("one").__name__ == "One"


def test_a_plain_module_in_place_of_the_folders_registers_all_when_it_is_imported(tmp_path, monkeypatch):
    """As in the flat code that goes along with an exported tower."""
    things = FolderRegistry("thing", "flat_things_of_a_test", "thing")
    (tmp_path / "flat_things_of_a_test.py").write_text("import sys; sys.things_of_a_test.register('one')(dict)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "things_of_a_test", things, raising=False)
    assert "one" in things
    assert things.get("one") is dict
    assert things.names() == ["one"]


def test_require_names_the_extra():
    assert require("json", extra="none").dumps([1]) == "[1]"
    with pytest.raises(ImportError, match=r"`no_such_package`.*pip install 'tove-lvlm\[train\]'"):
        require("no_such_package.sub", extra="train")


def test_require_does_not_hide_a_broken_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        require("broken_package", extra="train")
