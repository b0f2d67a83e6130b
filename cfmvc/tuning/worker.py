"""A worker: it claims one trial after the other, carries it out, and says what came of it."""

import math
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from cfmvc.errors import CfmvcError, NonFiniteError, Preempted, StoppedEarly
from cfmvc.tracking import SpoolTracker
from cfmvc.tracking.child_runs import ChildRuns
from cfmvc.tracking.database_lock import one_at_a_time
from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.run import Terminated
from cfmvc.training.step import is_out_of_memory
from cfmvc.training.termination import asked_to_stop
from cfmvc.tuning.objectives import Objective
from cfmvc.tuning.search import Search, best_trials, is_retry, retry
from cfmvc.tuning.space import Values, merged
from cfmvc.tuning.storage import key_of
from cfmvc.tuning.trainer import Outcome, Trainer
from cfmvc.tuning.vae_store import StoredVae

# Attributes of a trial; each is a transaction of the database, so that they are few.
CLAIM, REASON, VAE_TRAINED, FACTS = "claim", "reason", "vae_trained", "facts"
_POLL_SECONDS = 1.0


class TrialFailed(Exception):  # noqa: N818 - the study goes on
    """A trial did not end well; its reason is written down."""


@dataclass
class Worker:
    """Works on a study until its trials are done.

    Parameters
    ----------
    search, study, uri
        What is searched, and where that is written down.
    trainer
        Trains and scores.
    runs
        Of the trials.
    deadline
        Moment of the monotonic clock after which no trial is begun; None: never.
    say
        Told each trial's end.
    """

    search: Search
    study: Study
    uri: str
    trainer: Trainer
    runs: ChildRuns
    deadline: float | None = None
    say: Callable[[str], None] = lambda words: None
    _stopped_by: BaseException | None = field(default=None, init=False)
    _failures: list[str] = field(default_factory=list, init=False)  # in a row, of this worker

    def work(self) -> None:
        """Carry out trials until none is left, for this worker or another one.

        Raises
        ------
        CfmvcError
            If too many trials in a row have failed.
        """
        try:
            while not self._is_late() and self._has_done_something():
                pass
        finally:
            self.runs.settle()

    def _has_done_something(self) -> bool:
        """Carry out a trial, or wait for those of others; False if there is nothing to do."""
        with ExitStack() as claim:
            claim.enter_context(one_at_a_time(self.uri, key_of(self.study.study_name)))
            trials = self.study.get_trials(deepcopy=False)
            if self._may_begin(trials):
                self._one_trial(claim)
                return True
            if all(trial.state != TrialState.RUNNING for trial in trials):
                return False
            self._bury_the_dead()
        time.sleep(_POLL_SECONDS)  # the worker of a trial may die, and it be ours to repeat
        return True

    def _is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _may_begin(self, trials: list[FrozenTrial]) -> bool:
        n_asked = sum(not is_retry(trial) for trial in trials)
        is_waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return is_waiting or n_asked < self.search.config.n_trials

    def _bury_the_dead(self) -> None:
        """Fail the trials of dead workers, which queues them once more."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        # Killed between its claim and its first sign of life, a worker leaves no name: claims are
        # made one at a time, so whoever has no name while we claim is dead. Asked anew: without a
        # name there may be a sign of life, and that trial has just failed.
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if CLAIM not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
                retry(self.study, self._trial(trial.number))

    def _one_trial(self, claim: ExitStack) -> None:
        numbers: list[int] = []

        def objective(trial: Trial) -> float | list[float]:
            numbers.append(trial.number)
            run_uid = uuid.uuid4().hex
            worker = str(ProcessIdentity.own())
            trial.set_user_attr(CLAIM, {"worker": worker, "run_uid": run_uid})
            claim.close()
            return self._carried_out(trial, run_uid)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.study.optimize(objective, n_trials=1, catch=(TrialFailed,))
        except KeyboardInterrupt as stop:
            # Without a number it came while Optuna drew: who is next buries what that has left.
            if numbers and self._trial(numbers[0]).state == TrialState.FAIL:
                retry(self.study, self._trial(numbers[0]))
            raise (self._stopped_by or stop) from None
        except (UpdateFinishedTrialError, ValueError):
            if self._stopped_by is not None:
                raise self._stopped_by from None
            if not numbers or not self._trial(numbers[0]).state.is_finished():
                raise
            # Without a sign of life for long (a suspended machine, a database that was away).
            self.say(f"trial {numbers[0]}: was taken for dead, and is carried out once more")
            return
        trial = self._trial(numbers[0])
        self._tell(trial)
        self._expect_hope(trial)

    def _carried_out(self, trial: Trial, run_uid: str) -> float | list[float]:
        """Train and score in a run of its own; a trial that fails does not end the study."""
        tags = {"cfmvc.study": self.study.study_name, "cfmvc.trial": str(trial.number)}
        tags["cfmvc.trial_state"] = "RUNNING"
        try:
            values = self.search.space.suggest(trial)
            with self.runs.open(f"trial {trial.number}", run_uid, tags) as tracker:
                tracker.log_params(values)
                return self._told_to_mlflow(trial, values, tracker)
        except StoppedEarly as stop:
            _note(trial, str(stop))
            self._expect_no_stop(stop)
            raise optuna.TrialPruned(str(stop)) from stop
        except (KeyboardInterrupt, Terminated, Preempted) as stop:
            self._stopped_by = stop
            _note(trial, "interrupted, and tried once more")
            raise KeyboardInterrupt from stop  # the only one that Optuna writes down
        except Exception as error:
            _note(trial, _reason(error))
            self._expect_no_stop(error)
            raise TrialFailed(_reason(error)) from error

    def _expect_no_stop(self, error: Exception) -> None:
        """End the work if a signal came with an error: the next trial is not to begin."""
        if (number := asked_to_stop(error)) is not None:
            self._stopped_by = Preempted(f"{number.name}, and {_reason(error)}", number)
            raise KeyboardInterrupt from error

    def _told_to_mlflow(
        self, trial: Trial, values: Values, tracker: SpoolTracker
    ) -> float | list[float]:
        try:
            found = self._outcome(trial, values, tracker)
            told = [self._value(objective, found) for objective in self.search.objectives]
        except StoppedEarly as stop:
            tracker.set_tags({"cfmvc.trial_state": "PRUNED", "cfmvc.reason": str(stop)})
            raise
        except BaseException as error:
            tracker.set_tags({"cfmvc.trial_state": "FAIL", "cfmvc.reason": _reason(error)})
            raise
        trial.set_user_attr(FACTS, {"figures": found.figures, "vae": found.vae_key[:16]})
        tracker.log_metrics({f"validation/{k}": v for k, v in found.figures.items()}, step=0)
        tracker.log_metrics({"nan_steps": found.nan_steps}, step=0)
        tracker.set_tags({"cfmvc.trial_state": "COMPLETE"})
        return told[0] if len(told) == 1 else told

    @staticmethod
    def _value(objective: Objective, found: Outcome) -> float:
        value = objective.value(found.figures)
        if not math.isfinite(value):  # Optuna would call the trial failed, and nobody say why
            raise CfmvcError(
                f"'{objective.label}' is not defined on the validation conditions; take another "
                "objective, or hold out more (tune.validation_fraction)"
            )
        return value

    def _outcome(self, trial: Trial, values: Values, tracker: SpoolTracker) -> Outcome:
        def report(number: int, figures: Mapping[str, float]) -> None:
            tracker.log_metrics({f"look/{name}": v for name, v in figures.items()}, step=number)
            if not self.search.is_pruned:
                return
            trial.report(self.search.objectives[0].value(figures), number)
            if trial.should_prune():
                raise StoppedEarly(f"pruned at look {number}: others were better there")

        def on_vae(vae: StoredVae) -> None:
            if vae.was_trained:
                trial.set_user_attr(VAE_TRAINED, True)
            tracker.set_tags({"cfmvc.vae": vae.key[:16]})
            tracker.log_metrics({"vae_trained": float(vae.was_trained)}, step=0)

        try:
            return self.trainer.run(merged(self.search.params, values), tracker, report, on_vae)
        except NonFiniteError as error:
            raise StoppedEarly(f"not finite: {error}") from error

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _expect_hope(self, trial: FrozenTrial) -> None:
        """End the work if trial after trial fails; what failed before we began does not count."""
        if trial.state != TrialState.FAIL:
            self._failures.clear()
            return
        self._failures.append(str(trial.user_attrs.get(REASON)))
        if len(self._failures) >= self.search.config.max_failures_in_a_row:
            raise CfmvcError(
                f"study '{self.study.study_name}': {len(self._failures)} trials in a row have "
                "failed (tune.max_failures_in_a_row); the last one: " + self._failures[-1]
            )

    def _tell(self, trial: FrozenTrial) -> None:
        number = trial.number
        seconds = "" if trial.duration is None else f", {trial.duration.total_seconds():.1f} s"
        if trial.state != TrialState.COMPLETE:
            reason = trial.user_attrs.get(REASON, "")
            self.say(f"trial {number}: {trial.state.name.lower()}{seconds}: {reason}")
            return
        pairs = zip(self.search.objectives, trial.values, strict=True)
        values = ", ".join(f"{objective.label} {value:.4g}" for objective, value in pairs)
        best = best_trials(self.study)[0]
        word = "the best so far" if best.number == number else f"best: trial {best.number}"
        self.say(f"trial {number}: {values}{seconds} ({word})")


def _note(trial: Trial, reason: str) -> None:
    """Write down why a trial has ended so, unless others have ended it already."""
    with suppress(UpdateFinishedTrialError):
        trial.set_user_attr(REASON, reason)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    name = "" if isinstance(error, CfmvcError) else f"{type(error).__name__}: "
    if is_out_of_memory(error) or isinstance(error, MemoryError):
        name = "out of memory: "
    return f"{name}{text}"[:1000]
