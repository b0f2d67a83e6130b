"""The only training loop: every stage is an objective and a source of cells for it."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from cfmvc.errors import DataError
from cfmvc.training.averages import AveragedWeights
from cfmvc.training.callbacks import Callback, TrainingState
from cfmvc.training.config import LoopConfig
from cfmvc.training.memory_meter import peak_memory
from cfmvc.training.nan_guard import NanEvent, NanGuard
from cfmvc.training.objectives import Loss, Objective
from cfmvc.training.sources import CellSource

_VALIDATION_SEED = 0x5EED


@dataclass
class History:
    """Course of a training.

    Parameters
    ----------
    rows
        Figures of each epoch, by name.
    events
        Vetoed updates and large gradients, in order.
    nan_step
        First vetoed step, or None.
    best_epoch
        The epoch whose weights were kept, counted from 1.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    events: list[NanEvent] = field(default_factory=list)
    nan_step: int | None = None
    best_epoch: int = 0
    best_val_loss: float = math.inf

    def as_dict(self) -> dict[str, Any]:
        """Return ``train_loss``, ``val_loss`` (lists) and ``nan_step``, as users know them."""
        return {
            "train_loss": [row["train_loss"] for row in self.rows],
            "val_loss": [row["val_loss"] for row in self.rows if "val_loss" in row],
            "nan_step": self.nan_step,
            "nan_events": [event.as_json() for event in self.events if event.kind == "nan"],
        }

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures of the epoch that was kept, and what was vetoed."""
        kept = next((r for r in self.rows if r["epoch"] == self.best_epoch), None)
        kept = kept or (self.rows[-1] if self.rows else {})
        losses = {
            name: value if math.isfinite(value) else None
            for name, value in kept.items()
            if name.startswith(("train_", "val_"))
        }
        n_vetoed = sum(event.kind == "nan" for event in self.events)
        epochs = {"n_epochs": len(self.rows), "best_epoch": self.best_epoch}
        return {**losses, **epochs, "nan_steps": n_vetoed, "first_nan_step": self.nan_step}

    def followed_by(self, later: "History") -> "History":
        """Return this history with the rows and events of a later training behind its own."""
        last = self.rows[-1] if self.rows else {"epoch": 0, "step": 0}
        shifted = [
            {**row, "epoch": row["epoch"] + last["epoch"], "step": row["step"] + last["step"]}
            for row in later.rows
        ]
        return History(
            self.rows + shifted,
            self.events + later.events,
            self.nan_step if self.nan_step is not None else later.nan_step,
            int(last["epoch"]) + later.best_epoch,
            later.best_val_loss,
        )


@dataclass
class _Sums:
    """Losses of an epoch, summed on the device over the cells of updates that happened."""

    total: torch.Tensor | None = None
    names: list[str] = field(default_factory=list)

    def add(self, loss: Loss, n_cells: int, vetoed: torch.Tensor) -> None:
        parts = [loss.total.detach(), *(part.detach() for part in loss.parts.values())]
        row = torch.stack([*parts, torch.ones_like(parts[0])]) * n_cells
        row = torch.where(vetoed > 0, torch.zeros_like(row), row)
        self.total = row if self.total is None else self.total + row
        self.names = ["loss", *loss.parts]

    def means(self, prefix: str) -> dict[str, float]:
        if self.total is None:
            return {}
        *sums, n_cells = self.total.tolist()
        return {
            f"{prefix}_{name}": value / n_cells if n_cells else math.nan
            for name, value in zip(self.names, sums, strict=True)
        }


def train(
    stage: str,
    objective: Objective,
    source: CellSource,
    validation: CellSource | None,
    config: LoopConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
) -> History:
    """Minimise ``objective`` on the cells of ``source``; leaves the best weights in its modules.

    Parameters
    ----------
    stage
        Name of the stage, for events and figures.
    objective
        What is minimised.
    source, validation
        Cells to learn from, and cells to choose the best epoch by (None: the last epoch is kept).
    config
        Optimiser, schedule, guards.
    device
        Where the modules are.
    callbacks
        Who is told.

    Raises
    ------
    NonFiniteError
        After ``max_consecutive_vetoes`` vetoed updates in a row; the weights are those before.
    """
    if source.n_cells == 0 or source.n_steps == 0:
        raise DataError(
            f"{stage}: no cells to learn from; with control sources a perturbed cell needs "
            "control cells of its own batch and cell type (see flow.source)"
        )
    return _Training(stage, objective, source, validation, config, device, list(callbacks)).run()


class _Training:
    """One run of the loop."""

    def __init__(
        self,
        stage: str,
        objective: Objective,
        source: CellSource,
        validation: CellSource | None,
        config: LoopConfig,
        device: torch.device,
        callbacks: list[Callback],
    ) -> None:
        self.objective, self.source, self.validation = objective, source, validation
        self.config, self.device, self.callbacks = config, device, callbacks
        parameters = {
            f"{type(module).__name__}.{name}": parameter
            for module in objective.modules()
            for name, parameter in module.named_parameters()
        }
        learning = list(parameters.values())
        # The fused optimiser obeys a flag on the device (found_inf), on CPU as on CUDA.
        self.optimizer = torch.optim.AdamW(
            learning, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.averaged = AveragedWeights(learning, config.ema_decay)
        self.guard = NanGuard(
            parameters,
            stage,
            config.grad_clip_max_norm,
            config.nan_check_interval,
            config.max_consecutive_vetoes,
        )
        self.state = TrainingState(stage, config.n_epochs)
        self.history = History()
        self.best: list[torch.Tensor] = []
        self.best_loss, self.n_without_progress = math.inf, 0

    def run(self) -> History:
        """Train until the last epoch, or until the validation stops improving."""
        for epoch in range(self.config.n_epochs):
            started = time.perf_counter()
            self.objective.start_epoch(epoch / self.config.n_epochs)
            sums, norms = self._train_epoch(epoch)
            self.state.epoch = epoch + 1
            metrics = sums.means("train") | self._figures(norms, time.perf_counter() - started)
            is_last = epoch + 1 == self.config.n_epochs
            if (
                self.validation is not None
                and self.validation.n_steps
                and (is_last or self.state.epoch % self.config.validate_every == 0)
            ):
                metrics |= self._validate()
            self._close_epoch(metrics)
            if self.n_without_progress >= self.config.patience:
                break
        self.averaged.finish(self.best or self.averaged.values())
        for module in self.objective.modules():
            module.eval()
        return self.history

    def _train_epoch(self, epoch: int) -> tuple[_Sums, list[torch.Tensor]]:
        for module in self.objective.modules():
            module.train()
        sums, norms = _Sums(), []
        for rows, cells in self.source.epoch(epoch):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.objective(cells)
            loss.total.backward()
            vetoed = self.guard.before_update(loss, epoch, self.state.step, rows)
            self.optimizer.found_inf = vetoed  # type: ignore[attr-defined]
            self.optimizer.step()
            self.schedule.step()
            self.averaged.update()
            self.state.step += 1
            sums.add(loss, len(cells), vetoed)
            norms.append(self.guard.last_norm)
            if self.guard.is_due:
                self._tell(self.guard.read())
        self._tell(self.guard.read())
        return sums, norms

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        for module in self.objective.modules():
            module.eval()
        sums = _Sums()
        # The same times and sources at every validation, and the training's own draws untouched.
        with (
            self.averaged.applied(),
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
        ):
            torch.manual_seed(_VALIDATION_SEED)
            for _, cells in self.validation.epoch(0):
                loss = self.objective(cells)
                sums.add(loss, len(cells), torch.zeros((), device=self.device))
                self.guard.note(loss)
        metrics = sums.means("val")
        if not math.isfinite(metrics["val_loss"]):
            self._tell([self.guard.bad_validation(self.state.epoch - 1, self.state.step)])
        if metrics["val_loss"] < self.best_loss:
            self.best_loss, self.n_without_progress = metrics["val_loss"], 0
            self.best = self.averaged.values()
            self.history.best_epoch = self.state.epoch
            self.history.best_val_loss = metrics["val_loss"]
        else:
            self.n_without_progress += 1
        return metrics

    def _figures(self, norms: list[torch.Tensor], seconds: float) -> dict[str, float]:
        finite = [n for n in (torch.stack(norms).tolist() if norms else []) if math.isfinite(n)]
        return {
            "grad_norm": sum(finite) / max(len(finite), 1),
            "lr": self.schedule.get_last_lr()[0],
            "cells_per_second": self.source.n_cells / seconds,
            "step_seconds": seconds / max(len(norms), 1),
            **peak_memory(self.device),
        }

    def _tell(self, events: list[NanEvent]) -> None:
        if not events:
            return
        self.history.events += events
        self.history.nan_step = self.guard.first_nan_step
        for callback in self.callbacks:
            callback.on_events(self.state, events)
        self.guard.raise_if_hopeless()

    def _close_epoch(self, metrics: dict[str, float]) -> None:
        self.state.metrics = metrics
        self.history.rows.append({"epoch": self.state.epoch, "step": self.state.step, **metrics})
        for callback in self.callbacks:
            callback.on_epoch_end(self.state)

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to ``lr_end``."""
        n_steps = max(self.source.n_steps * self.config.n_epochs, 1)
        n_warmup = self.config.lr_warmup * n_steps
        if step < n_warmup:
            return (step + 1) / (n_warmup + 1)
        progress = min(1.0, (step - n_warmup) / max(n_steps - n_warmup, 1))
        end = self.config.lr_end
        return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
