"""What LLaVA's two stages train, with a ToVE tower and with a plain CLIP, and which run may go on."""

import json
import logging

import numpy as np
import pytest
import torch
import webdataset
from safetensors.torch import load_file

from helpers.training import metrics, same, weights
from tove_lvlm.lvlm.parts import base_model
from tove_lvlm.recipes.llava import FINETUNE
from tove_lvlm.storage import fingerprint
from tove_lvlm.train.stage import load_run


def test_stage_one_trains_projector_and_fusion_only(make_trainer):
    names = {name for name, p in make_trainer("pretrain").model.named_parameters() if p.requires_grad}
    assert names
    assert all(n.startswith(("model.multi_modal_projector.", "model.vision_tower.tove_fusion.")) for n in names)


def test_full_run_moves_what_is_trained_and_nothing_else(world, train):
    assert train("finetune") == 0
    out = world / "out-finetune"
    after = weights(out)
    llm = load_file(world / "llm" / "model.safetensors")
    clip = load_file(world / "tower" / "clip" / "model.safetensors")
    moved = [k for k in llm if not torch.equal(llm[k], after[f"language_model.{k}"][: len(llm[k])])]
    assert moved
    assert all(k.endswith("_proj.weight") for k in moved)  # LoRA's targets only
    held = {k.removeprefix("vision_tower.clip."): v for k, v in after.items() if k.startswith("vision_tower.clip.")}
    assert held
    ours = {k.removeprefix("vision_model."): v for k, v in held.items()}
    theirs = {k.removeprefix("vision_model."): v for k, v in clip.items() if "position_ids" not in k}
    assert same(ours, theirs)
    assert sum(tensor.abs().sum() for key, tensor in after.items() if "transfers" in key) > 0
    lines = metrics(out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        masses = [value for key, value in line.items() if key.startswith("gate_mass/")]
        assert len(masses) == 4
        assert sum(masses) == pytest.approx(1, abs=1e-4)
        assert 0 < line["gate_entropy"] <= np.log(4) + 1e-4
        assert {"loss", "learning_rate/projector", "learning_rate/language_model", "balance_loss"} <= line.keys()
    # The rates are those that the steps were made with: warm-up from 0, then down; the projector at half.
    assert lines[0]["learning_rate/language_model"] == 0
    assert all(
        line["learning_rate/projector"] == pytest.approx(line["learning_rate/language_model"] / 2) for line in lines
    )
    assert load_run(FINETUNE, out / "run.yaml").train.learning_rate == 0.01


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("train.seed=7", "train.seed"),
        ("train.per_device_train_batch_size=4", "train.per_device_train_batch_size"),
        ("model.vision_tower=clip", "model.vision_tower"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(world, train, capfd, option, key):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=2", option) == 2
    assert f"`{key}`" in capfd.readouterr().err.splitlines()[-1]


def test_baseline_runs_through_the_same_code(world, train):
    assert train("pretrain", "model.vision_tower=clip", "train.max_steps=2") == 0
    out = world / "out-pretrain"
    assert all(name.startswith("multi_modal_projector.") for name in weights(out))
    assert not any(key.startswith("gate") for line in metrics(out) for key in line)
    options = ["model.vision_tower=clip", f"model.pretrain_mm_mlp_adapter={out}", "train.max_steps=2"]
    assert train("finetune", *options) == 0
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(world / "out-finetune")
    assert type(model.model.vision_tower).__name__ == "CLIPVisionModel"
    assert (model.config.vision_feature_layer, model.config.vision_feature_select_strategy) == (-2, "default")


def test_captions_in_the_form_of_conversations(world, train, make_trainer, capfd):
    """`data.caption_template: chat` learns from a caption what stage 2 would."""
    plain, chat = (
        make_trainer("pretrain", f"data.caption_template={form}").train_dataset[0] for form in ("plain", "chat")
    )
    same_data = [f"data.train=[{world / 'data' / 'pretrain.json'}]", f"data.image_folder={world / 'data' / 'images'}"]
    tuned = make_trainer("finetune", *same_data).train_dataset[0]
    assert list(chat["input_ids"]) == list(tuned["input_ids"])
    assert list(chat["labels"]) == list(tuned["labels"])
    assert len(chat["input_ids"]) > len(plain["input_ids"]) + 3
    learned = [[label for label in row["labels"] if label >= 0] for row in (plain, chat)]
    assert learned[0][:2] == learned[1][:2], "the same caption"
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=2", "data.caption_template=chat") == 2
    assert "`data.caption_template`" in capfd.readouterr().err.splitlines()[-1]
    assert train("finetune", "train.max_steps=2", "data.caption_template=chat") == 2
    assert "it is for stage 1" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("adds_bos", [True, False])
def test_plain_captions_with_nothing_before_the_image_are_warned_of(world, make_trainer, caplog, adds_bos):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(world / "llm", add_bos_token=adds_bos).save_pretrained(world / "llm")
    make_trainer("pretrain")
    assert ("nothing stands before an image" in caplog.text) != adds_bos


def test_shards_train_as_loose_files_do(world, train):
    samples = json.loads((world / "data" / "finetune.json").read_text())
    for shard in range(2):
        with webdataset.TarWriter(str(world / f"{shard:05d}.tar")) as writer:
            for sample in samples[12 * shard : 12 * shard + 12]:
                image = sample.get("image")
                content = {} if image is None else {"png": (world / "data" / "images" / image).read_bytes()}
                writer.write({"__key__": sample["id"], "json": sample, **content})
    same_order = ["train.group_by_modality_length=true", "train.max_steps=3"]
    assert train("finetune", *same_order) == 0
    of_shards = ["data.train=['./{00000..00001}.tar']", "data.image_folder=null", f"train.output_dir={world}/shards"]
    assert train("finetune", *same_order, *of_shards) == 0
    assert metrics(world / "shards") == metrics(world / "out-finetune")
    assert same(weights(world / "shards"), weights(world / "out-finetune"))


def test_what_training_starts_with_is_in_the_log(make_trainer, caplog):
    """After the weights of an earlier stage are in: two runs with the same SHA-256 start from the same tower."""
    with caplog.at_level(logging.INFO):
        model = make_trainer("finetune").model
    tower = base_model(model).model.vision_tower
    digest = fingerprint(tower.state_dict())[:16]
    assert f"finetune: a tower with depth, normals, shapes, cnn, sha256 {digest}" in caplog.text
