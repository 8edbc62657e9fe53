import dataclasses
from typing import ClassVar

import pytest

from tove_lvlm import config, errors
from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import resolve_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    lora_r: int = 128
    lora_bias: str = dataclasses.field(default="none", metadata={"choices": ("none", "all")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    learning_rate: float
    train: list[str] = dataclasses.field(default_factory=list)
    adapter: str | None = None
    lora: Lora = dataclasses.field(default_factory=Lora)
    extras: dict[str, int] = dataclasses.field(default_factory=dict)
    mixed: str | list[str] = "a"

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_load_file_and_options(write):
    path = write("learning_rate: 1e-3\ntrain: [a.json]\nlora: {lora_r: 8}\nextras: {k: 1}\nmixed: [x, y]\n")
    run = config.load(Run, path, ["lora.lora_r=16", "adapter=null", "learning_rate=2"])
    assert run == Run(
        learning_rate=2.0, train=["a.json"], lora=Lora(lora_r=16), extras={"k": 1}, mixed=["x", "y"], adapter=None
    )
    assert isinstance(run.learning_rate, float)


def test_an_option_may_be_for_an_entry_of_a_list(write):
    path = write("experts: [{name: a, k: 1}, {name: b}]\nnames: [x, y]\n")
    found = config.read_yaml(path, ["experts.0.name=none", "experts.1.more={u: [1, 2]}", "names.1=z"])
    assert found == {"experts": [{"name": "none", "k": 1}, {"name": "b", "more": {"u": [1, 2]}}], "names": ["x", "z"]}
    for option in ("experts.2.name=c", "experts.name=c"):
        with pytest.raises(ConfigError, match=f"--options `{option}` does not fit the file"):
            config.read_yaml(path, [option])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", r"unknown key `learning_rat`; did you mean `learning_rate`\?"),
        ("learning_rate: 1\nlora: {lora_rr: 1}", r"unknown key `lora.lora_rr`; did you mean `lora_r`"),
        ("learning_rate: fast", r"`learning_rate` is 'fast' \(str\); expected float"),
        ("learning_rate: true", r"`learning_rate` is True \(bool\); expected float"),
        ("learning_rate: 1\nlora: {lora_r: 1.5}", r"`lora.lora_r` is 1.5 \(float\); expected int"),
        ("learning_rate: 1\nlora: 3", r"`lora` expects a block .* got 3 \(int\)"),
        ("learning_rate: 1\ntrain: [a, 2]", r"`train\[1\]` is 2 \(int\); expected str"),
        ("learning_rate: 1\nlora: {lora_bias: some}", r"`lora.lora_bias` is 'some' \(str\); valid: none \| all"),
        ("train: []", "required key `learning_rate` is missing"),
        ("learning_rate: -1", "learning_rate must be positive, got -1.0"),
        ("[1, 2]", "expected `key: value` lines"),
        ("a: [", "not readable as YAML"),
        ("learning_rate: ${nowhere}", "not readable as YAML"),
        ("true", "not readable as YAML: Invalid loaded object type: bool"),
        ("'0'", "not readable as YAML: AssertionError"),
        ("learning_rate: !!timestamp x", "not readable as YAML"),
        ("learning_rate: !!float x", "not readable as YAML: could not convert string"),
        ("learning_rate: " + "1" * 5000, "not readable as YAML"),
    ],
)
def test_what_does_not_fit_is_one_line_naming_the_key(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(Run, write(text))
    assert "\n" not in str(caught.value)
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-this-name/x", "a\0b", "half-\ud83d"])
def test_paths_that_no_system_can_follow_are_one_line(tmp_path, path):
    for kind in ("file", "folder"):
        with pytest.raises(ConfigError, match=r"`data.train`: "):
            resolve_path("data.train", path, tmp_path, kind)


def test_an_environment_variables_value_is_in_no_message(write, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "_hidden", {})
    monkeypatch.setenv("API_KEY", "sk-12345")
    for text in ("learning_rate: ${oc.env:API_KEY}", "learning_rate: 1\ntrain: ['${ oc.env:API_KEY }/x', 2]"):
        with pytest.raises(ConfigError) as caught:
            config.load(Run, write(text))
        assert "sk-12345" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"`learning_rate` is '\$\{oc.env:API_KEY\}'"):
        config.load(Run, write("learning_rate: 1"), ["learning_rate=${oc.env:API_KEY}"])
    assert "sk-12345" not in str(ConfigError("folder `/data/sk-12345` does not exist"))


def test_what_a_file_that_is_no_configuration_holds_is_in_no_message(write):
    """As somebody else's private key, named by mistake."""
    secret = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0: [\n"
    with pytest.raises(ConfigError, match=r"run.yaml, line \d: not readable as YAML") as caught:
        config.load(Run, write(secret))
    assert "MIIEvQ" not in str(caught.value)


def test_a_message_is_one_line_whatever_was_given():
    assert str(ConfigError("ids are like `a\nb`, not `\u2028`")) == "ids are like `a b`, not ` `"


def test_a_message_is_at_most_a_few_lines():
    message = str(ConfigError(f"unknown key `{'k' * 200_000}`; valid: a"))
    assert len(message) < 1600
    assert "characters left out" in message
    assert (message[:16], message[-12:]) == ("unknown key `kkk", "k`; valid: a")


def test_missing_file_and_bad_option(write, tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml` does not exist"):
        config.load(Run, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="--options takes `a.b=c`, got `lora`"):
        config.load(Run, write("learning_rate: 1"), ["lora"])


def test_saved_yaml_loads_to_the_same(write, tmp_path):
    run = config.load(Run, write("learning_rate: 3.5e-05\nextras: {b: 2}"))
    config.save_yaml(run, tmp_path / "resolved.yaml")
    assert config.load(Run, tmp_path / "resolved.yaml") == run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renewed:
    """A schema that had other keys in an earlier version."""

    share: float = 0.0
    DEPRECATED: ClassVar = {
        "portion": config.Deprecated(renamed="share"),
        "kind": config.Deprecated(only="mlp"),
    }


def test_a_deprecated_key_is_read_with_one_warning(write):
    path = write("portion: 0.25\nkind: mlp")
    with pytest.warns(FutureWarning) as caught:
        assert config.load(Renewed, path) == config.load(Renewed, path) == Renewed(share=0.25)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: `portion` is deprecated: write `share: 0.25`",
        f"{path}: `kind` is deprecated: it was always mlp; leave it out",
    ]
    assert config.parse(Renewed, {"portion": 0.5}, warn=False) == Renewed(share=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("portion: 0.25\nshare: 0.5", "`portion` and `share` are the same key; keep the second"),
        ("kind: linear", r"`kind` is 'linear' \(str\); valid: mlp, or leave it out"),
    ],
)
def test_a_deprecated_key_that_contradicts_is_an_error(write, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(Renewed, write(text))


def test_exit_on_error_is_one_line_and_code_2(capsys):
    @config.exit_on_error
    def main():
        raise ConfigError("key `x` is wrong")

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: key `x` is wrong\n"
