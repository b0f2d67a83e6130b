"""A study from its plan to its results: whoever runs this owns the study's run in MLflow."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cfmvc.config import read_yaml, section_of
from cfmvc.errors import CfmvcError, Preempted, TrackingError
from cfmvc.tracking import SpoolTracker, TrackingConfig, stage_run
from cfmvc.tracking.child_runs import ChildRuns
from cfmvc.tracking.config import home_of, shareable_uri, sqlite_file
from cfmvc.tracking.database_lock import one_at_a_time
from cfmvc.tracking.resumption import SharedRun
from cfmvc.tuning.confirmation import Confirmation, confirm
from cfmvc.tuning.crew import Crew
from cfmvc.tuning.files import BEST, FOLDER, TRIALS, write_results
from cfmvc.tuning.pictures import pictures
from cfmvc.tuning.results import best_as_dict, best_text, present_trial, trials_table
from cfmvc.tuning.search import PARENT, PARENT_BEGUN, Search, best_trials, finished
from cfmvc.tuning.space import Values
from cfmvc.tuning.storage import key_of, storage_uri
from cfmvc.tuning.trainer import Trainer
from cfmvc.tuning.vae_store import VaeStore
from cfmvc.tuning.validation import outer_split_of, validation_of
from cfmvc.tuning.worker import VAE_TRAINED, Worker

_LONGEST_WAIT_FOR_THE_RUN = 30.0  # seconds
PREPARED, SPLIT = Path("data/prepared/cells.h5ad"), Path("data/prepared/split.json")


@dataclass(frozen=True)
class TuneResult:
    """What a study has found.

    Parameters
    ----------
    study
        Its name.
    best
        What ``best_params.yaml`` says.
    n_trials
        Trials by state.
    n_vae_trainings
        VAEs that were trained for them.
    changes
        Present and best value of each parameter in which they differ, by name.
    held_out
        The validation conditions in words.
    confirmations
        The objectives on the test conditions, where they were asked for.
    """

    study: str
    best: dict[str, Any]
    n_trials: dict[str, int]
    n_vae_trainings: int
    changes: dict[str, tuple[Any, Any]]
    held_out: str
    confirmations: list[Confirmation]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "study": self.study,
            "n_trials": self.n_trials,
            "n_vae_trainings": self.n_vae_trainings,
            "validation_conditions": self.held_out,
            "best": self.best,
            "test": _tested(self.confirmations),
        }


@dataclass(frozen=True)
class StudyAtHand:
    """A study, opened, and all that its trials need.

    Parameters
    ----------
    search, study, uri
        What is searched, and where that is written down.
    workspace, tracking
        Where runs are kept.
    trainer
        Trains and scores on the validation conditions.
    written
        What ``params.yaml`` said when the study was opened: somebody may edit it meanwhile.
    """

    search: Search
    study: Study
    uri: str
    workspace: Path
    tracking: TrackingConfig
    trainer: Trainer
    written: dict[str, Any]

    @classmethod
    def open(cls, workspace: Path, params: dict[str, Any]) -> "StudyAtHand":
        """Read the cells and open the study, or make it.

        Raises
        ------
        ConfigError
            If the section ``tune`` is wrong, or the study is about something else.
        DataError
            If there are no prepared cells.
        TrackingError
            If the study's database cannot be reached.
        """
        search = Search.of(params)
        tracking = section_of(params, "tracking", TrackingConfig)
        uri = storage_uri(search.config.storage, workspace)
        data = validation_of(
            workspace / PREPARED, workspace / SPLIT, params, search.config.validation_fraction
        )
        name = search.name(data)
        study = search.open(uri, name, search.fingerprint(data))
        home = home_of(workspace)
        looks = search.config.n_looks if search.is_pruned else 0
        trainer = Trainer(
            data, vae_store(workspace), search.config.n_cells, looks, home / ".cfmvc" / "nan"
        )
        file = workspace / "params.yaml"
        written = read_yaml(file) if file.is_file() else params
        return cls(search, study, uri, workspace, tracking, trainer, written)

    def worker(self, deadline: float | None, say: Callable[[str], None]) -> Worker:
        """Return a worker of this process."""
        return Worker(
            self.search,
            self.study,
            self.uri,
            self.trainer,
            ChildRuns(str(self.study.user_attrs[PARENT]), self.workspace, self.tracking),
            deadline,
            say,
        )


def vae_store(workspace: Path) -> VaeStore:
    """Return where a project keeps the VAEs of its trials."""
    return VaeStore(home_of(workspace) / ".cfmvc" / "tune" / "vae")


def tune(
    workspace: Path,
    params: dict[str, Any],
    n_workers: int = 1,
    with_test: bool = True,
    say: Callable[[str], None] = lambda words: None,
) -> TuneResult:
    """Carry out a study, or what is left of it, and write its results.

    Parameters
    ----------
    workspace
        The project's folder, with prepared cells.
    params
        All parameters.
    n_workers
        Processes that work on it here.
    with_test
        Whether the best parameters and the present ones are compared on the test conditions.
    say
        Told what happens.

    Raises
    ------
    CfmvcError
        If no trial was completed, or too many have failed in a row; what was found is written.
    """
    at_hand = StudyAtHand.open(workspace, params)
    search, study, name = at_hand.search, at_hand.study, at_hand.study.study_name
    where = shareable_uri(at_hand.uri, workspace)
    say(f"study '{name}' in {where}; trials are scored on: {at_hand.trainer.data.held_out}")
    deadline = None if search.config.timeout is None else time.monotonic() + search.config.timeout
    confirmations: list[Confirmation] = []
    with _owned(at_hand) as tracker:
        with _published_at_the_worst(at_hand, tracker, say):
            if n_workers > 1:
                Crew(n_workers, workspace, params, name, deadline).work()
            else:
                at_hand.worker(deadline, say).work()
        front = best_trials(study)  # once: other machines may go on
        best = _best(at_hand, front)
        if tracker is not None:
            _publish(at_hand, tracker, front)
        if best is None:
            raise CfmvcError(f"study '{name}': no trial was completed{_last_reason(at_hand)}")
        if tracker is None:
            say(f"study '{name}': another process here owns it, and writes the results")
        elif with_test:
            confirmations = _confirmed(at_hand, params, front[0].params, tracker, say)
            tested = best_text({**best, "test": _tested(confirmations)})
            write_results(workspace, tested)
            tracker.log_text(tested, BEST.name)
    return TuneResult(
        name,
        best,
        _by_state(study),
        _n_vaes(study),
        search.space.changes(front[0].params),
        at_hand.trainer.data.held_out,
        confirmations,
    )


@contextmanager
def _owned(at_hand: StudyAtHand) -> Iterator[SpoolTracker | None]:
    """Open the study's run; None if another process of this project has it open."""
    study, workspace = at_hand.study, at_hand.workspace
    lock = home_of(workspace) / ".cfmvc" / "tune" / f"{study.study_name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(lock).acquire(timeout=0))
        except Timeout:
            yield None
            return
        with _first_alone(at_hand) as is_new:
            shared = SharedRun(str(study.user_attrs[PARENT]), is_new)
            tags = {"cfmvc.study": study.study_name}
            tracker = stack.enter_context(
                stage_run("tune", workspace, at_hand.tracking, tags, resumption=shared)
            )
            if not is_new or sqlite_file(at_hand.uri) is not None:
                study.set_user_attr(PARENT_BEGUN, True)
            else:
                with suppress(TrackingError):  # it is recorded, and sent when the store is there
                    tracker.wait_for_run(_LONGEST_WAIT_FOR_THE_RUN)
                    study.set_user_attr(PARENT_BEGUN, True)
        if is_new:
            tracker.log_params(_flat(at_hand.search))
        yield tracker


@contextmanager
def _first_alone(at_hand: StudyAtHand) -> Iterator[bool]:
    """Return whether the study's run has still to be made; two machines do not make it at once."""
    if sqlite_file(at_hand.uri) is not None:
        yield PARENT_BEGUN not in at_hand.study.user_attrs
        return
    with one_at_a_time(at_hand.uri, key_of(f"run of {at_hand.study.study_name}")):
        yield PARENT_BEGUN not in at_hand.study.user_attrs


@contextmanager
def _published_at_the_worst(
    at_hand: StudyAtHand, tracker: SpoolTracker | None, say: Callable[[str], None]
) -> Iterator[None]:
    """Write the results also where an error ends the study; it is this error that goes on.

    Whoever is asked to stop has no time for that, and the study goes on later.
    """
    try:
        yield
    except Preempted:
        raise
    except CfmvcError:
        if tracker is not None:
            name = at_hand.study.study_name
            try:
                _publish(at_hand, tracker, best_trials(at_hand.study))
                say(f"study '{name}': {FOLDER} holds what it has found")
            except Exception as error:
                say(f"study '{name}': its results could not be written: {error}")
        raise


def _best(at_hand: StudyAtHand, front: list[FrozenTrial]) -> dict[str, Any] | None:
    return best_as_dict(at_hand.study, at_hand.search, front, at_hand.written)


def _publish(at_hand: StudyAtHand, tracker: SpoolTracker, front: list[FrozenTrial]) -> None:
    """Write the results as files, and log them with the pictures."""
    study, search = at_hand.study, at_hand.search
    text = best_text(_best(at_hand, front))
    table = trials_table(study, search).to_csv(index=False)
    write_results(at_hand.workspace, text, table)
    tracker.log_text(text, BEST.name)
    tracker.log_text(table, TRIALS.name)
    for name, figure in pictures(study, search.objectives).items():
        tracker.log_figure(figure, f"pictures/{name}")
    figures = {f"n_{state}": float(n) for state, n in _by_state(study).items()}
    figures["n_vae_trainings"] = float(_n_vaes(study))
    first = present_trial(study)
    for number, objective in enumerate(search.objectives):
        if front:
            figures[f"best/{objective.name}"] = front[0].values[number]
        if first is not None:
            figures[f"present/{objective.name}"] = first.values[number]
    tracker.log_metrics(figures, step=len(finished(study)))


def _confirmed(
    at_hand: StudyAtHand,
    params: dict[str, Any],
    best: Values,
    tracker: SpoolTracker,
    say: Callable[[str], None],
) -> list[Confirmation]:
    """Compare on the test conditions; with the present parameters as the best there is nothing."""
    workspace = at_hand.workspace
    data = outer_split_of(workspace / PREPARED, workspace / SPLIT)
    trainer = Trainer(data, vae_store(workspace))
    n_trials = len(finished(at_hand.study))
    return confirm(trainer, params, best, at_hand.search.objectives, tracker, say, n_trials)


def _tested(confirmations: list[Confirmation]) -> dict[str, Any]:
    return {found.objective.label: found.as_json() for found in confirmations}


def _by_state(study: Study) -> dict[str, int]:
    return {
        state.name.lower(): len(finished(study, state))
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    }


def _n_vaes(study: Study) -> int:
    return sum(bool(trial.user_attrs.get(VAE_TRAINED)) for trial in study.get_trials(False))


def _last_reason(at_hand: StudyAtHand) -> str:
    reasons = list(trials_table(at_hand.study, at_hand.search).get("reason", ()))
    return f"; the last one: {reasons[-1]}" if reasons else ""


def _flat(search: Search) -> dict[str, Any]:
    chosen = search.config.model_dump(exclude={"space", "warm_start", "storage"})
    searched = {f"space.{name}": entry for name, entry in search.space.as_json().items()}
    return {f"tune.{name}": value for name, value in (chosen | searched).items()}
