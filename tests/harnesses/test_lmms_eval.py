"""lmms-eval, the real package, on the miniature world's benchmarks: our model, its own `llava_hf`, our VSR task."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import tiny_checkpoints
from helpers.eval_files import shared
from tove_lvlm.config import UserError
from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.pope import Pope
from tove_lvlm.eval.tasks.vsr import Vsr, VsrLikelihood
from tove_lvlm.harnesses.lmms_eval import TASKS, vsr
from tove_lvlm.harnesses.lmms_eval.decoding import GenerationOptions, read_generation_options
from tove_lvlm.harnesses.lmms_eval.requests import Prompt
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import Chat, answer
from tove_lvlm.inference.likelihood import log_likelihoods
from tove_lvlm.world.benchmark_files import EVAL
from tove_lvlm.world.benchmarks import write_benchmarks

POPE, WORLD = "pope_of_the_world", "vsr_of_the_world"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoints.make_miniature(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def chat(checkpoint):
    return Chat.load(checkpoint, "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "data"
    write_benchmarks(folder, 4)
    return folder


@pytest.fixture(scope="module")
def task_manager(tmp_path_factory, root):
    """lmms-eval's POPE on the world's files, kept as an image data set on disk, and our VSR in the world's words."""
    import datasets
    import lmms_eval
    from lmms_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    items = pope_items(root)
    rows = {
        "question_id": [item.question_id for item in items],
        "image": [str(root / EVAL / "pope/val2014" / item.image) for item in items],
        "question": [item.text for item in items],
        "answer": ["yes" if item.gold else "no" for item in items],
    }
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict({"test": data}).save_to_disk(folder / "data")
    pope = {
        "include": str(Path(lmms_eval.__file__).parent / "tasks/pope/pope.yaml"),
        "task": POPE,
        "dataset_path": str(folder / "data"),
        "dataset_kwargs": {"load_from_disk": True},
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}},
    }
    world = {
        "include": str(TASKS / "vsr/vsr.yaml"),
        "task": WORLD,
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


def pope_items(root):
    labels = sorted((root / EVAL / "pope/coco").glob("*.json"))[:2]
    Pope.prompt, kept = "{question}", Pope.prompt
    try:
        return Pope().read(labels, Problems())
    finally:
        Pope.prompt = kept


@pytest.mark.parametrize(
    ("model", "batch_size", "simple"), [("tove_llava", 5, False), ("llava_hf", 1, False), ("llava_hf", 1, True)]
)
def test_pope_answers_are_our_chats_and_scores_our_scorers(run, root, chat, model, batch_size, simple):
    items = pope_items(root)
    images = [root / EVAL / "pope/val2014" / item.image for item in items]
    expected = chat.ask_many(images, [item.text for item in items], max_new_tokens=128)
    metrics, answers = run(model, POPE, batch_size, force_simple=simple)
    assert [text.strip() for text in answers] == expected
    assert {"yes", "no"} <= set(expected)
    ours = Pope().score(items, dict(zip([i.question_id for i in items], answers, strict=True)), "lmms-eval", Problems())
    theirs = {"f1": "f1_score"}
    for name in ("accuracy", "precision", "recall", "f1"):
        assert metrics[f"pope_{theirs.get(name, name)}"] == pytest.approx(ours.metrics[name], abs=1e-12), name
    assert 0 < ours.metrics["accuracy"] < 1


def test_vsr_in_words_scores_as_ours(run, root, chat):
    items = Vsr().read([root / EVAL / "vsr/zeroshot/test.jsonl"], Problems())
    metrics, answers = run("tove_llava", "tove_vsr", 4)
    images = [root / EVAL / "vsr/images" / item.image for item in items]
    assert answers == chat.ask_many(images, [item.text for item in items], max_new_tokens=16)
    check_vsr(metrics, items, answers)
    metrics, answers = run("tove_llava", WORLD, 4)  # in words that the miniature knows
    check_vsr(metrics, items, answers)
    assert 0 < metrics["vsr_accuracy"] < 1


def test_vsr_by_likelihood_scores_as_ours(run, root, chat):
    items = VsrLikelihood().read([root / EVAL / "vsr/zeroshot/test.jsonl"], Problems())
    images = [read_image(root / EVAL / "vsr/images" / item.image) for item in items]
    pixels = [to_pixels(image, chat.processor.image_processor, "pad") for image in images]
    choices = [item.choices for item in items]
    ours = log_likelihoods(chat.model, chat.processor, [item.text for item in items], choices, pixels)
    metrics, losses = run("tove_llava", "tove_vsr_likelihood", 4)
    np.testing.assert_allclose([[-vsr.loss_of(one) for one in pair] for pair in losses], ours, atol=1e-4)
    answers = [item.choices[int(np.argmax(values))] for item, values in zip(items, ours, strict=True)]
    check_vsr(metrics, items, answers, VsrLikelihood)
    assert len(set(answers)) == 2


def check_vsr(metrics, items, answers, task=Vsr):
    ours = task().score(items, dict(zip([i.question_id for i in items], answers, strict=True)), "official", Problems())
    for name in ("accuracy", "f1", "precision", "recall"):
        assert metrics[f"vsr_{name}"] == pytest.approx(ours.metrics[name], abs=1e-12)
    for category, group in ours.groups.items():
        assert metrics[f"vsr_{category.lower()}"] == pytest.approx(group["accuracy"], abs=1e-12)


@pytest.mark.parametrize("form", [Vsr, VsrLikelihood])
def test_all_seven_categories_score_as_ours_on_the_official_split(form):
    """1222 made-up answers, some of which say nothing."""
    path = shared("vsr/zeroshot/test.jsonl")
    docs = [json.loads(line) for line in path.read_text().splitlines()]
    items = form().read([path], Problems())
    if form is Vsr:
        answers = [("Yes.", "no", "I cannot say", "yes", "No")[i % 5] for i in range(len(docs))]
        metrics = [vsr.read_words(doc, [text]) for doc, text in zip(docs, answers, strict=True)]
        assert [vsr.question(doc) for doc in docs] == [item.text for item in items]
    else:
        answers = [("True", "False", "False")[i % 3] for i in range(len(docs))]
        kinds = {"True": [(1.0, True), (2.0, False)], "False": ["(2.0, False)", "(1.0, True)"]}
        losses = [kinds[text] for text in answers]
        metrics = [vsr.read_losses(doc, pair) for doc, pair in zip(docs, losses, strict=True)]
        assert [vsr.question_likelihood(doc) for doc in docs] == [item.text for item in items]
    found = {name: [one[name] for one in metrics if name in one] for name in set().union(*metrics)}
    kinds = {"vsr_f1": vsr.f1, "vsr_precision": vsr.precision, "vsr_recall": vsr.recall}
    assert len(found) == 11
    check_vsr({name: kinds.get(name, vsr.accuracy)(values) for name, values in found.items()}, items, answers, form)


def test_vsr_without_its_files_says_where_they_belong(task_manager, monkeypatch, tmp_path):
    monkeypatch.setenv("TOVE_EVAL_DATA", str(tmp_path))
    with pytest.raises(ImportError) as caught:
        task_manager.load_task_or_group(["tove_vsr"])
    assert "playground/data/eval/vsr/zeroshot/test.jsonl" in str(caught.value.__cause__)
    assert "TOVE_EVAL_DATA" in str(caught.value.__cause__)


def test_the_folder_of_tasks_is_printed():
    done = subprocess.run([sys.executable, "-m", "tove_lvlm.harnesses.lmms_eval"], capture_output=True, text=True)
    assert Path(done.stdout.strip()) == TASKS
    assert {path.name for path in TASKS.rglob("*.yaml")} == {"vsr.yaml", "vsr_likelihood.yaml"}


def test_the_old_name_works_and_warns_once():
    command = [sys.executable, "-m", "tove_lvlm.hosts.lmms_eval"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == TASKS
    assert done.stderr.count("FutureWarning: `tove_lvlm.hosts.lmms_eval` is deprecated") == 1
    code = (
        "from tove_lvlm.hosts import lmms_eval; from tove_lvlm.harnesses.lmms_eval import manifest; "
        "from tove_lvlm.hosts.lmms_eval import vsr; print(lmms_eval.manifest is manifest, callable(vsr.picture))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr.count("FutureWarning") == 1


def test_without_lmms_eval_the_extra_is_named():
    code = (
        "import sys; sys.modules['lmms_eval'] = None\n"
        "from tove_lvlm.harnesses.lmms_eval import manifest\n"
        "try: manifest()\n"
        "except ImportError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'tove-lvlm[lmms-eval]'" in done.stdout
    assert done.stdout.rstrip().endswith("False"), "finding the model loads nothing heavy"


# ---- what is refused ----


def create(arguments: str, **more):
    from lmms_eval.models import get_model

    return get_model("tove_llava").create_from_arg_string(arguments, more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "needs `--model_args pretrained=FOLDER`"),
        ("pretrained=nowhere", "`nowhere` does not exist"),
        ("pretrained=x,batchsize=3", "no argument `batchsize`; did you mean `batch_size`"),
        ("pretrained=x,dtype=float8", "`dtype` is `float8`; did you mean"),
        ("pretrained=x,batch_size=0", "`batch_size` is `0`"),
    ],
)
def test_arguments_that_are_not_valid(arguments, message):
    with pytest.raises(UserError, match=message):
        create(arguments)


def test_a_checkpoint_of_another_kind_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds a model of type `clip`; expected a LLaVA model"):
        create(f"pretrained={tmp_path}")


@pytest.mark.parametrize(
    ("visuals", "message"),
    [
        ([Image.new("L", (4, 4))] * 2, "shows 2 images"),
        (["a/film.mp4"], "got a path where an image was expected.*no video"),
        ([{"array": [0.0]}], "got a dict"),
    ],
)
def test_requests_with_anything_but_one_image(visuals, message):
    asked = Prompt(context="?", where="task `t`, split `test`, document 3", visuals=visuals)
    with pytest.raises(UserError, match=f"task `t`, split `test`, document 3.*{message}"):
        asked.picture()


@pytest.mark.parametrize("visuals", [None, []])
def test_questions_without_an_image_are_asked_without_one(visuals):
    assert Prompt(context="?", where="", visuals=visuals).picture() is None
    assert Prompt(context="?", where="", visuals=[Image.new("L", (4, 4))]).picture().mode == "RGB"


def test_generation_arguments(caplog):
    given = {"until": ["\n\n"], "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False, "min_p": 0.1}
    assert read_generation_options(given | {"max_new_tokens": 7}) == GenerationOptions(
        decoding=DecodingConfig(max_new_tokens=7)
    )
    assert given["until"] == ["\n\n"]
    assert caplog.text.count("`min_p` means nothing") == 1
    assert read_generation_options({"until": None, "top_p": None}) == GenerationOptions(
        decoding=DecodingConfig(max_new_tokens=1024)
    )
    drawn = read_generation_options({"until": "\n", "temperature": 0.5, "top_p": 0.9, "num_beams": 2})
    assert drawn.decoding == DecodingConfig(max_new_tokens=1024, temperature=0.5, top_p=0.9, num_beams=2)
    assert GenerationOptions(decoding=DecodingConfig(), until=("\n", "Q:")).cut(" a Q: b\nc") == "a"
    for broken in ({"until": 3}, {"max_new_tokens": "x"}, {"temperature": -1}, {"num_beams": 0}):
        with pytest.raises(UserError, match=next(iter(broken))):
            read_generation_options(broken)


# ---- requests, one kind after the other ----

ASKED = "Is there a red sphere?"


@pytest.fixture(scope="module")
def pictures(root) -> list[Path]:
    return sorted((root / "val2014").iterdir())[:3]


@pytest.fixture
def model(chat, checkpoint, pictures, monkeypatch):
    """`tove_llava` as the evaluator leaves it before its first request; each document is a picture's path."""
    from tove_lvlm.harnesses.lmms_eval import model

    monkeypatch.setattr(
        model,
        "load_model",
        lambda _: SimpleNamespace(model=chat.model, processor=chat.processor, image_aspect_ratio="pad"),
    )
    made = create(f"pretrained={checkpoint}", batch_size="4", device="cpu")
    made.task_dict = {"t": {"test": pictures}}
    return made


def request(context: str, second, *between, doc_id: int = 0) -> SimpleNamespace:
    return SimpleNamespace(args=(context, second, lambda path: [Image.open(path)], *between, doc_id, "t", "test"))


def test_every_request_is_answered_in_its_own_way_and_place(model, chat, pictures):
    told = []
    model.set_cache_hook(SimpleNamespace(add_partial=lambda *what: told.append(what)))
    ways = [{"max_new_tokens": 5}, {"num_beams": 2, "max_new_tokens": 5}, {"until": "e", "max_new_tokens": 5}]
    wanted = [(f"{'What ' * k}color is the sphere?", ways[k % 3], k % 3) for k in range(6)]
    answers = model.generate_until([request(text, way, doc_id=i) for text, way, i in wanted])
    for (text, way, i), said in zip(wanted, answers, strict=True):
        decoding = DecodingConfig(max_new_tokens=5, num_beams=way.get("num_beams", 1))
        (expected,) = answer(chat.model, chat.processor, [pictures[i]], [text], decoding=decoding)
        assert said == (expected.split("e")[0] if "until" in way else expected)
    assert sorted(what[2] for what in told) == sorted(answers)
    assert {what[0] for what in told} == {"generate_until"}


def test_losses_and_what_greedy_decoding_says(model, chat, pictures):
    greedy = chat.ask_many(pictures, [ASKED] * 3)
    requests = [request(ASKED, f" {text}", doc_id=i) for i, text in enumerate(greedy)]
    requests += [request(ASKED, lambda path: "cone", doc_id=i) for i in range(3)]
    found = model.loglikelihood(requests)
    assert [is_greedy for _, is_greedy in found] == [True] * 3 + [False] * 3
    pixels = [to_pixels(Image.open(path).convert("RGB"), chat.processor.image_processor, "pad") for path in pictures]
    choices = [[text, "cone"] for text in greedy]
    ours = log_likelihoods(chat.model, chat.processor, [ASKED] * 3, choices, pixels)
    np.testing.assert_allclose(np.reshape([-loss for loss, _ in found], (2, 3)).T, ours, atol=1e-4)


def test_several_rounds(model, chat, pictures):
    """`doc_to_text` sees the answers so far, asks again, and says when it has had enough."""
    seen = []

    def next_round(path, previous_output, round_idx, previous_round_info):
        seen.append((path, len(previous_output), round_idx, previous_round_info))
        finished = round_idx == 2 or path == pictures[1]
        return [Image.open(path)], ASKED, finished, previous_output, round_idx

    first = "What color is the sphere?"
    answers = model.generate_until_multi_round([request(first, {}, next_round, doc_id=i) for i in range(3)])
    assert [len(rounds) for rounds in answers] == [2, 1, 2]
    assert [rounds[0] for rounds in answers] == chat.ask_many(pictures, [first] * 3)
    assert answers[2][1] == chat.ask(pictures[2], ASKED)
    assert (pictures[0], 2, 2, 1) in seen
