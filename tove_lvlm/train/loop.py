"""transformers' Trainer with our sampler, logs, guards and checkpoints: what every stage is trained by.

See docs/design.md, "Training".
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed

from .. import dist
from ..data.pixel_table import PixelTable
from ..data.row_layout import model_inputs
from ..sharding import local_values
from . import checkpoint, fsdp
from .agreement import Agreement
from .guards import NonFiniteLoss, StopSignal, Watchdog, ignore_signals_in_worker
from .metrics import FigureMeter, MetricsFile
from .pictures import DrawPictures
from .random_states import random_states, set_random_states
from .stage import Pictures

logger = logging.getLogger(__name__)


class RankBatches(Sampler[list[int]]):
    """This rank's batches out of an order that all ranks share; the tail is filled up from the order's start.

    Micro-batch m of rank r is the (m * world + r)-th run of `batch_size` samples, as LLaVA's grouping expects.

    Args:
        sampler: Gives the order; has `set_epoch`.
        batch_size: Samples per rank and micro-batch.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(self, sampler: Any, batch_size: int, rank: int, world_size: int):
        self.sampler, self.batch_size, self.rank, self.world_size = sampler, batch_size, rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        total = len(self) * self.batch_size * self.world_size
        order = (order * (-(-total // len(order))))[:total]
        for start in range(self.rank * self.batch_size, total, self.batch_size * self.world_size):
            yield order[start : start + self.batch_size]


class GuardedTrainer(Trainer):
    """See the module's docstring. The loss is the model's own, whose mean is taken over the accumulation steps.

    Args:
        run_config: The resolved configuration.
        identity: What a checkpoint must share with a run that resumes from it.
        sampler: Order of the samples.
        pixel_table: Where the data set gives pixels as bytes, what they stand for.
        layers: What `train.fsdp` gathers one at a time.
        pictures: What is drawn meanwhile.
        kwargs: Trainer's own.
    """

    # What a run is given or makes before its first step; Trainer allows for its absence.
    model: torch.nn.Module
    train_dataset: Dataset
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR

    def __init__(
        self,
        *,
        run_config: Any,
        identity: dict,
        sampler: Any,
        pixel_table: PixelTable | None = None,
        layers: Sequence[torch.nn.Module] = (),
        pictures: Pictures | None = None,
        **kwargs,
    ):
        self.run_config, self.identity, self.sampler, self.pixel_table = run_config, identity, sampler, pixel_table
        self.layers = layers
        super().__init__(**kwargs)
        self.loss_is_scaled_for_ga = True  # compute_loss does it
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self))
        if pictures is not None:
            self.add_callback(DrawPictures(self, pictures))
        self.meter: Any = FigureMeter()
        self.metrics_file = MetricsFile(Path(run_config.train.output_dir) / "metrics.jsonl")
        self.stop_signal, self.watchdog = StopSignal(), Watchdog(run_config.train.stall_timeout)
        self.agreement = Agreement()
        self.stopped_by: int | None = None
        self._sample_ids: list[str] = []
        self._rank_batches = RankBatches(
            sampler, run_config.train.per_device_train_batch_size, dist.rank(), dist.world_size()
        )

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        """A plain loader over this rank's batches: neither the order nor the random state depends on its workers."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_sampler=self._rank_batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=False,
            worker_init_fn=ignore_signals_in_worker if workers else None,
            generator=torch.Generator().manual_seed(self.args.seed),  # else iterating draws from the global one
        )

    # ---- optimizer ----

    def _move_model_to_device(self, model, device) -> None:
        """As Trainer's; `fsdp.shard` places the model's pieces itself."""
        if not self.run_config.train.fsdp:
            super()._move_model_to_device(model, device)

    def rates(self) -> tuple[dict[str, float], dict[int, str]]:
        """Learning rate of each kind of parameter, and the kind of a parameter by its id; unnamed ones are `model`."""
        return {"model": self.run_config.train.learning_rate}, {}

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a rate for each kind of parameter, and no decay for biases and norms."""
        if self.optimizer is not None:
            return self.optimizer
        train = self.run_config.train
        rates, kinds = self.rates()
        decayed = set(self.get_decay_parameter_names(self.model)) if train.weight_decay else set()
        groups: dict[tuple[str, bool], list] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                kind = kinds.get(id(parameter), "model")
                groups.setdefault((kind, name in decayed), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": p, "lr": rates[kind], "weight_decay": train.weight_decay * decay, "name": kind}
                for (kind, decay), p in sorted(groups.items(), key=lambda item: item[0])
            ],
            lr=train.learning_rate,
            betas=(train.adam_beta1, train.adam_beta2),
            eps=train.adam_epsilon,
            fused=True,
        )
        return self.optimizer

    # ---- loss ----

    def loss_of(self, model, inputs: dict, num_items_in_batch) -> tuple[torch.Tensor, Any, Any]:
        """A micro-batch's share of the loss, the model's output, and what the meter reads.

        Args:
            model: As wrapped for training.
            inputs: The batch, see `model_inputs`.
            num_items_in_batch: Trainer's count over the accumulation steps, for losses over tokens.
        """
        outputs = model(**inputs)
        return outputs.loss / self.current_gradient_accumulation_steps, outputs, outputs.figures

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Scaled loss of a micro-batch. Nothing here waits for the device; `Agreement` says when a loss is read."""
        self._sample_ids = inputs.get("sample_ids", [])
        self.watchdog.alive(self.state.global_step + 1, self._sample_ids)
        loss, outputs, measured = self.loss_of(model, model_inputs(inputs), num_items_in_batch)
        self.agreement.add(loss, self._sample_ids)
        if self.accelerator.sync_gradients:  # the step's last micro-batch
            self.agreement.send(self.stop_signal.signum or 0)
        self.meter.add(inputs, measured)
        return (loss, outputs) if return_outputs else loss

    def end_step(self) -> None:
        """What the ranks agreed on in the step that has just ended, before it is logged or saved."""
        if self.agreement.receive(self.state.global_step):
            self.stopped_by = self.stop_signal.signum or 15

    def _prepare_input(self, data: Any) -> Any:
        """As Trainer's, but a batch in pinned memory is copied behind the work that is queued."""
        if isinstance(data, torch.Tensor) and data.is_pinned():
            data = data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """As Trainer's; pixels that came as bytes become numbers on the device."""
        inputs = super()._prepare_inputs(inputs)
        pixels = inputs.get("pixel_values")
        if self.pixel_table is not None and pixels is not None and pixels.dtype == torch.uint8:
            inputs["pixel_values"] = super()._prepare_input(self.pixel_table(pixels))
        return inputs

    def floating_point_ops(self, inputs) -> int:
        """Not counted: Trainer would walk over all parameters at every step for it."""
        return 0

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our figures to Trainer's and write `metrics.jsonl`."""
        if "loss" in logs:
            groups = cast(torch.optim.Optimizer, self.optimizer).param_groups
            names = [group.get("name", str(i)) for i, group in enumerate(groups)]
            for name, rate in zip(names, self._rates_of_last_step, strict=True):
                logs[f"learning_rate/{name}"] = rate
            logs |= self.meter.read(self.args.device)
            self.meter.reset()
        super().log(logs, start_time)
        if dist.is_main() and "loss" in logs:
            line = {
                "step": self.state.global_step,
                "max_steps": self.state.max_steps,
                "epoch": self.state.epoch,
                **logs,
            }
            self.metrics_file.append({key: _plain(value) for key, value in line.items()})
            shown = {key: logs[key] for key in ("loss", "learning_rate", "images_per_s", "tokens_per_s") if key in logs}
            text = "  ".join(f"{key} {value:.4g}" for key, value in shown.items())
            logger.info("step %d/%d  %s", self.state.global_step, self.state.max_steps, text)

    def _get_learning_rate(self) -> float:
        # Trainer asks between the optimizer's step and the scheduler's: these are the rates the step was made with.
        self._rates_of_last_step = [float(rate) for rate in self.lr_scheduler.get_last_lr()]
        return max(self._rates_of_last_step)

    # ---- checkpoints ----

    def _save_checkpoint(self, model, trial) -> None:
        step = self.state.global_step
        if not all(bool(torch.isfinite(local_values(p)).all()) for p in self.model.parameters() if p.requires_grad):
            raise NonFiniteLoss("a weight is not a finite number, so no checkpoint is written,", step, self._sample_ids)
        self.watchdog.alive(step, self._sample_ids)
        record = checkpoint.RunRecord(
            trainer_state=self.state, rank_state=self.rank_state(), config=self.run_config, identity=self.identity
        )
        train = self.run_config.train
        path = checkpoint.save(self._training_state(), record, train.output_dir, train.save_total_limit)
        self.watchdog.alive(step, self._sample_ids)
        logger.info("checkpoint %s", path)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        """Nothing yet: weights are loaded with the optimizer, once both are prepared."""

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if self.run_config.train.fsdp:
            fsdp.shard(self.model, self.layers, self.args.device)
            self.is_distributed_loading_by_transformers = True  # Trainer wraps and places nothing then
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self.is_distributed_loading_by_transformers = False  # nor does it delay the reduction of gradients
        if resume_from_checkpoint is not None:
            checkpoint.load(self._training_state(), resume_from_checkpoint)
        return prepared

    def _training_state(self) -> checkpoint.TrainingState:
        return checkpoint.TrainingState(
            model=self.model,
            engine=self.model_wrapped if self.is_deepspeed_enabled else None,
            fsdp=self.run_config.train.fsdp,
            optimizer=cast(torch.optim.Optimizer, self.optimizer),
            scheduler=self.lr_scheduler,
        )

    def rank_state(self) -> dict[str, Any]:
        """This rank's random states and the sums behind the next log line."""
        loss = (self._tr_loss.cpu(), self._total_loss_scalar, self._globalstep_last_logged)
        return {**random_states(), "loss": loss, "meter": self.meter.state()}

    def _load_rng_state(self, checkpoint_folder) -> None:
        """Called by Trainer just before the first resumed step, after the skipped batches."""
        if checkpoint_folder is None:
            return
        state = checkpoint.load_rank_state(checkpoint_folder)
        set_random_states(state)
        loss, self._total_loss_scalar, self._globalstep_last_logged = state["loss"]
        self._tr_loss = loss.to(self.args.device)
        self.meter.load_state(state["meter"])

    # ---- loop ----

    def _run_epoch(self, *, epoch, **kwargs) -> None:  # type: ignore[override]  # Trainer calls it by names
        if self.state.global_step >= self.state.max_steps:  # resumed from the last checkpoint: nothing is left to do
            self.control.should_training_stop = True
            return
        self._rank_batches.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Train under the guards; `stopped_by` then holds the signal that ended it, if one did."""
        with self.stop_signal.watching(), self.watchdog.watching():
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)


class _Steps(TrainerCallback):
    """The trainer's own hooks into the loop."""

    def __init__(self, trainer: GuardedTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        # Ranks draw differently (LoRA and expert dropout), from here on; a resumed run then takes up its own states.
        set_seed(args.seed + 1_000_003 * dist.rank())
        if dist.is_main():
            self.trainer.metrics_file.cut(state.global_step)
        self.trainer.meter.reset()
        self.trainer.model.train()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.end_step()
        if self.trainer.stopped_by is not None and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
        return control


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
