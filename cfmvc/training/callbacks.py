"""Those who watch a training: they read its state, and neither change it nor know each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cfmvc.training.events import TrainingEvent
from cfmvc.training.history import History

if TYPE_CHECKING:
    from cfmvc.training.memory import ExpectedMemory


@dataclass
class TrainingState:
    """What a training says about itself.

    Parameters
    ----------
    stage
        Name of the stage.
    n_epochs
        Epochs planned.
    epoch, step
        Epochs and optimiser steps done.
    metrics
        Of the last epoch, by name.
    events
        Since the last epoch's end.
    """

    stage: str
    n_epochs: int
    epoch: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    events: list[TrainingEvent] = field(default_factory=list)


Examine = Callable[[int], Mapping[str, float]]
"""Looks at the model as it is after so many epochs, its averaged weights in place; returns figures.

It may raise, which ends the training; it must leave the model and the random state as they were.
"""


class Callback(Protocol):
    """Watches a training."""

    def on_memory(self, expected: "ExpectedMemory") -> None:
        """Take note of the memory that the stage is expected to need, before it begins."""

    def on_resume(self, state: TrainingState, history: History) -> None:
        """Take note that it goes on from a checkpoint; ``history`` is what happened before."""

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        """Take note of what was vetoed or large, as soon as it is known."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Take note that an epoch is done; ``state.metrics`` are its figures."""


class NoCallback:
    """Watches nothing; base of those who watch one thing."""

    def on_memory(self, expected: "ExpectedMemory") -> None:
        """Do nothing."""

    def on_resume(self, state: TrainingState, history: History) -> None:
        """Do nothing."""

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        """Do nothing."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Do nothing."""
