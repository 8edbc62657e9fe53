"""What vLLM would not serve is one line, before it is started."""

import json

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.hosts.vllm.__main__ import main
from tove_lvlm.hosts.vllm.checks import check_model
from tove_lvlm.storage import MissingWeightsError


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
