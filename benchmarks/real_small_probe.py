"""What the networks of projects/real_small hold about its held-out questions: a linear probe of each, no training.

    python benchmarks/real_small_probe.py     # with the expert cache filled two minutes
    python benchmarks/real_small_probe.py --without saliency     # the slowest network, where no cache is filled
    python benchmarks/real_small_probe.py --tower dinov2_tower.yaml

Needs what `scripts/fetch_real_small.py` and `scripts/make_real_small_data.py` write into `--root`. Writes
`linear_probe.json` into `--results`: accuracy by the likeliest choice for the base, each expert, the base with each,
and the base with all, each with its 95 % interval.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real_small"
FAMILIES = {"naming": "What is this?", "clothing": "Which piece of clothing is this?"}
"""Family -> its one question: classes can be learned where the question is the same for every picture."""


def main() -> int:
    """Read the features, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT / "outputs" / "real_small", help="data and cache")
    parser.add_argument("--tower", default="tower.yaml", help="of projects/real_small")
    parser.add_argument("--without", nargs="+", default=(), help="experts to leave out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    os.chdir(ROOT)  # the tower's YAML names what was fetched from here
    from study.linear_probe import BASE, asked, features, learned, probe
    from study.real_small import CACHE_DTYPE, PROJECT

    from tove_lvlm.feature_cache import CacheFolder, FeatureCache
    from tove_lvlm.lvlm.build import tove_vision
    from tove_lvlm.lvlm.image_processor import as_trained
    from tove_lvlm.provenance import commit, hardware
    from tove_lvlm.storage import load_json, save_json
    from tove_lvlm.tower.build import build_tower

    root = arguments.root.resolve()
    data = root / "data"
    if not (data / "heldout" / "questions.jsonl").is_file():
        sys.exit(f"{data} does not exist; see projects/real_small/README.md for the two commands that make it")
    tower = build_tower(PROJECT / arguments.tower, detached=arguments.without)
    tower.feature_cache = FeatureCache(CacheFolder(root / "expert_cache"), tower, CACHE_DTYPE)
    processor = as_trained(tove_vision(tower).image_processor, "square", "white")
    results: dict[str, Any] = {}
    for family, text in FAMILIES.items():
        train = learned(data / "train" / "finetune.json", text)
        heldout = asked(data / "heldout" / "questions.jsonl", family)
        found = features(
            tower, data / "train" / "images", {one.image for one in train}, processor, direct_resize=True
        ) | features(tower, data / "heldout" / "images", {one.image for one in heldout}, processor, direct_resize=False)
        experts = tower.attached_names
        with_base = [(BASE, name) for name in experts] + ([(BASE, *experts)] if len(experts) > 1 else [])
        sets = [(BASE,), *((name,) for name in experts), *with_base]
        results[family] = {"train": len(train), "n": len(heldout)}
        for parts in sets:
            results[family]["+".join(parts)] = scored = probe(train, heldout, found, parts)
            low, high = scored["interval"]
            print(f"{family} {'+'.join(parts)}: {scored['accuracy']:.1%} ({low:.1%} to {high:.1%})", flush=True)
    file = arguments.results / "linear_probe.json"
    kept = load_json(file) if file.is_file() else {}
    save_json(file, {**kept, arguments.tower: {**results, "commit": commit(), "hardware": hardware()}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
