"""A progress bar for whoever watches a terminal; lines of plain text elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.nan_guard import NanEvent


class ProgressBar(NoCallback):
    """Shows epoch, losses and the time that remains, on standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._progress: Progress | None = None
        self._last_line = 0

    def on_events(self, state: TrainingState, events: list[NanEvent]) -> None:
        """Say that something was vetoed."""
        for event in events:
            if event.kind == "nan":
                self._console.print(
                    f"{event.stage}: step {event.step} was not finite (first: {event.place}); "
                    f"{event.action}"
                )

    def on_epoch_end(self, state: TrainingState) -> None:
        """Advance."""
        if not self._console.is_terminal:
            self._line(state)
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} epochs"),
                TextColumn("{task.fields[losses]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task(state.stage, total=state.n_epochs, losses="")
            self._progress.start()
        self._progress.update(self._task, completed=state.epoch, losses=_losses(state))
        if state.epoch == state.n_epochs:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _line(self, state: TrainingState) -> None:
        """Print about ten lines a stage."""
        tenth = 10 * state.epoch // max(state.n_epochs, 1)
        if tenth > self._last_line or state.epoch == state.n_epochs:
            self._last_line = tenth
            self._console.print(
                f"{state.stage}: epoch {state.epoch}/{state.n_epochs}, {_losses(state)}",
                highlight=False,
            )


def _losses(state: TrainingState) -> str:
    names = [name for name in ("train_loss", "val_loss") if name in state.metrics]
    return ", ".join(f"{name} {state.metrics[name]:.4g}" for name in names)
