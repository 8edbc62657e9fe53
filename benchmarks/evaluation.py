"""Questions per second of `tove eval`'s path against a plain loop over transformers' processor and `generate`.

    python benchmarks/evaluation.py --model outputs/miniature/tove           # of `make demo`; on this CPU
    python benchmarks/evaluation.py --model CKPT --device cuda --dtype bfloat16 --pictures 32 --batch-size 16

Pictures of the miniature world with 1, 4 and 18 questions each (POPE asks 18), answered greedily with as many new
tokens as POPE's task allows. Ways:

    plain, one       the processor's chat template, `generate`, a question at a time
    plain, batched   the same in batches, padded on the left, in the order of the file
    tove eval        `tove_lvlm.eval.generate.answers`
    nothing kept     the same with `keep_bytes=0`: the tower runs for each picture of a batch

Every round runs all ways for all numbers of questions, the next one in the opposite order. Pictures are read and
tokens made within the time; the model is loaded before. All ways must give the same answers. The result, with every
round, goes to benchmarks/results/evaluation.json with commit and hardware, one entry for each setting.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from speed.made_by import made_by

from tove_lvlm.checkpoints import LoadedCheckpoint, load_model
from tove_lvlm.eval import generate
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.pope import Pope
from tove_lvlm.inference import responder_of
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.shared import KEEP_BYTES
from tove_lvlm.storage import load_json, save_json
from tove_lvlm.world.dataset import scene_seeds
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import COLORS, SHAPES, sample

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "evaluation.json"
NUM_QUESTIONS = (1, 4, 18)


def main() -> int:
    """Measure and write."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    loaded = load_model(arguments.model)
    loaded.model.to(device=arguments.device, dtype=getattr(torch, arguments.dtype)).eval()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), arguments.pictures)
        entry = made_by(arguments, "dtype", "batch_size", "pictures", "rounds")
        entry |= {"model": Path(arguments.model).name, "max_new_tokens": Pope.max_new_tokens}
        entry |= {"transformers": transformers.__version__} | measure(loaded, Path(folder), arguments)
    key = f"{Path(arguments.model).name} {entry['hardware']} {arguments.dtype} batch {arguments.batch_size}"
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(arguments.output, earlier | {key: entry})
    print(json.dumps({name: entry[name] for name in ("questions_per_s", "questions_per_cpu_s")}, indent=2))
    print(f"written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a trained LLaVA model, as `tove eval` takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; torch's own choice when left out")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def write_pictures(folder: Path, number: int) -> None:
    """Scenes of the miniature world, as PNGs."""
    scenes = sample(scene_seeds("heldout", number, 0))
    for index, rgb_HW3 in enumerate(render(scenes).rgb):
        Image.fromarray(rgb_HW3).save(folder / f"{index}.png")


def make_items(num_pictures: int, num_questions: int) -> list[Item]:
    """So many questions about each picture, as POPE asks, in the words of the world."""
    things = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    return [
        Item(
            question_id=f"{picture}/{number}",
            image=f"{picture}.png",
            text=f"Is there a {things[(5 * picture + number) % len(things)]}?",
        )
        for picture in range(num_pictures)
        for number in range(num_questions)
    ]


@torch.inference_mode()
def plain_loop(
    loaded: LoadedCheckpoint, items: Sequence[Item], images: Path, decoding: DecodingConfig, batch_size: int
) -> dict[str, str]:
    """Answers by question id of what a user of transformers writes."""
    model, processor = loaded.llava, loaded.processor
    processor.tokenizer.padding_side = "left"
    said: dict[str, str] = {}
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        talks = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": i.text}]}] for i in batch]
        texts = processor.apply_chat_template(talks, add_generation_prompt=True)
        pictures = [Image.open(images / item.image).convert("RGB") for item in batch]
        inputs = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        inputs = inputs.to(model.device, model.dtype)
        out_BT = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=processor.tokenizer.pad_token_id,
            eos_token_id=processor.tokenizer.eos_token_id,
        )
        answers = processor.batch_decode(out_BT[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said |= {item.question_id: text.strip() for item, text in zip(batch, answers, strict=True)}
    return said


def ways(
    loaded: LoadedCheckpoint, images: Path, batch_size: int
) -> dict[str, Callable[[Sequence[Item]], dict[str, str]]]:
    """Each way of asking."""
    decoding = DecodingConfig(max_new_tokens=Pope.max_new_tokens)

    def ours(items: Sequence[Item], keep_bytes: int) -> dict[str, str]:
        problems = Problems()
        found = generate.answers(loaded, items, images, decoding, batch_size, problems, keep_bytes=keep_bytes)
        said = {one.item.question_id: one.text for one in found}
        assert not problems
        return said

    return {
        "plain, one": lambda items: plain_loop(loaded, items, images, decoding, 1),
        "plain, batched": lambda items: plain_loop(loaded, items, images, decoding, batch_size),
        "tove eval": lambda items: ours(items, KEEP_BYTES),
        "nothing kept": lambda items: ours(items, 0),
    }


def measure(loaded: LoadedCheckpoint, images: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Questions per second of wall and of CPU time: medians, and every round."""
    asking = ways(loaded, images, arguments.batch_size)
    settings = [(number, name) for number in NUM_QUESTIONS for name in asking]
    rounds: list[dict[str, Any]] = []
    for turn in range(arguments.rounds + 1):
        row: dict[str, Any] = {"load": os.getloadavg()[0], "wall_s": {}, "cpu_s": {}}
        answers: dict[int, dict[str, dict[str, str]]] = {}
        for number, name in reversed(settings) if turn % 2 else settings:
            items = make_items(arguments.pictures, number)
            wall, cpu = time.perf_counter(), time.process_time()
            answers.setdefault(number, {})[name] = asking[name](items)
            row["cpu_s"][f"{number} x {name}"] = round(time.process_time() - cpu, 4)
            row["wall_s"][f"{number} x {name}"] = round(time.perf_counter() - wall, 4)
        for of_number in answers.values():
            different = {name for name, said in of_number.items() if said != of_number["plain, one"]}
            if different and arguments.dtype == "float32":
                raise SystemExit(f"other answers than one at a time: {', '.join(sorted(different))}")
        if turn:
            rounds.append(row)

    def rates(clock: str) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {f"{number} per picture": {} for number in NUM_QUESTIONS}
        for number, name in settings:
            seconds = statistics.median(one[clock][f"{number} x {name}"] for one in rounds)
            found[f"{number} per picture"][name] = round(number * arguments.pictures / seconds, 2)
        return found

    return {
        "picture_bytes": responder_of(loaded.model, loaded.processor).picture_bytes,
        "questions_per_s": rates("wall_s"),
        "questions_per_cpu_s": rates("cpu_s"),
        "each_round": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
