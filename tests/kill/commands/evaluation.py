"""`tove eval`, which goes on from its answers, and `tove fetch`, which goes on from what has arrived."""

import time
from pathlib import Path

from kill.commands.command import OUTPUT, Command
from kill.commands.models import model_world


def _eval(inputs: Path, place: Path, ranks: int) -> list[str]:
    asked = ["pope", "--model", inputs / "merged", "--data", inputs / "benchmarks", "--output", place / OUTPUT]
    return ["tove", "eval", *map(str, asked), "--max-new-tokens", "4", "--batch-size", "2", "--device", "cpu"]


def _fetch_world(folder: Path) -> None:
    """What the hub serves, and a tower's YAML that names it."""
    import yaml

    from helpers.tiny_towers import EXPERTS, make_tower_yaml

    path = make_tower_yaml(folder / "served", ["depth"])
    tower = yaml.safe_load(path.read_text())
    tower["clip"]["pretrained"] = "owner/clip"
    tower["experts"][0] |= {**EXPERTS["depth"], "pretrained": "owner/depth"}
    (folder / "tower.yaml").write_text(yaml.safe_dump(tower))


def _serve(inputs: Path) -> None:
    """A hub that is slow with one file, so that a kill may fall into it."""
    from helpers.fake_hub import FakeHub

    parts = {name: inputs / "served" / name for name in ("clip", "depth")}
    files = {f"owner/{part}": {p.name: p.read_bytes() for p in path.iterdir()} for part, path in parts.items()}
    with FakeHub(files) as hub:
        hub.paced["model.safetensors"] = 0.01
        (inputs.parent / "url").write_text(hub.url)
        while True:
            time.sleep(60)


def _fetch(inputs: Path, place: Path, ranks: int) -> list[str]:
    return ["tove", "fetch", str(inputs / "tower.yaml"), "--to", str(place / OUTPUT)]


EVALUATION = [
    Command(
        name="eval",
        make=model_world,
        argv=_eval,
        ranks=(1, 2),
        volatile=("num_resumed",),
        growing=(f"{OUTPUT}/answers.jsonl", f"{OUTPUT}/shards/*"),
        kept=(f"{OUTPUT}/answers.jsonl", f"{OUTPUT}/shards/*.jsonl"),
    ),
    Command(
        name="fetch",
        make=_fetch_world,
        argv=_fetch,
        kept=(f"{OUTPUT}/owner/*/*.part", f"{OUTPUT}/owner/*/*.safetensors"),
        serve=_serve,
        environment={"HF_ENDPOINT": "{url}", "HF_HUB_OFFLINE": "0"},
        is_cold=True,
    ),
]
