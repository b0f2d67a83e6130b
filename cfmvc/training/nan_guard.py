"""The NaN guard: vetoes an update before it happens, and says later where it came from.

In a step nothing is read back from the device: finiteness becomes a flag that the fused optimiser
obeys (``found_inf``), and flags and norms wait in a list that is read every ``interval`` steps.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cfmvc.errors import NonFiniteError
from cfmvc.training.objectives import Loss

LARGE_GRADIENT = 100.0


@dataclass(frozen=True)
class NanEvent:
    """One vetoed update, or one gradient of suspicious size.

    Parameters
    ----------
    kind
        ``nan`` (the update was vetoed) or ``large_gradient`` (it was not).
    stage, epoch, step
        Where in the training.
    place
        The first layer whose values were not finite (``input, encoder, decoder, ...``), or
        ``gradient``.
    parameters
        Names of the parameters whose gradients were not finite, or large.
    loss_parts
        Parts of the loss; None where not finite.
    grad_norm
        Norm of the whole gradient before clipping; None where not finite.
    cells
        Rows of the training cells in this step.
    action
        What was done.
    """

    kind: str
    stage: str
    epoch: int
    step: int
    place: str
    parameters: list[str]
    loss_parts: dict[str, float | None]
    grad_norm: float | None
    cells: list[int]
    action: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values for one JSON line."""
        return dict(self.__dict__)


@dataclass
class _Pending:
    epoch: int
    step: int
    cells: np.ndarray
    values: torch.Tensor
    largest: torch.Tensor | None


@dataclass
class NanGuard:
    """Watches the gradients of some named parameters.

    Parameters
    ----------
    parameters
        Name and parameter of everything that learns.
    stage
        Name of the stage, for the events.
    max_norm
        Gradients are clipped to this norm.
    interval
        Steps between reads of the flags.
    max_consecutive
        Vetoed updates in a row before :class:`~cfmvc.errors.NonFiniteError`.
    """

    parameters: dict[str, torch.nn.Parameter]
    stage: str
    max_norm: float
    interval: int
    max_consecutive: int
    first_nan_step: int | None = None
    last_norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    last_event: NanEvent | None = None
    _n_steps: int = 0
    _consecutive: int = 0
    _validation_place: str = "loss"
    _pending: list[_Pending] = field(default_factory=list)
    _probes: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)

    def before_update(self, loss: Loss, epoch: int, step: int, cells: np.ndarray) -> torch.Tensor:
        """Clip the gradients, and return 1.0 where the update must not happen, else 0.0.

        Parameters
        ----------
        loss
            Of this step, after ``backward()``.
        epoch, step
            Where in the training.
        cells
            Rows of the training cells in this step.
        """
        gradients = [
            p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters.values()
        ]
        norms = torch.stack(torch._foreach_norm(gradients))
        total_norm = norms.norm()
        probes = torch.stack([value.detach().float() for value in loss.probes.values()])
        healthy = torch.isfinite(probes).all() & torch.isfinite(total_norm)
        torch._foreach_mul_(gradients, (self.max_norm / (total_norm + 1e-6)).clamp(max=1.0))
        self._probes, self._parts, self.last_norm = list(loss.probes), list(loss.parts), total_norm
        parts = torch.stack([value.detach().float() for value in loss.parts.values()])
        # Sizes are looked at when the flags are read, not at every step.
        self._n_steps += 1
        is_last = self._n_steps % self.interval == 0
        largest = torch.stack(torch._foreach_norm(gradients, ord=torch.inf)) if is_last else None
        if largest is not None:
            largest = largest * (total_norm / self.max_norm).clamp(min=1.0)
        values = torch.cat([(~healthy).float()[None], total_norm[None], probes, parts, norms])
        self._pending.append(_Pending(epoch, step, cells, values, largest))
        return (~healthy).float()

    @property
    def is_due(self) -> bool:
        """Whether ``interval`` steps have passed since the last regular read."""
        return self._n_steps % self.interval == 0

    def read(self) -> list[NanEvent]:
        """Read the waiting flags from the device, once, and return what happened."""
        if not self._pending:
            return []
        table = torch.stack([pending.values for pending in self._pending]).cpu().numpy()
        events = []
        for pending, row in zip(self._pending, table, strict=True):
            self._consecutive = self._consecutive + 1 if row[0] else 0
            if row[0]:
                events.append(self._veto(pending, row))
            elif pending.largest is not None:
                events += self._large(pending, row)
        self._pending.clear()
        return events

    def note(self, loss: Loss) -> None:
        """Look at a loss of the validation, which has no update to veto."""
        for name, value in loss.probes.items():
            if not torch.isfinite(value):
                self._validation_place = name
                return

    def bad_validation(self, epoch: int, step: int) -> NanEvent:
        """Return the event of a validation whose loss was not finite."""
        action = "validation not counted"
        place = f"validation: {self._validation_place}"
        return NanEvent("nan", self.stage, epoch, step, place, [], {}, None, [], action)

    def raise_if_hopeless(self) -> None:
        """Give up on a training whose updates are all vetoed.

        Raises
        ------
        NonFiniteError
            After ``max_consecutive`` vetoed updates in a row.
        """
        if self._consecutive >= self.max_consecutive and self.last_event is not None:
            raise NonFiniteError(self._verdict(self.last_event))

    def _veto(self, pending: _Pending, row: np.ndarray) -> NanEvent:
        if self.first_nan_step is None:
            self.first_nan_step = pending.step
        probes, _, norms = self._split(row)
        bad = [name for name, value in zip(self._probes, probes, strict=True) if not _finite(value)]
        culprits = [n for n, v in zip(self.parameters, norms, strict=True) if not _finite(v)]
        place = bad[0] if bad else "gradient"
        self.last_event = self._event("nan", pending, row, place, culprits, "update vetoed")
        return self.last_event

    def _large(self, pending: _Pending, row: np.ndarray) -> list[NanEvent]:
        assert pending.largest is not None
        sizes = pending.largest.cpu().numpy()
        large = [n for n, v in zip(self.parameters, sizes, strict=True) if v > LARGE_GRADIENT]
        if not large:
            return []
        return [self._event("large_gradient", pending, row, "gradient", large, "clipped")]

    def _event(
        self,
        kind: str,
        pending: _Pending,
        row: np.ndarray,
        place: str,
        parameters: list[str],
        action: str,
    ) -> NanEvent:
        _, parts, _ = self._split(row)
        return NanEvent(
            kind,
            self.stage,
            pending.epoch,
            pending.step,
            place,
            parameters,
            {name: _plain(value) for name, value in zip(self._parts, parts, strict=True)},
            _plain(row[1]),
            [int(cell) for cell in pending.cells],
            action,
        )

    def _split(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_probes, n_parts = len(self._probes), len(self._parts)
        return (
            row[2 : 2 + n_probes],
            row[2 + n_probes : 2 + n_probes + n_parts],
            row[2 + n_probes + n_parts :],
        )

    def _verdict(self, event: NanEvent) -> str:
        return (
            f"{self.stage}: {self._consecutive} updates in a row were not finite and were vetoed, "
            f"the last at step {event.step} (first non-finite: {event.place}); the parameters are "
            "those before. Lower the learning rate, or look at the cells named in events/nan.jsonl"
        )


def _finite(value: float) -> bool:
    return bool(np.isfinite(value))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
