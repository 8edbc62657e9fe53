"""`tove new`: the folder that it makes has all that its YAMLs refer to, and nothing that is there is overwritten."""

import json
import os
from pathlib import Path

import pytest

from helpers.paths import ROOT
from tove_lvlm import project_files
from tove_lvlm.cli.new import make_project, next_commands
from tove_lvlm.config import UserError, encoder_decoder, load
from tove_lvlm.config.deepspeed import read_deepspeed
from tove_lvlm.config.llava import RunConfig
from tove_lvlm.recipes.llava import PRETRAIN
from tove_lvlm.recipes.merge import MERGE
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.train.stage import resolve_run

# real_small needs what only a checkout's scripts fetch.
NAMES = sorted({path.parent.name for path in (ROOT / "projects").glob("*/pretrain*.yaml")} - {"real_small"})


def is_base(cfg_path: Path) -> bool:
    """Whether it is a YAML of the base model's."""
    return "tove_base" in cfg_path.parts or cfg_path.stem == "pretrain_base"


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def expected(project: str) -> set[str]:
    """By hand: the training scripts and three folders of the checkout."""
    names = ("pretrain_projector", "finetune_vicuna", "merge_experts", "pretrain_base", "finetune_base")
    wanted = {f"scripts/{name}.py" for name in names}
    for part in (project, "towers", "deepspeed"):
        found = (path for path in (ROOT / "projects" / part).rglob("*") if path.is_file())
        wanted |= {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}
    return wanted


@pytest.mark.parametrize("project", NAMES)
def test_folder_has_the_checkouts_files_byte_for_byte(tove, tmp_path, project):
    code, out, err = tove("new", tmp_path / "my run", "--project", project, "--json")
    assert code == 0, err
    folder = tmp_path / "my run"
    assert files_of(folder) == expected(project) == set(json.loads(out)["files"])
    for file in expected(project):
        assert (folder / file).read_bytes() == (ROOT / file).read_bytes()
    assert os.listdir(tmp_path) == ["my run"]


@pytest.mark.parametrize("project", NAMES)
def test_paths_in_the_yamls_lead_to_files_of_the_new_folder(tmp_path, monkeypatch, project):
    """Read by the scripts' own loader from within the folder: towers and DeepSpeed's JSONs are its own."""
    folder = tmp_path / "run"
    make_project(folder, project)
    monkeypatch.chdir(folder)
    stages = [path for path in Path(f"projects/{project}").glob("*.yaml") if path.stem.startswith(("pre", "fine"))]
    assert len(stages) >= 2
    for cfg_path in stages:
        run = load(encoder_decoder.RunConfig if is_base(cfg_path) else RunConfig, cfg_path)
        deepspeed = Path(run.train.deepspeed)
        assert deepspeed.resolve().is_relative_to(folder)
        assert read_deepspeed(str(deepspeed), run.train, world_size=8).zero_stage in (2, 3)
        if run.model.tower is None:  # it goes on from a finished run
            continue
        base = cfg_path.parent if run.model.tower.startswith(".") else Path()
        assert (base / run.model.tower).resolve().is_relative_to(folder)
        assert len(read_tower_yaml(base / run.model.tower).experts) >= 2


def test_miniature_passes_all_that_the_scripts_check(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    make_project(folder, "miniature")
    monkeypatch.chdir(folder)
    images = folder / "outputs/miniature/data/train/images"
    images.mkdir(parents=True)
    (images.parent / "pretrain.json").write_text("[]")
    base = folder / "projects" / "miniature"
    run = resolve_run(PRETRAIN, load(RunConfig, base / "pretrain.yaml"), base)
    assert run.model.tower == str(base / "tower.yaml")
    assert run.train.deepspeed == str(folder / "projects/deepspeed/zero2.json")
    assert run.train.output_dir == str(folder / "outputs/miniature/tove-pretrain")
    merge = load(MERGE.schema, base / "merge.yaml")
    assert Path(merge.train.deepspeed).resolve().is_relative_to(folder)


@pytest.mark.parametrize("project", NAMES)
def test_printed_commands_name_files_that_are_there(tove, tmp_path, monkeypatch, project):
    monkeypatch.chdir(tmp_path)
    code, out, err = tove("new", "my_run", "--project", project)
    assert code == 0, err
    commands = next_commands(Path("my_run"), project)
    assert [line.strip() for line in out.splitlines()[1:]] == commands
    assert commands[0] == "cd my_run"
    stages = [line.split() for line in commands if line.startswith("deepspeed")]
    assert len(stages) == len(list((ROOT / "projects" / project).glob("*.yaml"))) - (project == "miniature")
    for words in stages:
        for word in words:
            if word.startswith(("scripts/", "projects/")):
                assert (tmp_path / "my_run" / word).is_file()


def test_printed_command_renders_the_data_that_the_yaml_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(Path("run"), "miniature")
    line = next_commands(Path("run"), "miniature")[1]
    assert line.startswith('python -c "')
    assert line.endswith('"')
    monkeypatch.chdir("run")
    exec(line.removeprefix('python -c "').removesuffix('"').replace("3000", "4"), {})
    for stage in ("pretrain", "finetune"):
        data = load(RunConfig, f"projects/miniature/{stage}.yaml").data
        assert len(json.loads(Path(data.train[0]).read_text())) == 4
        assert len(os.listdir(data.image_folder)) == 4


def test_list_shows_every_project_with_a_line(tove):
    code, out, err = tove("new", "--list")
    assert code == 0, err
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [name for name, _ in rows] == NAMES
    assert {"miniature", "tove_vicuna_7b", "tove_vicuna_13b"} <= set(NAMES)
    code, out, _ = tove("new", "--list", "--json")
    assert code == 0
    assert json.loads(out) == dict(rows)


def test_without_a_choice_it_is_the_miniature_which_needs_no_download(tove, tmp_path):
    code, _, err = tove("new", tmp_path / "run")
    assert code == 0, err
    assert files_of(tmp_path / "run") == expected("miniature")


def test_empty_folder_is_taken(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    make_project(folder, "miniature")
    assert files_of(folder) == expected("miniature")


def test_copies_of_read_only_files_may_be_written(tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    make_project(installed, "miniature")
    for path in installed.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(project_files, "_PACKED", installed)
    try:
        make_project(tmp_path / "run", "miniature")
    finally:
        for path in installed.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert files_of(tmp_path / "run") == files_of(installed)
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "run").rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--project", "tove_vicuna_7"], "unknown project `tove_vicuna_7`; did you mean `tove_vicuna_7b`"),
        (["run", "--project", "towers"], "unknown project `towers`"),
        (["run", "--project", "../projects/miniature"], "unknown project `../projects/miniature`"),
        (["filled"], "output `filled` exists already; name a new folder, or remove it first"),
        (["filled/note"], "output `filled/note` exists already"),
        (["filled/note/run"], "output `filled/note/run` cannot be written"),
        (["."], "output `.` exists already"),
        ([], "tove new takes the folder to make, for example `tove new my_run`; --list shows the projects"),
    ],
)
def test_refusals_are_one_line_and_leave_everything_as_it_was(tove, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "note").write_text("mine")
    monkeypatch.chdir(tmp_path)
    code, _, err = tove("new", *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert files_of(tmp_path) == {"filled/note"}
    assert (tmp_path / "filled" / "note").read_text() == "mine"


def test_the_folder_that_one_stands_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is the folder that you are in"):
        make_project(Path("."), "miniature")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    from tove_lvlm.cli import new

    real, copied = new.shutil.copyfile, []

    def copyfile(source, target):
        copied.append(target)
        if len(copied) == 5:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(new.shutil, "copyfile", copyfile)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        make_project(tmp_path / "run", "miniature")
    assert os.listdir(tmp_path) == []


def test_absent_scripts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(project_files, "_PACKED", tmp_path / "packed")
    monkeypatch.setattr(project_files, "_CHECKOUT", tmp_path / "checkout")
    with pytest.raises(UserError, match=r"neither in .*packed .* nor in .*checkout .*pip install -e"):
        make_project(tmp_path / "run", "miniature")
