"""`tove demo`: the main job in small. Renders the miniature world's data, trains CLIP-only and ToVE with the real
scripts under the real launcher on the same data, steps and seeds, and compares them on held-out questions.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .config import UserError
from .eval.families import FamilyQuestion, chance, read_questions, score
from .project_files import project_files
from .provenance import commit, cpu_has_fast_bf16
from .registry import require
from .storage import atomic_file
from .viz.examples import example_sheet
from .world.language import FAMILIES

ROOT = project_files()
PROJECT = ROOT / "projects" / "miniature"
VARIANTS = ("clip", "tove")
STAGES = {"pretrain": "pretrain_projector.py", "finetune": "finetune_vicuna.py"}
NUM_SCENES = 3000
NUM_HELDOUT = 300
SHOWN_FAMILIES = ("nearfar", "rel_nearer", "shape")


@dataclass
class Job:
    """One variant's chain of training runs: stage 1, then stage 2 from its result."""

    variant: str
    folder: Path
    process: subprocess.Popen | None = None
    stage: str | None = None


def run(
    output: Path,
    seed: int = 0,
    steps: int | None = None,
    scenes: tuple[int, int] = (NUM_SCENES, NUM_HELDOUT),
    console: Console | None = None,
) -> dict:
    """Do it all and write `results.json`.

    Args:
        output: Folder for data, models and results.
        seed: Seed of initialisation and data order of both variants.
        steps: Optimizer steps per stage; none takes the YAMLs'.
        scenes: How many for training and held out.
        console: Where progress and the table go; none takes the terminal.

    Returns:
        What `results.json` holds.

    Raises:
        UserError: A training run failed (its log is named).
    """
    console = console or Console()
    started = time.time()
    output = output.resolve()
    render(output / "data", scenes, console)
    train(output, seed, steps, console)
    questions = read_questions(output / "data" / "heldout" / "questions.jsonl")
    variants: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    gate_mass: dict[str, Any] = {}
    for variant in VARIANTS:
        console.print(f"answering {len(questions)} held-out questions with {variant} ...")
        answers[variant], mass = answer_all(output / variant, questions, output / "data" / "heldout" / "images")
        variants[variant] = score(questions, answers[variant])
        gate_mass |= mass
    results = {
        "variants": variants,
        "chance": chance(questions),
        "gate_mass": gate_mass,
        "seconds": round(time.time() - started, 1),
        "seed": seed,
        "commit": commit(),
    }
    with atomic_file(output / "results.json") as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results, questions, answers, output, console)
    return results


def render(folder: Path, scenes: tuple[int, int], console: Console) -> None:
    """Write the training and the held-out world."""
    from .world.dataset import write_dataset

    for split, num_scenes in zip(("train", "heldout"), scenes, strict=True):
        console.print(f"rendering {num_scenes} scenes ({split}) ...")
        write_dataset(folder / split, split=split, num_scenes=num_scenes, seed=0, all_tasks=True)


def train(output: Path, seed: int, steps: int | None, console: Console) -> None:
    """Run both variants' two stages, side by side: each takes half of the cores."""
    if importlib.util.find_spec("deepspeed") is None:  # imported by the scripts only: it is slow and prints
        require("deepspeed", extra="train")
    if not cpu_has_fast_bf16():
        console.print("training in float32: this processor has no fast bfloat16")
    jobs = [Job(variant=variant, folder=output / variant) for variant in VARIANTS]
    for job in jobs:
        if log_of(job).parent.is_dir():  # an earlier demo's; anything else that lies there is left alone
            for folder in (job.folder, pretrain_folder(job)):
                shutil.rmtree(folder, ignore_errors=True)
    columns = (TextColumn("{task.description:<22}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[loss]}"), console=console) as progress:
        bars = {job.variant: progress.add_task(job.variant, total=1, loss="starting") for job in jobs}
        try:
            while any(job.stage != "done" for job in jobs):
                for job in jobs:
                    start_next_stage(job, output / "data" / "train", seed, steps)
                    progress.update(bars[job.variant], **progress_of(job))
                time.sleep(0.5)
        finally:
            for job in jobs:
                if job.process is not None and job.process.poll() is None:
                    job.process.terminate()


def start_next_stage(job: Job, data: Path, seed: int, steps: int | None, further: Sequence[str] = ()) -> None:
    """Start the job's next stage when the one before has ended.

    Args:
        job: Changed in place.
        data: Folder of the training world.
        seed: As for `run`.
        steps: As for `run`.
        further: More `a.b=c` options for the script.

    Raises:
        UserError: The stage failed; the tail of its log was printed.
    """
    if job.stage == "done" or (job.process is not None and job.process.poll() is None):
        return
    if job.process is not None and job.process.returncode != 0:
        tail = "\n".join(log_of(job).read_text(errors="replace").splitlines()[-15:])
        print(tail, file=sys.stderr)
        raise UserError(f"{job.stage} of {job.variant} failed; the end of its log is above, all of it in {log_of(job)}")
    job.stage = {None: "pretrain", "pretrain": "finetune", "finetune": "done"}[job.stage]
    if job.stage != "done":
        job.process = launch(job, data, seed, steps, further)


def launch(job: Job, data: Path, seed: int, steps: int | None, further: Sequence[str]) -> subprocess.Popen:
    """Start `deepspeed scripts/...` for the job's stage, as a user would."""
    stage = job.stage or next(iter(STAGES))
    options = [
        f"model.vision_tower={job.variant}",
        f"data.train=[{data / (stage + '.json')}]",
        f"data.image_folder={data / 'images'}",
        f"train.output_dir={run_folder(job)}",
        f"train.seed={seed}",
    ]
    if stage == "finetune":
        options.append(f"model.pretrain_mm_mlp_adapter={pretrain_folder(job)}")
    if job.variant == "tove":  # stage 2 sees the images of stage 1 again; float32 keeps the bits of what was computed
        cache = job.folder.with_name("expert_cache")
        options += [f"train.expert_cache={cache}", "train.expert_cache_dtype=float32"]
    if steps is not None:
        options.append(f"train.max_steps={steps}")
    if not cpu_has_fast_bf16():
        options.append("train.bf16=false")
    # A port of its own for each run, so that the two launchers do not meet.
    port = 29600 + os.getpid() % 1000 * 2 + VARIANTS.index(job.variant)
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "1", "--master_port", str(port)]
    command += [str(ROOT / "scripts" / STAGES[stage]), "--cfg-path", str(PROJECT / f"{stage}.yaml")]
    threads = str(max(1, (os.cpu_count() or 1) // len(VARIANTS)))
    # The miniature is too small for an accelerator to help, and on one kind of CPU a run is always the same bits.
    environment = os.environ | {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    log_of(job).parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(job), "wb") as log:
        return subprocess.Popen(
            [*command, "--options", *options, *further], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def run_folder(job: Job) -> Path:
    """Where the stage writes: the finished model takes the variant's own folder."""
    return pretrain_folder(job) if job.stage == "pretrain" else job.folder


def pretrain_folder(job: Job) -> Path:
    """Stage 1's folder, beside the variant's: a run writes into no folder that holds what it reads."""
    return job.folder.with_name(f"{job.folder.name}-pretrain")


def log_of(job: Job) -> Path:
    """Everything that the stage's launcher and ranks print."""
    return job.folder / "logs" / f"{job.stage}.log"


def progress_of(job: Job) -> dict:
    """What the progress bar shows: the stage's steps so far and its last loss."""
    if job.stage == "done":
        return {"description": f"{job.variant}", "completed": 1, "total": 1, "loss": "done"}
    shown = {"description": f"{job.variant}: {job.stage}", "loss": "starting"}
    metrics = run_folder(job) / "metrics.jsonl"
    if metrics.is_file():
        lines = [line for line in metrics.read_text(errors="replace").splitlines() if line.endswith("}")]
        if lines:
            last = json.loads(lines[-1])
            shown |= {"completed": last["step"], "total": last["max_steps"], "loss": f"loss {last.get('loss', 0):.3f}"}
    return shown


def answer_all(model: Path, questions: list[FamilyQuestion], images: Path) -> tuple[list[str], dict[str, float]]:
    """Greedy answers of a trained model, and the mean gate mass of each expert (none for CLIP-only)."""
    from .eval.gates import mean_gate_mass
    from .inference.chat import Chat

    talk = Chat.load(model, device="cpu")
    answers = talk.ask_many(
        [images / q.image for q in questions], [q.text for q in questions], max_new_tokens=8, batch_size=128
    )
    pictures = [images / name for name in dict.fromkeys(q.image for q in questions)]
    mass = mean_gate_mass(talk.model, talk.processor.image_processor, pictures, talk.image_aspect_ratio)
    return answers, {name: round(value, 4) for name, value in mass.items()}


def show(results: dict, questions: list[FamilyQuestion], answers: dict, output: Path, console: Console) -> None:
    """The table, three examples, the gate's mass and where everything lies."""
    table = Table("family", "n", "chance", "CLIP-only", "ToVE", "difference", title="held-out accuracy, %")
    clip, tove = (results["variants"][variant] for variant in VARIANTS)
    names = [name for name in FAMILIES if name in clip["families"]]
    rows = [(name, *(part["families"][name] for part in (results["chance"], clip, tove))) for name in names]
    rows.append(("overall", *(part["overall"] for part in (results["chance"], clip, tove))))
    for name, *cells in rows:
        guess, base, ours = (100 * cell["accuracy"] for cell in cells)
        row = (name, str(cells[0]["n"]), f"{guess:.1f}", f"{base:.1f}", f"{ours:.1f}", f"{ours - base:+.1f}")
        table.add_row(*row, end_section=name == rows[-2][0])
    console.print(table)
    examples = choose_examples(questions, answers, output / "data" / "heldout" / "images")
    for path, lines in examples:
        console.print(f"{path.name}: " + "  ".join(lines))
    example_sheet(examples).save(output / "examples.png")
    mass = "  ".join(f"{name} {value:.3f}" for name, value in results["gate_mass"].items())
    console.print(f"gate mass: {mass}")
    console.print(f"{results['seconds']:.0f} s, seed {results['seed']}, commit {results['commit']}")
    console.print(f"models: {output / 'clip'} and {output / 'tove'}")
    console.print(f"results: {output / 'results.json'}; the examples as a picture: {output / 'examples.png'}")
    console.print(f"now: tove view --model {output / 'tove'} --compare {output / 'clip'}")
    console.print(f"or:  tove chat --model {output / 'tove'} {output / 'data/heldout/images' / questions[0].image}")


def choose_examples(questions: list[FamilyQuestion], answers: dict, images: Path) -> list[tuple[Path, list[str]]]:
    """One question of each shown family, about three images: the first there is, whatever was answered."""
    examples, seen = [], set()
    for family in SHOWN_FAMILIES:
        for index, question in enumerate(questions):
            if question.family == family and question.image not in seen:
                seen.add(question.image)
                predictions = [f"CLIP-only: {answers['clip'][index]}", f"ToVE: {answers['tove'][index]}"]
                examples.append((images / question.image, [question.text, f"right: {question.answer}", *predictions]))
                break
    return examples
