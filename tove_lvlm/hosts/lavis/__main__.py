"""`python -m tove_lvlm.hosts.lavis train | evaluate | miniature`: LAVIS's own programs with the plugin in place."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ...config import exit_on_error
from .run import run


@exit_on_error
def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate or write the miniature's files.

    Args:
        argv: The command and its arguments; none takes the process's. A mistake ends it with one line and exit code 2.
    """
    arguments = _parser().parse_args(argv)
    if arguments.command == "miniature":
        from .miniature import write_miniature

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        write_miniature(
            arguments.output, scenes=arguments.scenes, heldout=arguments.heldout, opt_steps=arguments.opt_steps
        )
        return
    run(arguments.command, arguments.cfg_path, arguments.options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tove_lvlm.hosts.lavis", description="LAVIS with the ToVE tower: `vit_model: tove:PATH`."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (("train", "LAVIS's train.py"), ("evaluate", "LAVIS's evaluate.py")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--cfg-path", required=True, help="A LAVIS YAML.")
        command.add_argument("--options", nargs="+", default=[], help="Overrides: a.b=c d.e=f ...")
    command = commands.add_parser("miniature", help="write data, a small BERT and a small OPT for projects/lavis")
    command.add_argument("--output", type=Path, default=Path("outputs/lavis"))
    command.add_argument("--scenes", type=int, default=2000, help="Training scenes.")
    command.add_argument("--heldout", type=int, default=64, help="Held-out scenes.")
    command.add_argument("--opt-steps", type=int, default=300, help="Steps of training for the small OPT; 0 for none.")
    return parser


if __name__ == "__main__":
    main()
