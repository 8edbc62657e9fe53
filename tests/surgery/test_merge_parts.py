"""The parts of merging: losses, class attention, the cut student, LoRA, images."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_towers
from tove_lvlm import ToVEImageProcessor, build_tower
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.merge import MergeConfig
from tove_lvlm.config.model import LoraConfig
from tove_lvlm.data.errors import DataError
from tove_lvlm.recipes.merge.attention import ClassAttention
from tove_lvlm.recipes.merge.cache import TargetCache
from tove_lvlm.recipes.merge.distiller import Distiller
from tove_lvlm.recipes.merge.images import ImageDataset, collate
from tove_lvlm.recipes.merge.losses import squared_distance, token_loss, weighted_mean
from tove_lvlm.recipes.merge.student import add_lora, cut, whole_student
from tove_lvlm.recipes.merge.writing import plain_processor


def tokens(seed: int, batch: int = 2, num: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randn(batch, num, width, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.fixture
def tower(tiny_tower):
    return tiny_towers.wake(tiny_tower).eval()


# ---- losses ----


def test_losses_against_plain_loops():
    a, b = tokens(0), tokens(1)
    smooth, cosine, both = (token_loss(a, b, kind) for kind in ("smooth_l1", "cosine", "both"))
    for i in range(2):
        for n in range(5):
            d = (a[i, n] - b[i, n]).abs()
            expected = sum((0.5 * x * x if x < 1 else x - 0.5) for x in d.tolist()) / 7
            assert smooth[i, n].item() == pytest.approx(expected, rel=1e-5)
            dot = (a[i, n] @ b[i, n] / a[i, n].norm() / b[i, n].norm()).item()
            assert cosine[i, n].item() == pytest.approx(1 - dot, abs=1e-5)
    torch.testing.assert_close(both, smooth + cosine)
    assert token_loss(a.bfloat16(), b, "both").dtype == torch.float32


def test_weights_are_shares_within_an_image():
    loss_BN = torch.tensor([[1.0, 3.0], [10.0, 20.0]])
    assert weighted_mean(loss_BN, None).item() == 8.5
    # Image 1: (3 x 1 + 1 x 3) / 4 = 1.5; image 2: all on the first token.
    weight_BN = torch.tensor([[30.0, 10.0], [0.2, 0.0]])
    assert weighted_mean(loss_BN, weight_BN).item() == pytest.approx((1.5 + 10) / 2)


def test_squared_distance_is_of_each_image():
    a, b = tokens(0), tokens(1)
    expected = [sum(x * x for x in (a[i] - b[i]).flatten().tolist()) / 35 for i in range(2)]
    assert squared_distance(a, b).tolist() == pytest.approx(expected, rel=1e-5)


# ---- class attention ----


@pytest.mark.parametrize("layer", [0, 1])
def test_class_attention_is_that_of_the_eager_layer(tower, layer):
    recorder = ClassAttention(tower.clip.encoder.layers[layer])
    tower(tiny_towers.pixels(3))
    from transformers import CLIPVisionModel

    eager = CLIPVisionModel(tower.clip.config)
    eager.load_state_dict(tower.clip.state_dict())
    eager.set_attn_implementation("eager")
    attentions = eager(tiny_towers.pixels(3), output_attentions=True).attentions[layer]
    # Each head's row of the class token over the patches alone, then the mean over heads.
    row_BHN = attentions[:, :, 0, 1:]
    expected = (row_BHN / row_BHN.sum(dim=-1, keepdim=True)).mean(dim=1)
    torch.testing.assert_close(recorder.weight_BN, expected)
    assert recorder.weight_BN.std() > 1e-3
    recorder.remove()
    tower(tiny_towers.pixels(3))
    assert recorder.weight_BN is None


# ---- the student ----


@pytest.mark.parametrize("select_layer", [-1, -2, 1, 0, -4])
def test_cut_student_gives_the_hidden_state(tower, select_layer):
    whole = whole_student(tower, None)
    student = cut(whole, select_layer)
    expected = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states[select_layer]
    assert torch.equal(student(tiny_towers.pixels(3)).last_hidden_state, expected)
    assert not any(p is q for p in student.parameters() for q in whole.parameters())


def test_starts_as_clip_and_learns_only_what_is_read(tower):
    distiller = Distiller(tower, cut(whole_student(tower, None), tower.config.select_layer), MergeConfig()).train()
    t_clip_BND, t_fuse_BND = distiller.target(tiny_towers.pixels(3))
    assert torch.equal(distiller.tokens(tiny_towers.pixels(3)), t_clip_BND)
    out = distiller(tiny_towers.pixels(3))
    assert out.figures["gap"].item() == pytest.approx(1)
    out.loss.backward()
    trained = {name for name, p in distiller.named_parameters() if p.requires_grad}
    assert {name for name, p in distiller.named_parameters() if p.grad is not None} == trained
    assert all(name.startswith("student.") and ".layers.2." not in name for name in trained)
    assert len(distiller.student.encoder.layers) == 2
    assert not tower.training
    assert not torch.equal(t_clip_BND, t_fuse_BND)


def test_a_tower_of_more_pixels_teaches_a_student_of_clips(tiny_tower_yaml):
    tower = build_tower(tiny_tower_yaml, ["clip.input_size=64"])
    distiller = Distiller(tower, cut(whole_student(tower, None), tower.config.select_layer), MergeConfig())
    pixels_B3HW = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(distiller.tokens(pixels_B3HW), distiller.target(pixels_B3HW)[0])
    written = plain_processor(ToVEImageProcessor.for_tower(tower.config), tower.clip)
    assert (written.size["shortest_edge"], written.crop_size["height"], written.crop_size["width"]) == (16, 16, 16)


def test_teacher_has_no_noise_and_no_dropout(tower):
    tower.tove_fusion.gate.expert_dropout = 0.5
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), MergeConfig())
    tower.train()
    assert not torch.equal(distiller.target(tiny_towers.pixels(16))[1], distiller.target(tiny_towers.pixels(16))[1])
    distiller.train()
    assert torch.equal(distiller.target(tiny_towers.pixels(16))[1], distiller.target(tiny_towers.pixels(16))[1])


def test_target_is_measured_for_each_channel_over_all_tokens(tower):
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), MergeConfig())
    batches = [tiny_towers.pixels(2, seed=0), tiny_towers.pixels(3, seed=1)]
    distiller.measure_target(batches)
    t_MD = distiller.target(torch.cat(batches))[1].flatten(0, 1)
    torch.testing.assert_close(distiller.mean_D, t_MD.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(distiller.std_D, t_MD.std(dim=0, correction=0), rtol=1e-4, atol=1e-5)
    # In those units a loss does not depend on a channel's scale.
    s, t = distiller.tokens(batches[0]), distiller.target(batches[0])[1]
    expected = token_loss(
        (s - distiller.mean_D) / distiller.std_D, (t - distiller.mean_D) / distiller.std_D, "smooth_l1"
    )
    torch.testing.assert_close(distiller(batches[0]).loss, expected.mean())


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_tokens_are_weighed_by_class_attention(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig(token_weight="cls_attention"))
    loss = distiller(tiny_towers.pixels(3)).loss
    t_BND = distiller.target(tiny_towers.pixels(3))[1]
    loss_BN = token_loss(distiller.tokens(tiny_towers.pixels(3)), t_BND, "smooth_l1")
    expected = (loss_BN * distiller.attention.weight_BN).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    assert abs(loss - loss_BN.mean()) > 1e-4


def test_gap_is_what_is_left_of_the_way_from_clip_to_the_tower(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig())
    with torch.no_grad():
        t_clip, t_fuse = distiller.target(tiny_towers.pixels(3))
        for share in (0.0, 0.5, 1.0):
            distiller.tokens = lambda pixels, share=share: t_clip + share * (t_fuse - t_clip)
            figures = distiller(tiny_towers.pixels(3)).figures
            assert figures["gap"].item() == pytest.approx((1 - share) ** 2, abs=1e-6)
    assert figures["cosine"].item() == pytest.approx(1)


# ---- the cache ----


def test_cache_gives_back_what_was_put_and_tells_teachers_apart(tmp_path):
    image = tmp_path / "a.png"
    paint(image, 0)
    cache = TargetCache(tmp_path / "cache", tower="one", bf16=False)
    key = cache.key(image)
    assert cache.get(key) is None
    kept = {"t_fuse": torch.randn(4, 3), "start": torch.tensor(2.0)}
    cache.put(key, kept)
    found = TargetCache(tmp_path / "cache", bf16=False, tower="one").get(key)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    assert TargetCache(tmp_path / "cache", tower="two", bf16=False).get(key) is None
    paint(image, 1)
    assert cache.key(image) != key
    file = next(cache.folder.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-3])
    assert cache.get(key) is None
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("token_weight", ["none", "cls_attention"])
def test_teacher_runs_once_for_each_image_with_a_cache(tower, processor, tmp_path, token_weight):
    for index in range(6):
        paint(tmp_path / "images" / f"{index}.png", index)
    cache = TargetCache(tmp_path / "cache", tower="t")
    dataset = ImageDataset([tmp_path / "images"], processor, cache=cache)
    options = MergeConfig(token_weight=token_weight)
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), options, cache=cache)
    ran = []
    tower.register_forward_pre_hook(lambda module, args: ran.append(len(args[0])))

    def loss(indices):
        batch = collate([dataset[index] for index in indices])
        batch.pop("sample_ids")
        return distiller(**batch)

    first = loss([0, 1, 2, 3])
    second = loss([2, 3, 4, 5])  # two are new: all four are shown
    assert ran == [4, 4]
    again = loss([0, 1, 2, 3])
    assert ran == [4, 4]
    torch.testing.assert_close(again.loss, first.loss)
    torch.testing.assert_close(again.figures["gap"], first.figures["gap"])
    assert not torch.equal(second.loss, first.loss)
    assert not torch.equal(loss([5, 0]).loss, first.loss)


def test_flipped_images_are_flipped_for_both(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig(), horizontal_flip=True).train()
    seen = []
    tower.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    student.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    torch.manual_seed(0)
    pixels = tiny_towers.pixels(16)
    distiller(pixels)
    assert torch.equal(seen[0], seen[1])
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(seen[0], pixels, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(seen[0], pixels, strict=True)]
    assert 3 < sum(flipped) < 13
    assert [not f for f in flipped] == kept
    distiller.eval()(pixels)
    assert torch.equal(seen[2], pixels)


def test_merged_lora_equals_unmerged(tower):
    from tove_lvlm.lvlm.lora import collect_merged

    whole = whole_student(tower, None)
    student = cut(whole, -2)
    student.requires_grad_(False)
    student = add_lora(student, LoraConfig(lora_enable=True, lora_r=3, lora_alpha=6, lora_dropout=0.0)).eval()
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert len([name for name in trained if "lora_A" in name]) == 2 * 6
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    before = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states
    whole.load_state_dict(whole.state_dict() | collect_merged(student))
    after = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        after[-2], student(pixel_values=tiny_towers.pixels(3)).last_hidden_state, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(after[-2], before[-2], atol=0.1)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"hidden_size": 48, "num_attention_heads": 2}, "hidden_size"), ({"image_size": 32}, "image_size")],
)
def test_another_clip_of_other_sizes_is_refused(tower, tmp_path, monkeypatch, change, word):
    monkeypatch.setattr(tiny_towers, "CLIP_ARCHITECTURE", tiny_towers.CLIP_ARCHITECTURE | change)
    with pytest.raises(UserError, match=word):
        whole_student(tower, str(tiny_towers.make_clip(tmp_path / "clip")))


def test_another_clip_of_the_same_sizes_is_taken(tower, tmp_path):
    folder = tiny_towers.make_clip(tmp_path / "clip", seed=5)
    student = whole_student(tower, str(folder))
    assert not torch.equal(
        student(tiny_towers.pixels()).last_hidden_state, tower.clip(tiny_towers.pixels()).last_hidden_state
    )
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0.1, 0.2, 0.3]}))
    with pytest.raises(UserError, match="normalises"):
        whole_student(tower, str(folder))


# ---- images ----


@pytest.fixture
def processor(tower):
    from tove_lvlm.tower.image_processing import ToVEImageProcessor

    return ToVEImageProcessor.for_tower(tower.config)


def paint(path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def test_folders_are_read_with_all_below_and_json_files_by_their_images(tmp_path, processor):
    for index, name in enumerate(["b.png", "a/x.JPG", "a/deep/y.webp", "a/z.jpeg"]):
        paint(tmp_path / "images" / name, index)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    rows = [{"id": str(i), "image": name} for i, name in enumerate(["b.png", "a/x.JPG", "b.png"])] + [{"id": "text"}]
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    (tmp_path / "data.json").write_text(json.dumps([row | {"conversations": talk} for row in rows]))
    folder = ImageDataset([tmp_path / "images"], processor)
    found = [name.removeprefix(f"{tmp_path}/images/") for name in folder.names]
    assert found == ["a/deep/y.webp", "a/x.JPG", "a/z.jpeg", "b.png"]
    listed = ImageDataset([tmp_path / "data.json"], processor, image_folder=tmp_path / "images")
    assert listed.names == ["b.png", "a/x.JPG"]
    assert torch.equal(listed[0][0], folder[3][0])
    assert folder[3][0].shape == (3, tiny_towers.SIZE, tiny_towers.SIZE)
    with pytest.raises(ConfigError, match="image_folder"):
        ImageDataset([tmp_path / "data.json"], processor)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no image"):
        ImageDataset([tmp_path / "empty"], processor)


def test_broken_images_are_skipped_counted_and_bounded(tmp_path, processor, caplog):
    for index in range(20):
        paint(tmp_path / f"{index:02}.png", index)
    for index in (3, 4, 9):
        (tmp_path / f"{index:02}.png").write_bytes((tmp_path / "00.png").read_bytes()[:40])
    dataset = ImageDataset([tmp_path], processor)
    assert torch.equal(dataset[3][0], dataset[5][0])
    assert dataset[3][1] == dataset[5][1]
    for index in range(20):
        dataset[index]
    assert dataset.skips.indices == [3, 4, 9]
    assert sum("sample skipped" in message for message in caplog.messages) == 3
    for index in range(10, 13):
        shutil.copy(tmp_path / "03.png", tmp_path / f"{index}.png")
    strict = ImageDataset([tmp_path], processor, max_error_share=0.25)  # five may be broken, the sixth stops
    with pytest.raises(DataError, match="6 bad samples, more than the 5 allowed"):
        [strict[index] for index in range(20)]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError):
        ImageDataset([tmp_path], processor, max_error_share=1.0)[0]
