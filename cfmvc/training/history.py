"""Course of a training: the figures of its epochs, and what happened on the way."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from cfmvc.training.events import TrainingEvent
from cfmvc.training.nan_guard import Verdict
from cfmvc.training.objectives import Loss


@dataclass
class History:
    """Course of a training.

    Parameters
    ----------
    rows
        Figures of each epoch, by name.
    events
        Vetoed updates, large gradients and whatever else happened, in order.
    nan_step
        First vetoed step, or None.
    best_epoch
        The epoch whose weights were kept, counted from 1.
    best_val_loss
        Its validation loss.
    gradients
        Gradient norms of each epoch by module, where they are kept; see
        :meth:`~cfmvc.training.gradient_norms.GradientNorms.close_epoch`.
    figures
        What else came out of it, by name.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    events: list[TrainingEvent] = field(default_factory=list)
    nan_step: int | None = None
    best_epoch: int = 0
    best_val_loss: float = math.inf
    gradients: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def n_vetoed(self) -> int:
        """How many updates were vetoed."""
        return sum(event.is_veto for event in self.events)

    def as_dict(self) -> dict[str, Any]:
        """Return ``train_loss``, ``val_loss`` (lists) and ``nan_step``, as users know them."""
        return {
            "train_loss": [row["train_loss"] for row in self.rows],
            "val_loss": [row["val_loss"] for row in self.rows if "val_loss" in row],
            "nan_step": self.nan_step,
            "nan_events": [event.as_json() for event in self.events if event.kind == "nan"],
        }

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        events = [event.as_json() for event in self.events]
        rows, gradients = [dict(row) for row in self.rows], list(self.gradients)
        rest = {"gradients": gradients, "figures": dict(self.figures)}
        return {**self.__dict__, "rows": rows, "events": events, **rest}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "History":
        """Read what :meth:`as_json` returned."""
        return cls(**{**values, "events": [TrainingEvent(**event) for event in values["events"]]})

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures of the epoch that was kept, and what was vetoed."""
        kept = next((r for r in self.rows if r["epoch"] == self.best_epoch), None)
        kept = kept or (self.rows[-1] if self.rows else {})
        losses = {
            name: value if math.isfinite(value) else None
            for name, value in kept.items()
            if name.startswith(("train_", "val_"))
        }
        epochs = {"n_epochs": len(self.rows), "best_epoch": self.best_epoch}
        vetoed = {"nan_steps": self.n_vetoed, "first_nan_step": self.nan_step}
        return {**losses, **epochs, **vetoed, **self.figures}

    def followed_by(self, later: "History") -> "History":
        """Return this history with the rows and events of a later training behind its own.

        Epochs and steps are counted on; events stay as they were, for they name their stage.
        """
        last = self.rows[-1] if self.rows else {"epoch": 0, "step": 0}
        nan_step = self.nan_step
        if nan_step is None and later.nan_step is not None:
            nan_step = int(last["step"]) + later.nan_step
        shifted = [
            {**row, "epoch": row["epoch"] + last["epoch"], "step": row["step"] + last["step"]}
            for row in later.rows
        ]
        return History(
            self.rows + shifted,
            self.events + later.events,
            nan_step,
            int(last["epoch"]) + later.best_epoch if later.best_epoch else 0,
            later.best_val_loss,
            self.gradients + later.gradients,
            self.figures | later.figures,
        )


@dataclass
class EpochSums:
    """Losses of an epoch, summed on the device over the cells of updates that happened.

    Parameters
    ----------
    names
        Of the losses.
    total
        Their sums times cells, the sum of finite gradient norms, and how many cells and norms:
        ``(len(names) + 3,)`` float64, or None before the first step.
    """

    names: list[str] = field(default_factory=list)
    total: torch.Tensor | None = None

    def add(self, row: torch.Tensor, names: list[str]) -> None:
        """Add the row of a step, see :func:`sums_of_step`."""
        self.names = names
        self.total = row.clone() if self.total is None else self.total.add_(row)

    def means(self, prefix: str) -> dict[str, float]:
        """Return the mean of each loss over cells, and of the gradient norm over steps."""
        if self.total is None:
            return {}
        *sums, norm, n_cells, n_norms = self.total.tolist()
        means = {
            f"{prefix}_{name}": value / n_cells if n_cells else math.nan
            for name, value in zip(self.names, sums, strict=True)
        }
        return means | ({"grad_norm": norm / n_norms} if n_norms else {})


def sums_of_step(loss: Loss, n_cells: float, verdict: Verdict | None = None) -> torch.Tensor:
    """Return the row that a step adds to the sums of its epoch; zeros where it was vetoed.

    Parameters
    ----------
    loss
        Of the step.
    n_cells
        How many cells it is the mean of.
    verdict
        Of the guard; None in a validation.
    """
    losses = [loss.total.detach(), *(part.detach() for part in loss.parts.values())]
    norm = torch.zeros_like(losses[0]) if verdict is None else verdict.norm
    figures = torch.stack([*losses, norm.to(losses[0])]).double()
    weights, counts = _constants(len(losses), n_cells, verdict is not None, figures.device)
    row = torch.cat([figures * weights, counts])
    return row if verdict is None else row.masked_fill_(verdict.vetoed > 0, 0.0)


@lru_cache(maxsize=64)
def _constants(
    n_losses: int, n_cells: float, has_norm: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what losses and norm are weighted with, and how many cells and norms they are of."""
    numbers = torch.tensor([n_cells] * n_losses + [1.0, n_cells, has_norm], dtype=torch.float64)
    weights, counts = numbers.to(device).split([n_losses + 1, 2])
    return weights, counts
