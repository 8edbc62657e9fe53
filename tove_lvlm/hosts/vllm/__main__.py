"""`python -m tove_lvlm.hosts.vllm DIR ARGS...`: vLLM's OpenAI server, after a look at what it is to serve.

python -m tove_lvlm.hosts.vllm outputs/miniature/tove --dtype float32 --max-model-len 512 --enforce-eager
"""

import runpy
import sys
from collections.abc import Sequence

from ...config import UserError
from .checks import BACKEND, backend_of, check_model
from .register import register

_SERVER = "vllm.entrypoints.openai.api_server"
_USAGE = "usage: python -m tove_lvlm.hosts.vllm DIR ARGS...   (a trained model, then arguments of vLLM's server)"


def main(argv: Sequence[str]) -> None:
    """Serve a model.

    Args:
        argv: Its folder, and what vLLM's server takes.

    Raises:
        ImportError: vLLM is not installed.
        UserError: The folder holds nothing that vLLM serves.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if argv else sys.stderr)
        raise SystemExit(0 if argv else 2)
    if argv[0].startswith("-"):
        raise UserError(f"`{argv[0]}` comes before the model's folder; {_USAGE}")
    check_model(argv[0])
    register()
    chosen = any(argument.partition("=")[0] == BACKEND[0] for argument in argv)
    sys.argv = [_SERVER, "--model", *argv, *(() if chosen else backend_of(argv[0]))]
    runpy.run_module(_SERVER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
