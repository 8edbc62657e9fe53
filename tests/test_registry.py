import pytest

from tove_lvlm.registry import Registry, nearest, require


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


def test_require_names_the_extra():
    assert require("json", extra="none").dumps([1]) == "[1]"
    with pytest.raises(ImportError, match=r"`no_such_package`.*pip install 'tove-lvlm\[train\]'"):
        require("no_such_package.sub", extra="train")


def test_require_does_not_hide_a_broken_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        require("broken_package", extra="train")
