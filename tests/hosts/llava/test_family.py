"""LLaVA-NeXT and TinyLLaVA Factory, and hosts that are absent or of another version.

Neither of the two is on PyPI, so they stand here as small packages with exactly the surface that the plugin meets: the
names, signatures and order of calls of LLaVA-NeXT df17966 and TinyLLaVA Factory 53f12c7, the rest left out.
"""

import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.hosts.llava import register
from tove_lvlm.hosts.llava.family import FAMILY, find_host

NEXT = {
    "llava/__init__.py": "",
    "llava/model/__init__.py": "",
    "llava/model/multimodal_encoder/builder.py": """
        import os
        def build_vision_tower(vision_tower_cfg, **kwargs):
            vision_tower = getattr(vision_tower_cfg, "mm_vision_tower", getattr(vision_tower_cfg, "vision_tower", None))
            os.path.exists(vision_tower)
            raise ValueError(f"Unknown vision tower: {vision_tower}")
    """,
    "llava/model/multimodal_resampler/builder.py": """
        import torch
        class IdentityMap(torch.nn.Module):
            config = {"mm_resampler_type": None}
        def build_vision_resampler(model_args, delay_load=False, **kwargs):
            return IdentityMap()
    """,
    "llava/model/multimodal_projector/builder.py": """
        import torch.nn as nn
        def build_vision_projector(config, delay_load=False, **kwargs):
            assert kwargs["vision_cfg"].image_size == 16
            width = config.hidden_size
            return nn.Sequential(nn.Linear(config.mm_hidden_size, width), nn.GELU(), nn.Linear(width, width))
    """,
    "llava/model/llava_arch.py": """
        import torch
        from .multimodal_encoder.builder import build_vision_tower
        from .multimodal_resampler.builder import build_vision_resampler
        from .multimodal_projector.builder import build_vision_projector
        class LlavaMetaModel(torch.nn.Module):
            def __init__(self, config):
                super().__init__()
                self.config = config
                if hasattr(config, "mm_vision_tower"):
                    delay_load = getattr(config, "delay_load", False)
                    self.vision_tower = build_vision_tower(config, delay_load=delay_load)
                    self.vision_resampler = build_vision_resampler(config, vision_tower=self.vision_tower)
                    self.mm_projector = build_vision_projector(config, vision_cfg=self.vision_tower.config)
            def get_vision_tower(self):
                return getattr(self, "vision_tower", None)
            def initialize_vision_modules(self, model_args, fsdp=None):
                self.config.mm_vision_tower = model_args.vision_tower
                vision_tower = build_vision_tower(model_args)
                vision_resampler = build_vision_resampler(model_args, vision_tower=vision_tower)
                self.vision_tower, self.vision_resampler = vision_tower, vision_resampler
                self.config.mm_hidden_size = getattr(vision_resampler, "hidden_size", vision_tower.hidden_size)
                self.mm_projector = build_vision_projector(self.config, vision_cfg=vision_tower.config)
            def encode_images(self, images):
                return self.mm_projector(self.get_vision_tower()(images))
            def encode_multimodals(self, videos_or_images, split_sizes):
                features = self.get_vision_tower()(videos_or_images)
                return [self.mm_projector(feat) for feat in torch.split(features, split_sizes, dim=0)]
    """,
    "llava/model/language_model/llava_llama.py": "class LlavaLlamaForCausalLM: pass",
    "llava/model/builder.py": """
        def load_pretrained_model(model_path, model_base, model_name, load_8bit=False, device_map="auto", **kwargs):
            return model_path, model_base, model_name, kwargs
    """,
}
TINY = {
    "tinyllava/__init__.py": "",
    "tinyllava/model/__init__.py": "",
    "tinyllava/model/vision_tower/__init__.py": """
        VISION_TOWER_FACTORY = {}
        def VisionTowerFactory(vision_tower_name):
            vision_tower_name = vision_tower_name.split(":")[0]
            model = None
            for name in VISION_TOWER_FACTORY.keys():
                if name.lower() in vision_tower_name.lower():
                    model = VISION_TOWER_FACTORY[name]
            assert model, f"{vision_tower_name} is not registered"
            return model
        def register_vision_tower(name):
            def register_vision_tower_cls(cls):
                if name in VISION_TOWER_FACTORY:
                    return VISION_TOWER_FACTORY[name]
                VISION_TOWER_FACTORY[name] = cls
                return cls
            return register_vision_tower_cls
    """,
    "tinyllava/model/vision_tower/base.py": """
        import torch.nn as nn
        class VisionTower(nn.Module):
            def __init__(self, cfg):
                super().__init__()
                self._vision_tower = None
                self._image_processor = None
                self.config = cfg
            def load_model(self, vision_tower_name, **kwargs):
                self._load_model(vision_tower_name, **kwargs)
                self._vision_tower.requires_grad_(False)
    """,
    "tinyllava/model/connector/__init__.py": """
        CONNECTOR_FACTORY = {}
        def ConnectorFactory(connector_name):
            model = None
            for name in CONNECTOR_FACTORY.keys():
                if name.lower() in connector_name.lower():
                    model = CONNECTOR_FACTORY[name]
            assert model, f"{connector_name} is not registered"
            return model
        def register_connector(name):
            def register_connector_cls(cls):
                if name in CONNECTOR_FACTORY:
                    return CONNECTOR_FACTORY[name]
                CONNECTOR_FACTORY[name] = cls
                return cls
            return register_connector_cls
        from . import mlp
    """,
    "tinyllava/model/connector/base.py": """
        import os
        import torch
        import torch.nn as nn
        class Connector(nn.Module):
            def __init__(self, config=None):
                super().__init__()
                self._connector = None
            def load_model(self, **kwargs):
                path = kwargs.get("pretrained_connector_path", None)
                if path is not None:
                    weights = torch.load(os.path.join(path, "pytorch_model.bin"), map_location="cpu")
                    weights = {k.split("_connector.")[1]: v for k, v in weights.items() if "_connector" in k}
                    self._connector.load_state_dict(weights)
            def forward(self, x):
                return self._connector(x)
    """,
    "tinyllava/model/connector/mlp.py": """
        import re
        import torch.nn as nn
        from . import register_connector
        from .base import Connector
        @register_connector("mlp")
        class MLPConnector(Connector):
            def __init__(self, config):
                super().__init__()
                depth = int(re.match(r"^mlp(\\d+)x_gelu$", config.connector_type).group(1))
                modules = [nn.Linear(config.vision_hidden_size, config.hidden_size)]
                for _ in range(1, depth):
                    modules += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
                self._connector = nn.Sequential(*modules)
    """,
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package tree in the place of any LLaVA that is installed, for one test."""

    def put(files):
        for name, text in files.items():
            path = tmp_path / "packages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path / "packages")

    held = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("llava", "tinyllava")}
    for name in held:
        del sys.modules[name]
    yield put
    for name in [name for name in sys.modules if name.partition(".")[0] in ("llava", "tinyllava")]:
        del sys.modules[name]
    sys.modules.update(held)


def projected(projector, tokens):
    return projector.get_submodule("2")(torch.nn.functional.gelu(projector.get_submodule("0")(tokens)))


# ---- LLaVA-NeXT ----


def settings(yaml, **changes):
    return SimpleNamespace(vision_tower=f"tove:{yaml}", mm_vision_select_layer=-2, **changes)


def test_llava_next(install, tiny_tower_yaml, tiny_tower):
    install(NEXT)
    assert (register(), register()) == ("llava_next", "llava_next")
    from llava.model import builder, llava_arch

    model = llava_arch.LlavaMetaModel(SimpleNamespace(hidden_size=8))
    model.initialize_vision_modules(settings(tiny_tower_yaml))
    tiny_towers.wake(model.eval().mm_projector)
    assert model.config.mm_vision_tower == f"tove:{tiny_tower_yaml.resolve()}"
    tiny_tower.tove_fusion.load_state_dict(model.mm_projector.tove_fusion.state_dict())
    want = projected(model.mm_projector, tiny_tower(tiny_towers.pixels(3)).last_hidden_state)
    assert torch.equal(model.encode_images(tiny_towers.pixels(3)), want)
    parts = model.encode_multimodals(tiny_towers.pixels(3), [1, 2])
    torch.testing.assert_close(torch.cat(parts), want)  # other batch sizes round differently
    with pytest.raises(UserError, match="unknown vision tower `tov:x`; did you mean `tove`"):
        llava_arch.build_vision_tower(SimpleNamespace(vision_tower="tov:x"))
    assert builder.load_pretrained_model("nowhere", None, "llava", torch_dtype="bfloat16")[:3] == (
        "nowhere",
        None,
        "llava",
    )


def test_llava_next_builds_eagerly_but_not_on_the_meta_device(install, tiny_tower_yaml):
    install(NEXT)
    register("llava_next")
    from llava.model import llava_arch

    config = SimpleNamespace(hidden_size=8, mm_vision_tower=f"tove:{tiny_tower_yaml}")
    assert llava_arch.LlavaMetaModel(config).vision_tower.is_loaded
    config.delay_load = True
    assert not llava_arch.LlavaMetaModel(config).vision_tower.is_loaded
    config.delay_load = False
    with torch.device("meta"):
        model = llava_arch.LlavaMetaModel(config)
    assert not model.vision_tower.is_loaded
    assert all(parameter.is_meta for parameter in model.mm_projector.parameters())


@pytest.mark.parametrize("asked", [{"mm_tunable_parts": "mm_vision_tower"}, {"unfreeze_mm_vision_tower": True}])
def test_llava_next_cannot_train_the_tower(install, tiny_tower_yaml, asked):
    install(NEXT)
    register("llava_next")
    from llava.model import llava_arch

    with pytest.raises(UserError, match="are frozen"):
        llava_arch.build_vision_tower(settings(tiny_tower_yaml, **asked))


# ---- TinyLLaVA Factory ----


@pytest.fixture
def tinyllava(install, tiny_tower, tmp_path):
    """(tower, connector, the saved tower's folder), built in the order of TinyLLaVA's model."""
    install(TINY)
    assert (register("tinyllava"), register("tinyllava")) == ("tinyllava", "tinyllava")
    from tinyllava.model.connector import ConnectorFactory
    from tinyllava.model.vision_tower import VisionTowerFactory
    from transformers import AutoConfig

    folder = tmp_path / "tower"
    tiny_towers.wake(tiny_tower).save_pretrained(folder)
    name = f"tove:{folder}"
    vision_config = AutoConfig.from_pretrained(name.split(":")[-1])
    vision_config.model_name_or_path = name.split(":")[-1]
    config = SimpleNamespace(
        connector_type="tove_mlp2x_gelu",
        hidden_size=8,
        vision_config=vision_config,
        vision_hidden_size=vision_config.hidden_size,
    )
    tower = VisionTowerFactory(name)(vision_config)
    connector = ConnectorFactory(config.connector_type)(config)
    tower.load_model(str(folder), pretrained_vision_tower_path="of stage 1, which the tower does not need")
    connector.load_model()
    return tower, connector, folder


def test_tinyllava(tinyllava, tiny_tower):
    tower, connector, _ = tinyllava
    tiny_towers.wake(connector.eval()._connector)
    asked = {"vision_feature_layer": -2, "vision_feature_select_strategy": "patch"}
    want = projected(connector._connector, tiny_tower.eval()(tiny_towers.pixels()).last_hidden_state)
    got = connector(tower(tiny_towers.pixels(), **asked))
    assert torch.equal(got, want)
    got.sum().backward()
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    gate = connector._connector.tove_fusion.gate
    assert all(parameter.grad.abs().sum() > 0 for parameter in gate.parameters())
    assert tower._image_processor.crop_size["height"] == 16


def test_tinyllavas_connector_is_saved_and_loaded(tinyllava, tmp_path):
    _, connector, _ = tinyllava
    tiny_towers.wake(connector._connector)
    torch.save(dict(connector.named_parameters()), tmp_path / "pytorch_model.bin")
    before = {name: tensor.clone() for name, tensor in connector.state_dict().items()}
    tiny_towers.wake(connector._connector, seed=1)
    connector.load_model(pretrained_connector_path=str(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in connector.state_dict().items())


def test_tinyllava_asks_for_something_else(tinyllava):
    tower, _, _ = tinyllava
    with pytest.raises(UserError, match="layer -1, `patch`; this tower gives layer -2"):
        tower(tiny_towers.pixels(), vision_feature_layer=-1)
    with pytest.raises(UserError, match="--tune_type_vision_tower frozen"):
        tower.requires_grad_(True)
    from tinyllava.model.connector import ConnectorFactory

    wrong = SimpleNamespace(connector_type="tove_mlp2x_gelu", hidden_size=8, vision_config=object())
    with pytest.raises(UserError, match="is for a ToVE tower"):
        ConnectorFactory("tove_mlp2x_gelu")(wrong)


# ---- absent, or not as expected ----


@pytest.mark.parametrize("gone", ["build_vision_projector", "build_vision_tower", "load_pretrained_model"])
def test_a_host_without_a_function_that_is_replaced(install, gone):
    where = "llava/model/builder.py" if gone == "load_pretrained_model" else "llava/model/llava_arch.py"
    install(NEXT | {where: NEXT[where].replace(gone, "renamed")} if gone == "load_pretrained_model" else NEXT)
    if gone != "load_pretrained_model":
        from llava.model import llava_arch

        delattr(llava_arch, gone)
    with pytest.raises(UserError, match=rf"LLaVA-NeXT.* has no `llava.model.*{gone}`.*not supported"):
        register()


def test_a_host_whose_import_fails_says_why(install):
    broken = {"llava/model/language_model/llava_llama.py": "from transformers import NotThere"}
    install(NEXT | broken)
    with pytest.raises(UserError, match=r"llava_llama` cannot be imported: .*NotThere"):
        register()


def test_no_host(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in (None, *FAMILY):
        with pytest.raises(
            ImportError, match="is not installed in this environment: pip install --no-deps llava-torch"
        ):
            find_host(name)
