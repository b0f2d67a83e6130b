"""The last callback of a training: it forwards what the state says to a tracker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfmvc.progress.epochs import ProgressBar
from cfmvc.shards import current_shard
from cfmvc.tracking.tracker import Tracker
from cfmvc.training.callbacks import Callback, TrainingState
from cfmvc.training.events import TrainingEvent
from cfmvc.training.history import History
from cfmvc.training.memory import ExpectedMemory

BLACK_BOXES = "nan_black_box"  # folder of a run's artifacts


class TrackingCallback:
    """Forwards metrics and events.

    Parameters
    ----------
    tracker
        Where they go.
    prefix
        Before each metric's name, where one run holds several trainings (``vae_``).
    """

    def __init__(self, tracker: Tracker, prefix: str = "") -> None:
        self._tracker = tracker
        self._prefix = prefix

    def on_memory(self, expected: ExpectedMemory) -> None:
        """Record what is expected, beside the first of what will be measured."""
        name = f"{self._prefix}estimated_peak_memory_gib"
        self._tracker.log_metrics({name: expected.peak_gib}, step=0)

    def on_resume(self, state: TrainingState, history: History) -> None:
        """Record all that was before: of what a run has already, nothing is sent again."""
        self._log_events(history.events)
        for row in history.rows:
            metrics = {name: value for name, value in row.items() if name != "step"}
            self._log_metrics(metrics, int(row["step"]))

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        """Record what was vetoed or suspiciously large, at the step where it happened."""
        self._log_events(events)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Record the epoch's figures at its last optimiser step."""
        self._log_metrics({"epoch": float(state.epoch), **state.metrics}, state.step)

    def _log_metrics(self, metrics: dict[str, float], step: int) -> None:
        named = {self._prefix + name: value for name, value in metrics.items()}
        self._tracker.log_metrics(named, step)

    def _log_events(self, events: list[TrainingEvent]) -> None:
        for event in events:
            self._tracker.log_event(self._prefix + event.kind, event.as_json(), event.step)
            if event.black_box is not None and Path(event.black_box).exists():
                self._tracker.log_artifact(Path(event.black_box), BLACK_BOXES)


@contextmanager
def watchers(tracker: Tracker, prefix: str = "") -> Iterator[list[Callback]]:
    """Yield who watches a training: a progress bar, and last what forwards to the tracker."""
    if not current_shard().is_first:
        yield []
        return
    with ProgressBar() as bar:
        yield [bar, TrackingCallback(tracker, prefix)]
