"""Two models with pictures beside them, as `tove demo` leaves them, and pictures that no page may choke on."""

import os
from pathlib import Path

import pytest

from helpers.tiny_checkpoints import build, make_miniature, save
from helpers.tiny_towers import wake


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """`tove` (the shipped miniature with an awake fusion), `clip`, and `data/heldout/images` with six scenes.

    Or the folder that TOVE_DEMO names, which a demo wrote: for screenshots of trained models.
    """
    from helpers.paths import ROOT
    from tove_lvlm.checkpoints import load_model
    from tove_lvlm.world.dataset import write_dataset

    if given := os.environ.get("TOVE_DEMO"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder / "data" / "heldout", "heldout", 6)
    loaded = load_model(make_miniature(folder / "untrained"))
    wake(loaded.tower)
    save(folder / "tove", loaded.model, loaded.processor, aspect_ratio="pad")
    llm = ROOT / "tove_lvlm/assets/miniature/vicuna"
    tower = ROOT / "projects/miniature/tower.yaml"
    save(folder / "clip", *build(llm, tower=tower, vision_tower="clip", seed=1), aspect_ratio="pad")
    return folder


@pytest.fixture(scope="session")
def scene(demo_folder) -> Path:
    """One of the pictures."""
    return sorted((demo_folder / "data" / "heldout" / "images").glob("*.png"))[0]


@pytest.fixture(scope="session")
def eval_runs(tmp_path_factory) -> tuple[list[Path], Path]:
    """Two folders of `tove eval pope` that disagree about some questions, and the data they are of."""
    from tove_lvlm.eval.benchmark import read_benchmark
    from tove_lvlm.eval.io.find import asked_prompt, find
    from tove_lvlm.eval.run import score_answers
    from tove_lvlm.eval.tasks.pope import Pope
    from tove_lvlm.storage import to_json
    from tove_lvlm.world.benchmarks import write_benchmarks

    folder = tmp_path_factory.mktemp("runs")
    write_benchmarks(folder / "data", 4)
    labels = list(find(Pope, folder / "data").labels)
    runs = []
    for name, wrong in (("clip", 3), ("tove", 5)):
        benchmark = read_benchmark("pope", labels, prompt=asked_prompt("pope", folder / "data"))
        answers = folder / f"{name}.jsonl"
        with answers.open("w") as stream:
            for number, item in enumerate(benchmark.items):
                is_yes = item.gold if number % wrong else not item.gold
                row = {"question_id": item.question_id, "prompt": item.text, "text": "Yes" if is_yes else "No"}
                stream.write(to_json(row) + "\n")
        score_answers(benchmark, answers, output=folder / name)
        answers.rename(folder / name / "answers.jsonl")
        runs.append(folder / name)
    return runs, folder / "data"


@pytest.fixture(scope="module")
def shown(demo_folder, eval_runs):
    """A running page with two models, their examples, and two runs."""
    from helpers.viewing import viewing

    runs, data = eval_runs
    arguments = ["--model", demo_folder / "tove", "--compare", demo_folder / "clip"]
    arguments += ["--runs", runs[0], "--runs", runs[1], "--data", data]
    with viewing([str(argument) for argument in arguments]) as running:
        yield running
