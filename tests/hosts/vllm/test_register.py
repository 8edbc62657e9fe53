"""What vLLM is told when it starts, with a stand-in for it."""

import logging
import sys
from types import SimpleNamespace

import pytest

from tove_lvlm.hosts.vllm import register
from tove_lvlm.hosts.vllm.register import TESTED


@pytest.fixture
def told(monkeypatch):
    """(architecture, class) pairs that were registered."""
    pairs = []
    registry = SimpleNamespace(register_model=lambda *pair: pairs.append(pair))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(ModelRegistry=registry))
    return pairs


@pytest.mark.parametrize(("found", "warns"), [(f"{TESTED}.0", False), ("0.99.1", True)])
def test_llava_is_ours_and_another_version_is_named(told, monkeypatch, caplog, found, warns):
    monkeypatch.setattr("importlib.metadata.version", lambda distribution: found)
    with caplog.at_level(logging.WARNING):
        register()
    assert told == [("LlavaForConditionalGeneration", "tove_lvlm.hosts.vllm.model:ToVELlava")]
    assert (f"vLLM {found} has not been tried with tove_lvlm, which is tested with {TESTED}" in caplog.text) == warns


def test_without_vllm_it_says_where_it_lives(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match="vLLM in an environment of its own: see docs/serving.md"):
        register()
