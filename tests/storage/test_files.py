"""Names of folders: as short as tells them apart."""

from pathlib import Path

from tove_lvlm.storage import short_names


def test_folders_have_the_last_parts_that_tell_them_apart(tmp_path):
    assert short_names([Path("a/tove"), Path("a/clip")]) == ["tove", "clip"]
    assert short_names([Path("a/tove"), Path("b/tove"), Path("b/clip")]) == ["a/tove", "b/tove", "b/clip"]
    assert short_names([Path("x/1/tove"), Path("y/1/tove")]) == ["x/1/tove", "y/1/tove"]


def test_one_folder_by_two_ways_has_one_name(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)
    assert short_names([tmp_path / "run", tmp_path / "link"]) == ["run", "run"]
