"""Folders that `tove report` reads: runs, evaluations, usage and gates, all written by hand."""

import hashlib
from pathlib import Path

import yaml
from PIL import Image

from helpers.eval_files import write_json, write_lines
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.run import write_score

EXPERTS = ("depth", "edges")


def log_line(step: int, **more) -> dict:
    """A line of metrics.jsonl as stage 2 logs it."""
    mass = {"gate_mass/depth": 0.25 + step / 100, "gate_mass/edges": 0.75 - step / 100}
    rates = {"learning_rate": 1e-3, "learning_rate/projector": 1e-3, "learning_rate/language_model": 2e-4}
    speed = {"images_per_s": 10.0 + step, "tokens_per_s": 1000.0, "peak_memory_gb": 2.5}
    start = {"step": step, "max_steps": 30, "epoch": 0.1, "loss": 3.0 - step / 20, "grad_norm": 1.0}
    return start | rates | {"balance_loss": 0.01, "gate_entropy": 0.6} | mass | speed | more


def clip_line(step: int, **more) -> dict:
    """The same of a run with a plain CLIP, which has no gate."""
    line = log_line(step, **more)
    return {key: value for key, value in line.items() if not key.startswith(("gate", "balance"))}


def make_run(folder: Path, lines=None, config: dict | None = None, made_by: dict | None = None) -> Path:
    """A run's folder: three lines of a log, a YAML, what made it."""
    folder.mkdir(parents=True)
    write_lines(folder / "metrics.jsonl", [log_line(step) for step in (10, 20, 30)] if lines is None else lines)
    config = config or {"model": {"vision_tower": "tove"}, "data": {"train": ["a.json"]}, "train": {"seed": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if made_by is not None:
        write_json(folder / "provenance.json", made_by)
    return folder


def make_labels(root: Path, questions: int = 6) -> Path:
    """POPE's label file, with every second answer yes, and its pictures, where `--data root` finds them."""
    folder = root / "output" / "coco"
    folder.mkdir(parents=True)
    (root / "val2014").mkdir()
    rows = []
    for number in range(1, questions + 1):
        Image.new("RGB", (400, 200) if number == 1 else (40, 20), (40 * number, 0, 0)).save(
            root / f"val2014/{number}.jpg"
        )
        text, label = f"Is there a thing {number}?", ("yes", "no")[number % 2]
        rows.append({"question_id": number, "image": f"{number}.jpg", "text": text, "label": label})
    return write_lines(folder / "coco_pope_random.json", rows)


def make_evaluation(folder: Path, labels: Path, texts: dict[int, str], model: str | None = None) -> Path:
    """A folder of `tove eval pope` with these answers; `model` is the name of who was asked."""
    folder.mkdir(parents=True)
    rows = [{"question_id": key, "prompt": f"Is there a thing {key}?", "text": text} for key, text in texts.items()]
    answers = write_lines(folder / "answers.jsonl", rows)
    by_id = {f"random/{key}": text for key, text in texts.items()}
    about = {"file": answers.name, "sha256": hashlib.sha256(answers.read_bytes()).hexdigest(), "n": len(rows)}
    made_by = None if model is None else {"model": {"id": model}, "dtype": "float32"}
    write_score(read_benchmark("pope", [labels]), by_id, about, strict=False, output=folder, made_by=made_by)
    return folder


def make_usage(folder: Path) -> Path:
    """A folder of `tove usage`."""
    row = {"first_share": 0.5, "relative_norm": 0.25, "loss_change": 0.125, "score_change": -0.0625, "ms": 2.5}
    folder.mkdir(parents=True)
    experts = {
        name: {"gate_mass": mass, "detached": False, **row} for name, mass in zip(EXPERTS, (0.25, 0.75), strict=True)
    }
    write_json(folder / "usage.json", {"experts": experts})
    return folder


def make_gates(folder: Path, images: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    """A folder of `tove gates`; its panels are plain colours."""
    folder.mkdir(parents=True)
    for number, name in enumerate(images):
        Image.new("RGB", (30, 20), (0, 0, 100 + number)).save(folder / f"{number:03d}-{Path(name).stem}.png")
    write_json(folder / "gates.json", {"checkpoint": "ckpt", "images": [{"image": name} for name in images]})
    return folder
