"""`python -m tove_lvlm.harnesses.vlmevalkit`: VLMEvalKit's own `run.py` with our model among its own."""

import argparse
import runpy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..._hook import AfterImport
from ...config import UserError
from .register import register

_NAME = "ToVE"
_MODELS = "vlmeval.config"
"""The module with VLMEvalKit's list of models."""


def main(argv: Sequence[str]) -> None:
    """Run VLMEvalKit's `run.py` with our model.

    Args:
        argv: Our options, `--`, and run.py's arguments.

    Raises:
        UserError: There is no VLMEvalKit in `--root`, or no model in `--model`.
    """
    ours, theirs = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = _arguments().parse_args(list(ours))
    script = Path(args.root).resolve() / "run.py"
    if not script.is_file() or not (script.parent / "vlmeval").is_dir():
        raise UserError(f"`--root {args.root}` is no checkout of VLMEvalKit: expected run.py and vlmeval/ in it")
    if not Path(args.model).is_dir():
        raise UserError(f"`--model {args.model}`: there is no such folder")
    named = [] if {"--model", "--config"} & set(theirs) else ["--model", args.name]
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *theirs, *named]
    # run.py gives each process its GPUs before it imports torch, so the model may not be registered earlier.
    options = {} if args.max_new_tokens is None else {"max_new_tokens": args.max_new_tokens}
    add_model = partial(register, args.name, Path(args.model).resolve(), **options)
    AfterImport({_MODELS: add_model}, within=(_MODELS,)).install()
    runpy.run_path(str(script), run_name="__main__")


def _arguments() -> argparse.ArgumentParser:
    usage = "%(prog)s --root DIR --model FOLDER [--name NAME] [--max-new-tokens N] -- ARGS..."
    parser = argparse.ArgumentParser(prog="python -m tove_lvlm.harnesses.vlmevalkit", usage=usage)
    parser.add_argument("--root", required=True, help="a checkout of VLMEvalKit")
    parser.add_argument("--model", required=True, help="a merged folder or an adapter")
    parser.add_argument("--name", default=_NAME, help="what VLMEvalKit calls it (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer (default: 2048)")
    return parser


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
