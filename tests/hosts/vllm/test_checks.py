"""What vLLM would not serve is one line, before it is started."""

import json
import sys

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.hosts.vllm.__main__ import main
from tove_lvlm.hosts.vllm.checks import BACKEND, backend_of, check_language_model, check_model
from tove_lvlm.storage import MissingWeightsError
from tove_lvlm.tower.build import tower_config_from_yaml


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vision-encoder-decoder", "the base model, of a kind that vLLM lacks"),
        ("tove_vision", "a tower alone, which answers nothing"),
        ("llava_llama", "`tove export --format transformers`"),
        ("clip", "expected `llava`"),
    ],
)
def test_another_kind_of_model_is_named(tmp_path, kind, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UserError, match=f"is a model of type `{kind}`: .*{message}"):
        check_model(tmp_path)


def test_an_adapter_is_to_be_merged_and_nothing_is_nothing(tmp_path):
    with pytest.raises(UserError, match="has no config.json: expected a whole LLaVA model"):
        check_model(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter; merge it first: tove export .* --format merged"):
        check_model(tmp_path)


def test_a_model_without_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(MissingWeightsError):
        check_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_model(tmp_path)


def test_the_model_comes_first(capsys):
    with pytest.raises(UserError, match="`--port` comes before the model's folder; usage: python -m"):
        main(["--port", "1"])
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_tower_that_computes_in_a_way_that_is_not_known_here(tmp_path, tiny_tower_yaml, caplog):
    """As a newer version may write it; vLLM would say so after it has started."""
    tower = tower_config_from_yaml(tiny_tower_yaml).to_dict()
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": tower}))
    check_model(tmp_path)
    assert not caplog.records
    tower["fusion"]["new_rule"] = 1
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": tower}))
    with pytest.raises(UserError, match="fusion: unknown key `new_rule`"):
        check_model(tmp_path)
    (tmp_path / "tove_model.json").write_text(json.dumps({"written_by": {"tove-lvlm": "99.1"}}))
    with pytest.raises(UserError, match="fusion: unknown key `new_rule`"):
        check_model(tmp_path)
    assert "was trained with tove-lvlm 99.1" in caplog.text


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ({"model_type": "llama"}, ()),
        ({"model_type": "smollm3"}, BACKEND),
        ({"model_type": "cohere", "tie_word_embeddings": False}, BACKEND),
        ({"model_type": "cohere", "tie_word_embeddings": True}, ()),
    ],
)
def test_language_models_that_vllms_own_llava_serves_otherwise(text, needed, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    assert backend_of(tmp_path) == needed
    if needed:
        with pytest.raises(UserError, match=f"type `{text['model_type']}` .*; start it with --model-impl transformers"):
            check_language_model(text)
    else:
        check_language_model(text)


@pytest.mark.parametrize("given", [(), ("--model-impl", "vllm"), ("--model-impl=vllm",)])
def test_the_server_is_started_with_the_backend_that_a_model_needs(given, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": {"model_type": "smollm3"}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    started = []
    monkeypatch.setattr("tove_lvlm.hosts.vllm.__main__.register", lambda: None)
    monkeypatch.setattr("runpy.run_module", lambda name, **_: started.append(sys.argv[3:]))
    monkeypatch.setattr(sys, "argv", [])
    main([str(tmp_path), "--port", "1", *given])
    assert started == [["--port", "1", *(given or BACKEND)]]


def test_a_language_model_that_vllm_does_not_read(tmp_path):
    text = {"model_type": "gpt2"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    for look in (lambda: backend_of(tmp_path), lambda: check_language_model(text)):
        with pytest.raises(UserError, match="language model of type `gpt2`; try `tove serve --engine transformers`"):
            look()
