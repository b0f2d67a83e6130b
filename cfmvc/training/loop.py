"""The only training loop: every stage is an objective and a source of cells for it."""

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from cfmvc.errors import CheckpointError, DataError, NonFiniteError
from cfmvc.shards import current_shard, of_step
from cfmvc.training.callbacks import Callback, Examine, TrainingState
from cfmvc.training.checkpoint import Checkpoint
from cfmvc.training.config import LoopConfig
from cfmvc.training.engine import Engine, matrix_products
from cfmvc.training.events import TrainingEvent
from cfmvc.training.flat import FlatParameters
from cfmvc.training.hindsight import Hindsight
from cfmvc.training.history import EpochSums, History, sums_of_step
from cfmvc.training.memory_meter import peak_memory
from cfmvc.training.nan_guard import NanGuard
from cfmvc.training.objectives import Objective, learning_parameters
from cfmvc.training.randomness import RandomState
from cfmvc.training.schedule import learning_rate
from cfmvc.training.sources import CellSource
from cfmvc.training.step import Moment, Stepper
from cfmvc.training.termination import Termination

_VALIDATION_SEED = 0x5EED
_MOST_ROLLBACKS = 8


def train(
    stage: str,
    objective: Objective,
    source: CellSource,
    validation: CellSource | None,
    config: LoopConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    engine: Engine | None = None,
    examine: Examine | None = None,
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
    engine
        How it is computed, and where its checkpoints are.
    examine
        Called at each validation; its figures become the epoch's, but choose nothing.

    Raises
    ------
    NonFiniteError
        After ``max_consecutive_vetoes`` vetoed updates in a row (or as ``nan_policy`` says); the
        weights are those before.
    CheckpointError
        If a checkpoint cannot be written; the one before it is still valid.
    Preempted
        On SIGTERM, and on Ctrl-C where there are checkpoints, after one.
    """
    if source.n_cells == 0 or source.n_steps == 0:
        raise DataError(
            f"{stage}: no cells to learn from; with control sources a perturbed cell needs "
            "control cells of its own batch and cell type (see flow.source)"
        )
    engine = engine or Engine()
    training = _Training(stage, objective, source, validation, config, device, engine)
    with Termination(training.checkpoints.are_kept) as termination:
        training.callbacks, training.termination = list(callbacks), termination
        training.examine = examine
        with matrix_products(device, engine.precision):
            return training.run()


@dataclass
class _Progress:
    """Where a training is; plain values, all of them part of a checkpoint."""

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    seconds: float = 0.0  # of the present epoch
    lr_factor: float = 1.0
    n_rollbacks: int = 0
    n_without_progress: int = 0


class _Training:
    """One run of the loop."""

    callbacks: list[Callback]
    termination: Termination
    examine: Examine | None

    def __init__(
        self,
        stage: str,
        objective: Objective,
        source: CellSource,
        validation: CellSource | None,
        config: LoopConfig,
        device: torch.device,
        engine: Engine,
    ) -> None:
        self.objective, self.source, self.validation = objective, source, validation
        self.config, self.device = config, device
        self.flat = FlatParameters(learning_parameters(objective))
        self.guard = NanGuard(
            self.flat, stage, config.nan_check_interval, config.max_consecutive_vetoes
        )
        self.stepper = Stepper(objective, self.flat, self.guard, config, engine, device)
        self.hindsight = Hindsight(self.stepper, engine.black_boxes)
        self.engine, self.checkpoints = engine, engine.checkpoints(stage)
        self.state, self.history = TrainingState(stage, config.n_epochs), History()
        self.at, self.sums = _Progress(), EpochSums()
        self.best: torch.Tensor | None = None
        self.last_good: Checkpoint | None = None

    def run(self) -> History:
        """Train until the last epoch, or until the validation stops improving."""
        self._resume()
        while self.at.epoch < self.config.n_epochs and not self._is_stuck():
            while self._train_epoch():
                pass  # it went back, and here nothing holds the cells that it was at
            self._close_epoch()
        if current_shard().is_first and self.checkpoints.has_some():
            self._save_the_end()
        # No update at all, or none in the last epoch with nothing better to fall back on.
        most = self.source.n_steps if self.best is None else self.at.step
        self.guard.raise_if_hopeless(most)
        self.flat.values.data.copy_(
            self.stepper.averaged.average if self.best is None else self.best
        )
        self.flat.release()
        for module in self.objective.modules():
            module.eval()
        return self.history

    def _train_epoch(self) -> bool:
        """Do what is left of an epoch; True if the training went back to its last good state."""
        self.objective.start_epoch(self.at.epoch / self.config.n_epochs)
        for module in self.objective.modules():
            module.train()
        if self.at.step_in_epoch == 0:
            self._remember()
        self.hindsight.remember()
        began, before = time.perf_counter(), self.at.seconds
        for cells in self.source.epoch(self.at.epoch, self.at.step_in_epoch):
            n_parts = self.stepper.n_parts
            moment = Moment(self.at.epoch, self.at.step, self._rate())
            self.hindsight.note(cells, moment)
            self.sums.add(self.stepper(cells, moment), self.stepper.names)
            self.at.step += 1
            self.at.step_in_epoch += 1
            self.at.seconds = before + time.perf_counter() - began
            if self.stepper.n_parts != n_parts:
                self._tell([self._less_memory(len(cells))])
            if self.guard.is_due(self.at.step) and self._look():
                return True
            if self._may_stop_here() and self._must_save():
                if self._look():
                    return True
                self._save()
        return self._look()

    def _close_epoch(self) -> None:
        figures = {
            "lr": self._rate(),
            "cells_per_second": self.source.n_cells / self.at.seconds,
            "step_seconds": self.at.seconds / max(self.source.n_steps, 1),
            **peak_memory(self.device),
        }
        metrics = self.sums.means("train") | figures
        self.at.epoch += 1
        self.state.epoch, self.state.step = self.at.epoch, self.at.step
        is_last = self.at.epoch == self.config.n_epochs
        is_due = is_last or self.at.epoch % self.config.validate_every == 0
        if self.validation is not None and self.validation.n_steps and is_due:
            metrics |= self._validate()
        self.state.metrics = metrics
        self.history.rows.append({"epoch": self.at.epoch, "step": self.at.step, **metrics})
        self.history.gradients += self.stepper.norms.close_epoch(self.at.epoch)
        self.at.step_in_epoch, self.at.seconds, self.sums = 0, 0.0, EpochSums()
        self._remember()
        for callback in self.callbacks:
            callback.on_epoch_end(self.state)
        if self._must_save():
            self._save()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        for module in self.objective.modules():
            module.eval()
        sums, drawn_before = EpochSums(), RandomState.now(self.device)
        # The same times and sources at every validation, and the training's own draws untouched.
        torch.manual_seed(_VALIDATION_SEED)
        with self.stepper.averaged.applied():
            for cells in self.validation.epoch(0):
                shard = current_shard()
                with of_step(len(cells)):
                    loss = self.objective(cells.take(shard.share(len(cells))))
                row = sums_of_step(loss, shard.size(len(cells)))
                sums.add(shard.sum_(row), ["loss", *loss.parts])
                self.guard.note(loss)
            examined = {} if self.examine is None else self.examine(self.at.epoch)
        drawn_before.restore(self.device)
        metrics = sums.means("val") | {f"val_{name}": value for name, value in examined.items()}
        self._judge(metrics["val_loss"])
        return metrics

    def _judge(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._tell([self.guard.bad_validation(self.at.epoch - 1, self.at.step)])
            return
        if loss < self.history.best_val_loss:
            self.at.n_without_progress = 0
            self.best = self.stepper.averaged.average.clone()
            self.history.best_epoch, self.history.best_val_loss = self.at.epoch, loss
        else:
            self.at.n_without_progress += 1

    def _is_stuck(self) -> bool:
        return self.at.n_without_progress >= self.config.patience

    # -- what happens on the way --------------------------------------------------------------

    def _look(self) -> bool:
        """Read the guard's flags; True if the training went back to its last good state."""
        events = [self.hindsight.examined(event) for event in self.guard.read()]
        self.hindsight.remember()
        self._tell(events)
        if events:
            self.guard.know(self.history.events)
        self.guard.raise_if_hopeless()
        if not any(event.kind == "nan" for event in events):
            return False
        if self.config.nan_policy == "abort":
            self.guard.abort()
        if self.config.nan_policy == "rollback":
            self._roll_back(events[-1])
            return True
        return False

    def _roll_back(self, cause: TrainingEvent) -> None:
        n_rollbacks, factor = self.at.n_rollbacks + 1, self.at.lr_factor / 2
        if n_rollbacks > _MOST_ROLLBACKS:
            raise NonFiniteError(
                f"{self.state.stage}: went back {_MOST_ROLLBACKS} times and halved the learning "
                f"rate each time, and step {cause.step} is still not finite (first: "
                f"{cause.place}); {self.guard.where_to_look}"
            )
        assert self.last_good is not None
        history = self.history
        self._take_up(self.last_good)
        self.history.events, self.history.nan_step = history.events, history.nan_step
        self.guard.first_nan_step = history.nan_step
        self.at.n_rollbacks, self.at.lr_factor = n_rollbacks, factor
        action = f"back to step {self.at.step}, learning rate times {factor:g}"
        self._tell([self._event("rollback", cause.step, cause.place, action)])

    def _less_memory(self, n_cells: int) -> TrainingEvent:
        action = f"the {n_cells} cells of a step are computed in {self.stepper.n_parts} parts"
        return self._event("out_of_memory", self.at.step - 1, "", action)

    def _event(self, kind: str, step: int, place: str, action: str) -> TrainingEvent:
        return TrainingEvent(kind, self.state.stage, self.at.epoch, step, place, action)

    def _tell(self, events: list[TrainingEvent]) -> None:
        if not events:
            return
        self.history.events += events
        if self.guard.first_nan_step is not None:
            self.history.nan_step = self.guard.first_nan_step
        self.state.step = self.at.step
        for callback in self.callbacks:
            callback.on_events(self.state, events)

    def _rate(self) -> float:
        n_steps = max(self.source.n_steps * self.config.n_epochs, 1)
        return learning_rate(self.config, self.at.step, n_steps, self.at.lr_factor)

    # -- checkpoints --------------------------------------------------------------------------

    def _resume(self) -> None:
        found = self.checkpoints.latest(self.engine.must_resume)
        if found is not None:
            self._take_up(found)
            self.state.epoch, self.state.step = self.at.epoch, self.at.step
            self.hindsight.is_over |= any(event.black_box for event in self.history.events)
            for callback in self.callbacks:
                callback.on_resume(self.state, self.history)
        current_shard().wait()  # none may be removed before all have read it
        if current_shard().is_first:
            n_arrays = 5  # values, two moments, average, best
            self.checkpoints.expect_writable(n_arrays * self.flat.values.numel() * 4)

    def _may_stop_here(self) -> bool:
        """Return whether all processes may look at their flags, and go back: where all have."""
        return current_shard().n_ranks == 1 or self.guard.is_due(self.at.step)

    def _must_save(self) -> bool:
        return self.termination.is_asked or self.checkpoints.is_due()

    def _save(self) -> None:
        """Save where the training is, or would go back to; end it if that was asked for."""
        if current_shard().is_first:
            self.checkpoints.save(self.last_good or self._checkpoint())
        self.termination.obey(self.state.stage, self.at.step, self.checkpoints.what_next)

    def _save_the_end(self) -> None:
        """Save that the training is done: what follows may take minutes as well, and be killed.

        Whoever keeps what was trained clears the checkpoints.
        """
        try:
            self.checkpoints.save(self._checkpoint())
        except CheckpointError as error:  # the weights are here, and the one before is valid
            print(f"{self.state.stage}: {error}", file=sys.stderr)

    def _remember(self) -> None:
        """Keep the state that a rollback goes back to; a checkpoint is then of this state too.

        Otherwise a resumed training would go back to another place than one that was not stopped.
        """
        if self.config.nan_policy == "rollback":
            here = self._checkpoint()
            copies = {name: value.clone() for name, value in here.tensors.items()}
            self.last_good = replace(here, tensors=copies)

    def _checkpoint(self) -> Checkpoint:
        tensors = self.stepper.tensors() | RandomState.now(self.device).as_tensors()
        norms = self.stepper.norms.rows
        present = {"best": self.best, "sums": self.sums.total, "gradient_norms": norms}
        tensors |= {name: value for name, value in present.items() if value is not None}
        values: dict[str, Any] = {
            "step": self.at.step,
            "progress": dict(self.at.__dict__),
            "history": self.history.as_json(),
            "sums": self.sums.names,
            "n_parts": self.stepper.n_parts,
            "guard": [self.guard.first_nan_step, self.guard.n_consecutive],
        }
        return Checkpoint(tensors, values)

    def _take_up(self, found: Checkpoint) -> None:
        """Be where the training was when a checkpoint was made."""
        tensors = {
            name: value if name.startswith("random.") else value.to(self.device)
            for name, value in found.tensors.items()
        }
        values = found.values
        self.stepper.set(tensors)
        self.stepper.n_parts = max(values["n_parts"], self.stepper.n_parts)
        best, sums = tensors.get("best"), tensors.get("sums")
        self.best = None if best is None else best.clone()
        self.sums = EpochSums(values["sums"], None if sums is None else sums.clone())
        self.stepper.norms.rows = tensors.get("gradient_norms")
        self.at = _Progress(**values["progress"])
        self.history = History.from_json(values["history"])
        self.guard.first_nan_step, self.guard.n_consecutive = values["guard"]
        self.guard.know(self.history.events)
        RandomState.of_tensors(tensors).restore(self.device)
