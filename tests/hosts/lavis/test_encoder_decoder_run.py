"""The base model by LAVIS's own captioning and VQA tasks and runner: it learns, is judged, saved and loaded again."""

import json
from pathlib import Path

import pytest
import torch

from helpers import tiny_towers
from helpers.paths import ROOT
from tove_lvlm.config import UserError
from tove_lvlm.hosts.lavis.run import run

PROJECT = ROOT / "projects" / "lavis"
FILES = {
    "llava_caption": {"train": "train/pretrain.json", "test": "heldout/captions.jsonl"},
    "llava_vqa": {"train": "train/finetune.json", "val": "heldout/questions.jsonl"},
}


def options(world, output: Path, dataset: str, **others: object) -> list[str]:
    """The project's YAML for the tiny tower and the small data."""
    part = f"datasets.{dataset}.build_info"
    chosen = {"model.vit_model": f"tove:{world.tower}", "run.output_dir": output, "run.max_epoch": 1}
    for split, file in FILES[dataset].items():
        chosen[f"{part}.annotations.{split}.storage"] = world.out / file
        chosen[f"{part}.images.{split}"] = (world.out / file).parent / "images"
    if dataset == "llava_vqa":
        chosen[f"{part}.answer_list"] = world.out / "answer_list.json"
    return [f"{key}={value}" for key, value in {**chosen, **others}.items()]


def log(runner) -> list[dict]:
    """What LAVIS logged after the configuration."""
    text = (Path(runner.output_dir) / "log.txt").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"')]


def model_of(runner):
    return runner.unwrap_dist_model(runner.model).eval()


@pytest.fixture(scope="module")
def captioned(lavis, world, tmp_path_factory):
    """Four epochs of tove_caption.yaml, three steps each, and LAVIS's test at the end."""
    others = {
        "run.max_epoch": 4,
        "run.batch_size_train": 4,
        "run.warmup_steps": 0,
        "run.init_lr": 5e-4,
        "run.max_len": 12,
    }
    return run(
        "train",
        PROJECT / "tove_caption.yaml",
        options(world, tmp_path_factory.mktemp("caption"), "llava_caption", **others),
    )


def test_captions_are_learnt(captioned):
    losses = [float(line["train_loss"]) for line in log(captioned)]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_lavis_writes_captions_of_held_out_pictures(captioned):
    written = json.loads((Path(captioned.output_dir) / "result" / "test_epoch3.json").read_text())
    assert [row["image_id"] for row in written] == [0, 1, 2, 3]
    samples = next(iter(captioned.dataloaders["test"]))
    again = model_of(captioned).generate(samples, num_beams=3, max_length=12, min_length=8)
    assert [row["caption"] for row in written] == again
    assert all(again)


def test_a_checkpoint_gives_the_same_captions(captioned, world, tmp_path):
    """LAVIS's evaluation in a process of its own would do this: frozen parts from their sources, the rest from it."""
    file = Path(captioned.output_dir) / "checkpoint_3.pth"
    saved = torch.load(file)["model"]
    frozen = {name for name, parameter in model_of(captioned).named_parameters() if not parameter.requires_grad}
    assert not frozen & set(saved)
    others = {"model.load_finetuned": True, "model.finetuned": file, "run.evaluate": True, "run.max_len": 12}
    again = run("evaluate", PROJECT / "tove_caption.yaml", options(world, tmp_path, "llava_caption", **others))
    results = [
        (Path(runner.output_dir) / "result" / name).read_text()
        for runner, name in ((captioned, "test_epoch3.json"), (again, "test_epochbest.json"))
    ]
    assert results[0] == results[1]


@pytest.mark.full
def test_resume(captioned, world, tmp_path):
    """LAVIS loads strictly here, and its checkpoint lacks all that is frozen."""
    file = Path(captioned.output_dir) / "checkpoint_3.pth"
    others = {"run.resume_ckpt_path": file, "run.max_epoch": 5, "run.batch_size_train": 4, "run.test_splits": "[]"}
    runner = run("train", PROJECT / "tove_caption.yaml", options(world, tmp_path, "llava_caption", **others))
    assert runner.start_epoch == 4
    assert [path.name for path in Path(runner.output_dir).glob("*.pth")] == ["checkpoint_4.pth"]
    assert float(log(runner)[-1]["train_loss"]) < float(log(captioned)[-1]["train_loss"]) + 0.1


@pytest.fixture(scope="module")
def answered(lavis, world, tmp_path_factory):
    others = {"run.batch_size_train": 32, "run.warmup_steps": 0}
    return run(
        "train", PROJECT / "tove_vqa.yaml", options(world, tmp_path_factory.mktemp("vqa"), "llava_vqa", **others)
    )


def test_answers_are_learnt_and_judged(answered, world):
    """By VQAv2's script: with one reference, the share of answers that are the same."""
    train, judged = log(answered)
    assert float(train["train_loss"]) > 0
    dataset = answered.datasets["val"]
    written = json.loads((Path(answered.output_dir) / "result" / "val_vqa_result.json").read_text())
    right = [row["answer"] == dataset.annotation[row["question_id"]]["answer"] for row in written]
    assert len(right) == len(dataset) > 20
    assert judged["val_agg_metrics"] == pytest.approx(100 * sum(right) / len(right), abs=0.01)
    assert sum(right) > 5, "the decoder knows what kind of answer a question has"
    assert {row["answer"] for row in written} <= set(json.loads((world.out / "answer_list.json").read_text()))
    assert (Path(answered.output_dir) / "checkpoint_best.pth").is_file()


@pytest.mark.full
def test_answers_are_generated_from_the_best_checkpoint(answered, world, tmp_path):
    others = {
        "model.load_finetuned": True,
        "model.finetuned": Path(answered.output_dir) / "checkpoint_best.pth",
        "run.test_splits": "[val]",
        "run.inference_method": "generate",
        "run.num_beams": 1,
    }
    runner = run("evaluate", PROJECT / "tove_vqa.yaml", options(world, tmp_path, "llava_vqa", **others))
    ranked, generated = (
        {row["question_id"]: row["answer"] for row in json.loads((Path(one.output_dir) / "result" / name).read_text())}
        for one, name in ((answered, "val_vqa_result.json"), (runner, "val_vqa_result.json"))
    )
    assert ranked.keys() == generated.keys()
    same = sum(ranked[key] == generated[key] for key in ranked)
    assert same > 0.8 * len(ranked), "one-word answers: the likeliest of the list is nearly always the likeliest word"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.model_type=huge", "`model.model_type`: LAVIS knows no `huge`"),
        ("model.trainables=x", "LAVIS's `model` block: unknown key `trainables`"),
        ("datasets.llava_vqa.build_info.answer_list=no.json", "candidate answers `no.json` cannot be read"),
        ("datasets.llava_vqa.build_info.images.val=/no/images", "`llava_vqa.build_info.images.val`: no folder"),
    ],
)
def test_what_is_refused(lavis, world, tmp_path, option, message):
    with pytest.raises(UserError, match=message):
        run("train", PROJECT / "tove_vqa.yaml", [*options(world, tmp_path, "llava_vqa"), option])


def test_pictures_are_the_size_of_the_tower_that_a_finished_run_has(lavis, world, tmp_path):
    from helpers.tiny_base import build_base, save_base
    from helpers.tiny_decoders import make_decoder

    folder = save_base(tmp_path / "run", *build_base(make_decoder(tmp_path / "decoder"), world.tower))
    others = {
        "model.vit_model": "tove:projects/miniature/tower.yaml",
        "model.pretrained": folder,
        "run.max_len": 4,
        "run.min_len": 1,
    }
    runner = run("evaluate", PROJECT / "tove_caption.yaml", options(world, tmp_path, "llava_caption", **others))
    assert next(iter(runner.dataloaders["test"]))["image"].shape == (4, 3, tiny_towers.SIZE, tiny_towers.SIZE)
    assert model_of(runner).model.config.decoder.hidden_size == 24
