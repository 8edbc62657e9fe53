"""LAVIS's own training and evaluation with the plugin in place: its Config, tasks and runner.

LAVIS's two scripts are not in its wheel; this does what they do. Besides:

* `run.output_dir` is relative to the working directory, not to where LAVIS is installed;
* `model.bert` names a folder in place of the hub's `bert-base-uncased` (as TOVE_LAVIS_BERT does);
* on the CPU the model is float32, as LAVIS's `load_model` makes it there.

See docs/hosts.md, "LAVIS".
"""

import argparse
import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config import ConfigError, UserError, read_yaml
from ...environment import environment
from ...registry import nearest
from .bert import VARIABLE
from .register import register

logger = logging.getLogger(__name__)


def run(command: str, cfg_path: str | Path, options: Sequence[str] = ()) -> Any:
    """Train or evaluate as a LAVIS YAML says.

    Args:
        command: `train` or `evaluate`.
        cfg_path: LAVIS's YAML.
        options: `a.b=c` strings put over it.

    Returns:
        LAVIS's runner, done.

    Raises:
        UserError: The YAML does not fit, or a tower, a checkpoint or data are not there or do not fit.
    """
    register()
    cfg = _config(cfg_path, options)
    from . import machine

    with machine.one_process(), machine.device(cfg.run_cfg.device):
        runner = _runner(cfg)
        if command == "train":
            runner.train()
        else:
            runner.evaluate(skip_reload=True)
    logger.info("written to %s", runner.output_dir)
    return runner


def _config(cfg_path: str | Path, options: Sequence[str]) -> Any:
    """LAVIS's Config of a YAML whose names are known to its registry."""
    from lavis.common.config import Config
    from lavis.common.registry import registry

    tree = read_yaml(cfg_path, options)
    for key in ("model", "datasets", "run"):
        if not isinstance(tree.get(key), dict):
            raise ConfigError(f"{cfg_path}: a LAVIS run needs the block `{key}`")
        for name, value in tree[key].items():
            if value == "???":  # OmegaConf's mark for what the user must say
                raise ConfigError(f"{cfg_path}: `{key}.{name}` is not stated; give it with --options {key}.{name}=...")
    kinds = [("model.arch", tree["model"].get("arch"), registry.list_models())]
    kinds += [("datasets", name, registry.list_datasets()) for name in tree["datasets"]]
    kinds += [("run.task", tree["run"].get("task"), registry.list_tasks())]
    for key, name, names in kinds:
        _check_name(f"{cfg_path}: `{key}`", name, names)
    types = registry.get_model_class(tree["model"]["arch"]).PRETRAINED_MODEL_CONFIG_DICT
    _check_name(f"{cfg_path}: `model.model_type`", tree["model"].get("model_type"), list(types))
    cfg = Config(argparse.Namespace(cfg_path=str(cfg_path), options=list(options)))
    cfg.run_cfg.output_dir = str(Path(cfg.run_cfg.output_dir).expanduser().absolute())
    return cfg


def _check_name(where: str, name: object, names: Sequence[str]) -> None:
    if name not in names:
        raise ConfigError(f"{where}: LAVIS knows no `{name}`; {nearest(str(name), names)}")


def _runner(cfg: Any) -> Any:
    import torch
    from lavis import tasks
    from lavis.common.dist_utils import init_distributed_mode
    from lavis.common.logger import setup_logger
    from lavis.common.registry import registry
    from lavis.common.utils import now

    _register_runners()
    on_cpu = torch.device(cfg.run_cfg.device).type == "cpu"
    if on_cpu and "RANK" in os.environ:
        raise UserError("LAVIS's processes talk through NCCL only; with `run.device: cpu` start one, without torchrun")
    if not on_cpu and not torch.cuda.is_available():
        raise UserError(f"`run.device` is `{cfg.run_cfg.device}` and there is no CUDA device here; write `cpu`")
    init_distributed_mode(cfg.run_cfg)
    _set_seeds(cfg.run_cfg.seed)
    setup_logger()
    cfg.pretty_print()
    bert = cfg.model_cfg.get("bert")
    with environment(**{VARIABLE: str(Path(bert).expanduser().absolute()) if bert else None}):
        task = tasks.setup_task(cfg)
        datasets = task.build_datasets(cfg)
        model = task.build_model(cfg)
    if on_cpu:
        model = model.float()
    for name in ("result_dir", "output_dir"):  # LAVIS files them once for each process and refuses a second run
        registry.mapping["paths"].pop(name, None)
    cls = registry.get_runner_class(cfg.run_cfg.get("runner", "runner_base"))
    runner = cls(cfg=cfg, job_id=now(), task=task, model=model, datasets=datasets)
    if on_cpu:
        runner._wrapped_model = model  # which the wheel sets only where it has to move the model
    return runner


def _register_runners() -> None:
    """These modules file themselves in LAVIS's registry, and `import lavis` does not import them."""
    import lavis.common.optims
    import lavis.runners  # noqa: F401


def _set_seeds(seed: int) -> None:
    import numpy as np
    import torch
    from lavis.common.dist_utils import get_rank

    seed = int(seed) + get_rank()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
