"""The first non-finite step of a training, looked at while the weights are those before it.

Where every step is looked at, they still are when it is found. Where a look comes after some
steps, the training is taken back to the look before, goes to the bad step once more, and is then
put where it was.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from cfmvc.shards import current_shard
from cfmvc.training.black_box import replayed, write_black_box
from cfmvc.training.events import TrainingEvent
from cfmvc.training.objectives import copied_buffers, set_buffers
from cfmvc.training.randomness import RandomState
from cfmvc.training.sources import IndexedCells, StepCells
from cfmvc.training.step import Moment, Stepper

_Before = tuple[dict[str, torch.Tensor], RandomState]


class Hindsight:
    """Keeps what it takes to look at a training's first bad step, and writes its black box.

    Parameters
    ----------
    stepper
        Does the steps.
    folder
        Of black boxes; None: nothing is kept.
    """

    def __init__(self, stepper: Stepper, folder: Path | None) -> None:
        self.stepper, self.folder = stepper, folder
        # Of several processes none could do the step again alone.
        self.is_over = folder is None or current_shard().n_ranks > 1
        self._before: _Before | None = None
        self._since: list[tuple[StepCells | IndexedCells, Moment]] = []

    def remember(self) -> None:
        """Keep the present state, to come back to."""
        if self.is_over or not (self.stepper.is_whole or self.stepper.device.type == "cuda"):
            self._before = None
        else:
            self._before = self._now()
        self._since = []

    def note(self, cells: StepCells | IndexedCells, moment: Moment) -> None:
        """Keep which step is done next."""
        if self._before is not None:
            self._since.append((cells, moment))

    def examined(self, event: TrainingEvent) -> TrainingEvent:
        """Replay the first non-finite step and keep it; returns the event with what was found."""
        folder = self.folder
        if folder is None or self.is_over or event.kind != "nan":
            return event
        present, norms = self._now(), self.stepper.norms.rows
        norms = None if norms is None else norms.clone()
        try:
            if not self._is_there(event.step):
                return event
            self.is_over = True
            return self._kept(event, folder)
        finally:
            self._be(present)
            self.stepper.norms.rows = norms

    def _is_there(self, step: int) -> bool:
        """Go to just after a step, whose update was vetoed; False if there is no way."""
        stepper = self.stepper
        is_there = stepper.last_step == step and bool(stepper.parts)
        if self._before is not None and not is_there:
            self._be(self._before)
            for cells, moment in self._since:
                stepper.in_parts(cells, moment)
                if moment.step == step:
                    break
        return stepper.last_step == step and bool(stepper.parts)

    def _kept(self, event: TrainingEvent, folder: Path) -> TrainingEvent:
        stepper, objective = self.stepper, self.stepper.objective
        after, precision = copied_buffers(objective), stepper.engine.precision
        set_buffers(objective, stepper.buffers)
        findings = replayed(objective, stepper.parts, stepper.device, precision)
        kept = folder / f"{event.stage}-step-{event.step}"
        told = {"event": event.as_json(), "precision": precision}
        event = replace(event, module=findings.module)
        try:
            write_black_box(kept, objective, stepper.parts, findings, told)
        except OSError as error:  # a training goes on without its step, and so it does without this
            print(f"{event.stage}: no black box in {kept}: {error}", file=sys.stderr)
            return event
        finally:
            set_buffers(objective, after)
        return replace(event, black_box=str(kept))

    def _now(self) -> _Before:
        tensors = {name: value.clone() for name, value in self.stepper.tensors().items()}
        return tensors, RandomState.now(self.stepper.device)

    def _be(self, state: _Before) -> None:
        tensors, random = state
        self.stepper.set(tensors)
        random.restore(self.stepper.device)
