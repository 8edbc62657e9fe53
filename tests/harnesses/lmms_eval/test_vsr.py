"""Our VSR task in lmms-eval, in words and by likelihood: the scores are those of `tove eval`."""

import json

import numpy as np
import pytest

from helpers.eval_files import shared
from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.vsr import Vsr, VsrLikelihood
from tove_lvlm.harnesses.lmms_eval import vsr
from tove_lvlm.inference import responder_of
from tove_lvlm.world.benchmark_files import EVAL


def test_vsr_in_words_scores_as_ours(run, root, chat):
    items = Vsr().read([root / EVAL / "vsr/zeroshot/test.jsonl"], Problems())
    metrics, answers = run("tove_llava", "tove_vsr", 4)
    images = [root / EVAL / "vsr/images" / item.image for item in items]
    assert answers == chat.ask_many(images, [item.text for item in items], max_new_tokens=16)
    check_vsr(metrics, items, answers)
    metrics, answers = run("tove_llava", "vsr_of_the_world", 4)  # in words that the miniature knows
    check_vsr(metrics, items, answers)
    assert 0 < metrics["vsr_accuracy"] < 1


def test_vsr_by_likelihood_scores_as_ours(run, root, chat):
    items = VsrLikelihood().read([root / EVAL / "vsr/zeroshot/test.jsonl"], Problems())
    images = [read_image(root / EVAL / "vsr/images" / item.image) for item in items]
    pixels = [to_pixels(image, chat.processor.image_processor, "pad") for image in images]
    choices = [item.choices for item in items]
    ours = responder_of(chat.model, chat.processor).log_likelihoods([item.text for item in items], choices, pixels)
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
