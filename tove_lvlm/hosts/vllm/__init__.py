"""vLLM with a ToVE tower: a whole LLaVA model in transformers' layout is served with its full tower.

vLLM finds `register` by itself (entry point `vllm.general_plugins`), so that an ordinary `vllm serve DIR` is enough;
`python -m tove_lvlm.hosts.vllm DIR ARGS...` looks at DIR first. Stock LLaVA models are served as without this package.

See docs/serving.md.
"""

from .register import register

__all__ = ["EXTRA", "KEY", "register"]

EXTRA = None
"""vLLM pins a torch and a transformers of its own: it has an environment apart."""
KEY = None
"""The tower comes with the model."""
