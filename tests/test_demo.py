"""`tove demo` from rendering to table, with the real launcher: shorter, but long enough to show who learns more."""

import dataclasses
import json

import pytest
import yaml
from rich.console import Console

from tove_lvlm import demo
from tove_lvlm.config import UserError
from tove_lvlm.eval.families import read_questions, score
from tove_lvlm.world import language
from tove_lvlm.world.benchmarks import write_benchmarks

CONSOLE = Console(record=True, width=100)
STEPS = 70


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    results = demo.run(output, seed=3, steps=STEPS, scenes=(700, 80), console=CONSOLE)
    return output, results, CONSOLE.export_text()


def test_results_file_has_what_it_promises(shown):
    output, results, _ = shown
    assert json.loads((output / "results.json").read_text()) == results
    assert set(results) == {"variants", "chance", "gate_mass", "seconds", "seed", "commit"}
    assert results["seed"] == 3
    for part in (*results["variants"].values(), results["chance"]):
        assert set(part["families"]) <= set(language.FAMILIES)
        num = sum(family["n"] for family in part["families"].values())
        right = sum(family["accuracy"] * family["n"] for family in part["families"].values())
        assert part["overall"] == {"accuracy": pytest.approx(right / num), "n": num}
    assert set(results["variants"]) == {"clip", "tove"}
    assert set(results["gate_mass"]) == {"depth", "normals", "edges", "shapes"}
    assert sum(results["gate_mass"].values()) == pytest.approx(1, abs=1e-3)


def test_tove_is_ahead_of_clip_and_both_of_chance(shown):
    """Loose bounds: CLIP-only sees where things are, and ToVE sees more of what they are."""
    _, results, _ = shown
    accuracy = {name: part["overall"]["accuracy"] for name, part in results["variants"].items()}
    assert accuracy["clip"] > results["chance"]["overall"]["accuracy"] + 0.03
    assert accuracy["tove"] > accuracy["clip"] + 0.03, accuracy


def test_with_other_images_the_answers_are_guesses(shown):
    """The questions alone give nothing away."""
    output, results, _ = shown
    heldout = output / "data" / "heldout"
    questions = read_questions(heldout / "questions.jsonl")
    names = list(dict.fromkeys(question.image for question in questions))
    other = dict(zip(names, names[1:] + names[:1], strict=True))
    swapped = [dataclasses.replace(question, image=other[question.image]) for question in questions]
    answers, _ = demo.answer_all(output / "tove", swapped, heldout / "images")
    accuracy = score(questions, answers)["overall"]["accuracy"]
    assert accuracy < results["chance"]["overall"]["accuracy"] + 0.05


def test_each_variant_is_a_folder_that_stock_llava_loads(shown):
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    import tove_lvlm  # noqa: F401

    output, _, _ = shown
    for variant, kind in (("clip", "CLIPVisionModel"), ("tove", "ToVEVisionModel")):
        model, info = LlavaForConditionalGeneration.from_pretrained(output / variant, output_loading_info=True)
        assert type(model.model.vision_tower).__name__ == kind
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert LlavaProcessor.from_pretrained(output / variant).tokenizer.bos_token_id == 1


def test_both_variants_saw_the_same_data_in_the_same_order(shown):
    output, _, _ = shown
    logged = {}
    for variant in ("clip", "tove"):
        lines = (output / variant / "metrics.jsonl").read_text().splitlines()
        logged[variant] = [json.loads(line)["max_steps"] for line in lines]
        assert (output / f"{variant}-pretrain" / "projector.safetensors").is_file()
    assert logged["clip"] == logged["tove"]
    runs = [(output / variant / "run.yaml").read_text() for variant in ("clip", "tove")]
    runs[0] = runs[0].replace("vision_tower: clip", "vision_tower: tove").replace("/clip", "/tove")
    clip, tove = (yaml.safe_load(run) for run in runs)
    kept = {key: tove["train"].pop(key) for key in ("expert_cache", "expert_cache_dtype")}
    assert kept == {"expert_cache": str(output / "expert_cache"), "expert_cache_dtype": "float32"}, "the same bits"
    assert [clip["train"].pop(key) for key in kept] == [None, "float16"]
    assert clip == tove


def test_tove_eval_finds_the_accuracy_that_the_demo_printed(shown, tove, tmp_path):
    """The miniature's VQAv2 asks the held-out questions; its pictures are JPEGs, which changes a few answers."""
    output, results, _ = shown
    write_benchmarks(tmp_path / "root", 80)
    settings = ["--data", tmp_path / "root", "--output", tmp_path / "out", "--max-new-tokens", 8, "--batch-size", 128]
    code, out, err = tove("eval", "vqav2", "--model", output / "tove", *settings, "--device", "cpu", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["num_items"] == results["variants"]["tove"]["overall"]["n"]
    assert record["metrics"]["accuracy"] / 100 == pytest.approx(
        results["variants"]["tove"]["overall"]["accuracy"], abs=0.03
    )


def test_table_examples_and_places_are_shown(shown):
    output, _, text = shown
    for word in ("chance", "CLIP-only", "ToVE", "difference", "overall", "gate mass", "tove chat"):
        assert word in text
    assert str(output / "tove") in text.replace("\n", "")
    assert text.count("right:") == 3
    assert (output / "examples.png").stat().st_size > 1000


def test_failed_run_names_its_log(tmp_path, capsys):
    job = demo.Job(variant="tove", folder=tmp_path)
    demo.start_next_stage(job, tmp_path / "no-data", seed=0, steps=None, further=["train.learning_rate=-1"])
    job.process.wait()
    with pytest.raises(UserError, match=r"pretrain of tove failed; .* in .*pretrain\.log$"):
        demo.start_next_stage(job, tmp_path / "no-data", seed=0, steps=None)
    assert "learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize("fast", [True, False])
def test_float32_where_bf16_is_slow(tmp_path, monkeypatch, fast):
    """On a processor without bf16 kernels the demo would take hours."""
    commands = []
    monkeypatch.setattr(demo, "cpu_has_fast_bf16", lambda: fast)
    monkeypatch.setattr(demo.subprocess, "Popen", lambda command, **more: commands.append(command))
    demo.launch(demo.Job(variant="tove", folder=tmp_path, stage="pretrain"), tmp_path, seed=0, steps=None, further=())
    assert ("train.bf16=false" in commands[0]) is not fast
