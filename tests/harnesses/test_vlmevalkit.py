"""VLMEvalKit's surface, in a small package of the same shape: models by name, inference, prompts, its `run.py`."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_lvlm import WORDS
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.harnesses import vlmevalkit
from tove_lvlm.harnesses.vlmevalkit import ToVEVLM
from tove_lvlm.harnesses.vlmevalkit.__main__ import main
from tove_lvlm.inference.chat import Chat

FILES = {
    "vlmeval/__init__.py": "",
    "vlmeval/vlm.py": "class Other: ...",
    # As in VLMEvalKit: a plain dict that run.py imports by name.
    "vlmeval/config.py": """
        import os
        from functools import partial
        import vlmeval.vlm as vlm
        seen = os.environ.get("GPUS")
        supported_VLM = {"other": partial(vlm.Other, model_path="x")}
        """,
    "vlmeval/dataset.py": """
        import json
        TYPES = {"POPE": "Y/N", "MMBench": "MCQ"}
        def DATASET_TYPE(dataset):
            return TYPES[dataset]
        class Dataset:
            def __init__(self, name, rows):
                self.dataset_name, self.data = name, rows
            def dump_image(self, line):
                return [line["image_path"]]
            def build_prompt(self, line):
                image = dict(type="image", value=line["image_path"])
                return [image, dict(type="text", value=line["question"])]
        """,
    "vlmeval/inference.py": """
        from vlmeval.config import supported_VLM
        def infer(model, dataset):
            model = supported_VLM[model]() if isinstance(model, str) else model
            assert not getattr(model, "is_api", False)
            model.set_dump_image(dataset.dump_image)
            answers = {}
            for line in dataset.data:
                if hasattr(model, "use_custom_prompt") and model.use_custom_prompt(dataset.dataset_name):
                    message = model.build_prompt(line, dataset=dataset.dataset_name)
                else:
                    message = dataset.build_prompt(line)
                answers[line["index"]] = model.generate(message=message, dataset=dataset.dataset_name)
            return answers
        """,
    "run.py": """
        import argparse, json, os
        os.environ["GPUS"] = "set before anything is imported"
        from vlmeval.config import supported_VLM, seen
        from vlmeval.dataset import Dataset
        from vlmeval.inference import infer
        import vlmeval.vlm
        parser = argparse.ArgumentParser()
        parser.add_argument("--data"); parser.add_argument("--model", nargs="+"); parser.add_argument("--config")
        args = parser.parse_args()
        if __name__ == "__main__":
            rows = json.load(open(args.data))
            if args.config:
                settings = dict(json.load(open(args.config)))
                model = getattr(vlmeval.vlm, settings.pop("class"))(**settings)
            else:
                model = args.model[0]
            print(json.dumps([sorted(supported_VLM), seen, infer(model, Dataset("POPE", rows))]))
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kit")


@pytest.fixture(scope="module")
def checkpoint(checkpoints) -> Path:
    return checkpoints["merged"]


@pytest.fixture(scope="module")
def kit(folder) -> Path:
    for name, text in FILES.items():
        path = folder / "VLMEvalKit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder / "VLMEvalKit"


@pytest.fixture(scope="module")
def rows(folder) -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for index in range(4):
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)).save(path)
        question = f"is the {WORDS[2 + index]} box left ?"
        found.append({"index": index, "image_path": str(path), "question": question})
    return found


@pytest.fixture(scope="module")
def expected(checkpoint, rows) -> list[str]:
    """What our own chat says."""
    asked = [row["question"] for row in rows]
    answers = Chat.load(checkpoint, "cpu").ask_many([row["image_path"] for row in rows], asked, max_new_tokens=8)
    assert len(set(answers)) > 1
    return answers


@pytest.fixture
def vlmeval(kit, monkeypatch):
    """The package, importable in this process and gone afterwards."""
    monkeypatch.syspath_prepend(str(kit))
    before = set(sys.modules)
    yield kit
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "vlmeval":
            del sys.modules[name]


def test_a_registered_model_answers_as_our_chat(vlmeval, checkpoint, rows, expected):
    vlmevalkit.register("ToVE-tiny", checkpoint, max_new_tokens=8, device="cpu")
    import vlmeval.config
    import vlmeval.vlm
    from vlmeval.dataset import Dataset
    from vlmeval.inference import infer

    assert set(vlmeval.config.supported_VLM) == {"other", "ToVE-tiny"}
    assert vlmeval.vlm.ToVEVLM is ToVEVLM
    assert list(infer("ToVE-tiny", Dataset("POPE", rows)).values()) == expected
    vlmevalkit.register("ToVE-tiny", checkpoint)  # again, with other options
    with pytest.raises(ConfigError, match="has a model `other` of its own"):
        vlmevalkit.register("other", checkpoint)


def test_multiple_choice_is_asked_as_llava_asks(vlmeval, checkpoint, rows):
    from vlmeval.dataset import Dataset
    from vlmeval.inference import infer

    model = ToVEVLM(str(checkpoint), max_new_tokens=4, device="cpu")
    assert [model.use_custom_prompt(name) for name in ("POPE", "MMBench")] == [False, True]
    line = rows[0] | {"hint": float("nan"), "A": "red", "B": "blue", "C": float("nan")}
    with pytest.raises(UserError, match="`set_dump_image` comes before"):
        model.build_prompt(line, "MMBench")
    (answer,) = infer(model, Dataset("MMBench", [line])).values()
    asked = "is the red box left ?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    image = {"type": "image", "value": rows[0]["image_path"]}
    assert model.build_prompt(line, "MMBench") == [image, {"type": "text", "value": asked}]
    assert answer == model.chat_model.ask(rows[0]["image_path"], asked, max_new_tokens=4)
    told = model.build_prompt(line | {"hint": "look"}, "MMBench")[1]["value"]
    assert told == "look\n" + asked
    chinese = model.build_prompt(line | {"question": "\u7ea2\u8272\uff1f"}, "MMBench")[1]["value"]
    assert chinese.endswith("B. blue\n\u8bf7\u76f4\u63a5\u56de\u7b54\u9009\u9879\u5b57\u6bcd\u3002")
    model.set_dump_image(lambda line: line["image_path"])
    assert model.build_prompt(line, "MMBench")[0] == image
    # Options that fill the context once gave an empty answer, which VLMEvalKit scores as a wrong one.
    with pytest.raises(UserError, match="leaves no place for an answer in the model's context"):
        infer(model, Dataset("MMBench", [line | {letter: "red " * 100 for letter in "ABCDEF"}]))


def test_every_form_of_a_message(checkpoint, rows, expected):
    model = ToVEVLM(str(checkpoint), max_new_tokens=8, device="cpu")
    path, question = rows[1]["image_path"], rows[1]["question"]
    image, text = {"type": "image", "value": path}, {"type": "text", "value": question}
    assert [model.generate([image, text]), model.generate([path, question])] == [expected[1]] * 2
    alone = model.chat_model.ask(None, question, max_new_tokens=8)
    assert [model.generate(question), model.generate(text), model.generate([text])] == [alone] * 3
    assert model.message_to_promptimg([text, image, text]) == (f"{question}\n{question}", path)


def test_what_it_does_not_do_is_said(checkpoint, rows):
    model = ToVEVLM(str(checkpoint), device="cpu")
    image = {"type": "image", "value": rows[0]["image_path"]}
    with pytest.raises(UserError, match="data set `BLINK` shows 2 images at once"):
        model.generate([image, image], "BLINK")
    with pytest.raises(UserError, match="has video; ToVEVLM sees one image and text"):
        model.generate([{"type": "video", "value": "a.mp4"}])
    with pytest.raises(UserError, match="data set `MMDU` has several turns"):
        model.chat([], "MMDU")
    with pytest.raises(ConfigError, match="no argument `max_tokens`; did you mean `max_new_tokens`"):
        ToVEVLM(str(checkpoint), max_tokens=3)
    with pytest.raises(UserError, match="nowhere` does not exist"):
        ToVEVLM("nowhere")


@pytest.mark.parametrize("route", ["name", "config"])
def test_its_own_run_script_finds_the_model(vlmeval, checkpoint, rows, folder, route, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("GPUS", raising=False)
    (folder / "rows.json").write_text(json.dumps(rows[:1]))
    theirs = ["--data", folder / "rows.json"]
    if route == "config":
        settings = {"class": "ToVEVLM", "model_path": str(checkpoint), "max_new_tokens": 8}
        (folder / "config.json").write_text(json.dumps(settings))
        theirs += ["--config", folder / "config.json"]
    ours = ["--root", vlmeval, "--model", checkpoint, "--name", "Mine", "--max-new-tokens", 6]
    main([str(argument) for argument in (*ours, "--", *theirs)])
    monkeypatch.delenv("GPUS")
    names, seen, answers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert names == ["Mine", "other"]
    assert seen == "set before anything is imported", "run.py chooses its GPUs before torch comes"
    chat = Chat.load(checkpoint)
    assert answers["0"] == chat.ask(rows[0]["image_path"], rows[0]["question"], 8 if route == "config" else 6)


def test_the_runner_says_what_is_missing(kit, tmp_path):
    command = [sys.executable, "-m", "tove_lvlm.harnesses.vlmevalkit", "--root", tmp_path, "--model", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is no checkout of VLMEvalKit: expected run.py and vlmeval/" in done.stderr
    with pytest.raises(UserError, match="nowhere`: there is no such folder"):
        main(["--root", str(kit), "--model", "nowhere"])


def test_the_old_name_works_and_warns_once(tmp_path):
    command = [sys.executable, "-m", "tove_lvlm.hosts.vlmevalkit", "--root", tmp_path, "--model", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("FutureWarning: `tove_lvlm.hosts.vlmevalkit` is deprecated") == 1
    assert "is no checkout of VLMEvalKit" in done.stderr
    code = "from tove_lvlm.hosts import vlmevalkit as old; from tove_lvlm.harnesses import vlmevalkit as new; "
    code += "import sys; print(old.register is new.register, old.ToVEVLM is new.ToVEVLM, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_without_vlmevalkit_it_says_where_to_get_it(checkpoint):
    with pytest.raises(UserError, match="clone github.com/open-compass/VLMEvalKit"):
        vlmevalkit.register("x", checkpoint)
