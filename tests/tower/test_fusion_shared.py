"""`fusion.transfer: shared`: one transfer for all experts, whose outputs must be alike."""

import pytest
import torch

from helpers import tiny_towers
from helpers.tiny_checkpoints import build, save
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import ConfigError
from tove_lvlm.config.tower import FusionConfig
from tove_lvlm.experts import ExpertSpec
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.surgery.detach import detach
from tove_lvlm.tower.checks import transfer_hint
from tove_lvlm.tower.fusion import ToVEFusion

SEEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
WIDTH, HIDDEN, CHANNELS = 6, 7, 3


def spec(name: str, **changes) -> ExpertSpec:
    fields = {"family": "timm", "output": "features", "channels": CHANNELS, "grid": (4, 4), "preprocessing": SEEN}
    return ExpertSpec(name=name, **{**fields, **changes})


def fusion(*specs: ExpertSpec, **settings) -> ToVEFusion:
    torch.manual_seed(0)
    settings = {"mlp_hidden": HIDDEN, "expert_dropout": 0.0, "zero_init": False, "transfer": "shared", **settings}
    return ToVEFusion(specs, width=WIDTH, side=4, settings=FusionConfig(**settings)).eval()


def inputs(names: str = "ab"):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 16, WIDTH, generator=generator)
    grids = {name: torch.randn(2, CHANNELS, 4, 4, generator=generator) for name in "ab"}
    return tokens, {name: grids[name] for name in names}, torch.ones(2)


@torch.no_grad()
def test_by_hand():
    module = fusion(spec("a"), spec("b"))
    tokens, grids, weight = inputs()
    output = module(tokens, grids, weight)
    expected, layer = tokens.clone(), module.shared_transfer
    unit = tokens.square().mean(-1, keepdim=True).sqrt()
    for index, name in enumerate("ab"):
        e = layer.fc2(layer.act(layer.fc1(layer.norm(grids[name].flatten(2).transpose(1, 2)))))
        expected += output.gate_BNK[..., index, None] * unit * e
    torch.testing.assert_close(output.t_fuse_BND, expected)
    swapped = {"a": grids["b"], "b": grids["a"]}
    gate = output.gate_BNK.flip(-1)
    terms = module.terms(tokens, swapped, gate)
    torch.testing.assert_close(tokens + sum(terms.values()), expected)


def test_what_it_holds():
    """As much as for one expert, and one more row in the gate."""
    one, two = (sum(p.numel() for p in fusion(*map(spec, names)).parameters()) for names in ("a", "ab"))
    assert two - one == fusion(spec("a")).gate.fc2.in_features + 1
    assert not list(fusion(spec("a"), spec("b")).transfers)


@torch.no_grad()
def test_it_starts_as_clip():
    tokens, grids, weight = inputs()
    module = fusion(spec("a"), spec("b"), zero_init=True)
    assert torch.equal(module(tokens, grids, weight).t_fuse_BND, tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 5}, r"`a` gives features of 3 x 4 x 4 and `b` features of 5 x 4 x 4"),
        ({"grid": (8, 8)}, r"`b` features of 3 x 8 x 8"),
        ({"output": "map"}, r"`b` a map of 3 x 4 x 4.*Expected shared_out or separate"),
    ],
)
def test_outputs_that_differ_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        fusion(spec("a"), spec("b", **changes))


# ---- in a tower: two depth experts ----


@pytest.fixture
def tower_yaml(tmp_path):
    path = tiny_towers.make_tower_yaml(tmp_path / "yaml", ["depth"], transfer="shared")
    tiny_towers.make_expert(path.parent / "other", "depth", seed=5)
    path.write_text(
        path.read_text().replace(
            "fusion:", "- {name: other, family: dense_vit, output: map, pretrained: ./other}\nfusion:"
        )
    )
    return path


@pytest.mark.parametrize("light", [False, True])
@torch.no_grad()
def test_saved_detached_and_forgotten(tower_yaml, tmp_path, light):
    tower = tiny_towers.wake(build_tower(tower_yaml))
    images = tiny_towers.pixels()
    expected = tower(images).last_hidden_state
    tower.save_pretrained(tmp_path / "saved", light=light)
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert again.config.fusion["transfer"] == "shared"
    assert torch.equal(again(images).last_hidden_state, expected)
    detach(tmp_path / "saved", tmp_path / "rest", ["depth"], seconds=0.01, forget=True)
    rest = ToVEVisionModel.from_pretrained(tmp_path / "rest")
    assert rest.expert_names == ["other"]
    tower.detach("depth")
    torch.testing.assert_close(rest(images).last_hidden_state, tower(images).last_hidden_state)


@torch.no_grad()
def test_in_a_language_model(tower_yaml, llm, tmp_path):
    model, processor = build(llm, tower=tower_yaml)
    save(tmp_path / "merged", model, processor)
    loaded = open_checkpoint(tmp_path / "merged")
    assert loaded.require_tower().tove_fusion.shared_transfer is not None
    images = tiny_towers.pixels()
    ours = model.model.vision_tower(images).last_hidden_state
    assert torch.equal(loaded.require_tower()(images).last_hidden_state, ours)


def test_weights_of_another_kind_are_told_by_their_names():
    ours, theirs = (
        [f"tove_fusion.{name}" for name, _ in fusion(spec("a"), spec("b"), transfer=kind).named_parameters()]
        for kind in ("shared_out", "shared")
    )
    assert "trained with `fusion: {transfer: shared}`" in transfer_hint(ours, theirs)
    assert "trained with `fusion: {transfer: shared_out}`" in transfer_hint(theirs, ours)
    assert transfer_hint(theirs, theirs) == ""
