"""lmms-eval, the real package, with the miniature and the miniature world's benchmarks."""

from pathlib import Path

import pytest
import yaml

from helpers.tiny_checkpoints import make_miniature
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.pope import Pope
from tove_lvlm.harnesses.lmms_eval import TASKS
from tove_lvlm.inference.chat import Chat
from tove_lvlm.world.benchmark_files import EVAL
from tove_lvlm.world.benchmarks import write_benchmarks


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The untrained miniature."""
    return make_miniature(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def chat(checkpoint):
    return Chat.load(checkpoint, "cpu")


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "data"
    write_benchmarks(folder, 4)
    return folder


@pytest.fixture(scope="session")
def pope_items(root) -> list:
    """Two files of the world's POPE, asked in its own words."""
    labels = sorted((root / EVAL / "pope/coco").glob("*.json"))[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pope, "prompt", "{question}")
        return Pope().read(labels, Problems())


@pytest.fixture(scope="session")
def task_manager(tmp_path_factory, root, pope_items):
    """lmms-eval's POPE on the world's files, kept as an image data set on disk, and our VSR in the world's words."""
    import datasets
    import lmms_eval
    from lmms_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    rows = {
        "question_id": [item.question_id for item in pope_items],
        "image": [str(root / EVAL / "pope/val2014" / item.image) for item in pope_items],
        "question": [item.text for item in pope_items],
        "answer": ["yes" if item.gold else "no" for item in pope_items],
    }
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict({"test": data}).save_to_disk(folder / "data")
    pope = {
        "include": str(Path(lmms_eval.__file__).parent / "tasks/pope/pope.yaml"),
        "task": "pope_of_the_world",
        "dataset_path": str(folder / "data"),
        "dataset_kwargs": {"load_from_disk": True},
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}},
    }
    world = {
        "include": str(TASKS / "vsr/vsr.yaml"),
        "task": "vsr_of_the_world",
        "lmms_eval_specific_kwargs": {"default": {"prompt": "{question} Is there a blue cone?"}},
    }
    for config in (pope, world):
        (folder / f"{config['task']}.yaml").write_text(yaml.safe_dump(config))
    return TaskManager(include_path=[str(folder), str(TASKS)], include_defaults=False)


@pytest.fixture
def run(monkeypatch, tmp_path, root, checkpoint, task_manager):
    """lmms-eval's evaluator on one task: (metrics, answers in the documents' order)."""
    monkeypatch.setenv("TOVE_EVAL_DATA", str(root))
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    from lmms_eval import evaluator

    def run(model: str, task: str, batch_size: int = 1, **more_arguments):
        more = ",device_map=cpu" if model == "llava_hf" else ""  # its own default is none that transformers 5 takes
        results = evaluator.simple_evaluate(
            model=model,
            model_args=f"pretrained={checkpoint}{more}",
            tasks=[task],
            task_manager=task_manager,
            device="cpu",
            batch_size=batch_size,
            bootstrap_iters=0,
            **more_arguments,
        )
        metrics = {name.removesuffix(",none"): value for name, value in results["results"][task].items()}
        samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
        answers = [sample["filtered_resps"] for sample in samples]
        return metrics, [given[0] if len(given) == 1 else given for given in answers]

    yield run
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # lmms-eval's stays, and a later Trainer would find it
