"""Progress bars for whoever watches a terminal; lines of plain text elsewhere.

Each is a context manager: whatever ends the work, the bar is stopped and the cursor is back.
"""

import sys
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.events import TrainingEvent


class _Bar:
    """What both have in common, on standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, emoji=False)
        self._progress: Progress | None = None
        self._last_tenth = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show(self, label: str, total: int | None, *columns: ProgressColumn, **fields: Any) -> None:
        """Start the bar, if it is not there yet."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                *columns,
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task(label, total=total, **fields)
            self._progress.start()

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _is_new_tenth(self, done: int, total: int) -> bool:
        """Return whether it is time for one of about ten lines."""
        tenth = 10 * done // max(total, 1)
        is_new = tenth > self._last_tenth
        self._last_tenth = max(tenth, self._last_tenth)
        return is_new


class ProgressBar(_Bar, NoCallback):
    """Watches a training: epoch, losses and the time that remains."""

    def __init__(self) -> None:
        super().__init__()
        self._unsaid = ""

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        """Say that something was vetoed."""
        for event in events:
            if event.kind == "nan":
                self._line(
                    f"{event.stage}: step {event.step} was not finite (first: {event.place}); "
                    f"{event.action}"
                )

    def on_epoch_end(self, state: TrainingState) -> None:
        """Advance."""
        losses = _losses(state)
        if self._console.is_terminal:
            epochs, shown = "{task.completed}/{task.total} epochs", "{task.fields[losses]}"
            columns = (TextColumn(epochs), TextColumn(shown))
            self._show(state.stage, state.n_epochs, *columns, losses="")
            assert self._progress is not None
            self._progress.update(self._task, completed=state.epoch, losses=losses)
            return
        self._unsaid = f"{state.stage}: epoch {state.epoch}/{state.n_epochs}, {losses}"
        if self._is_new_tenth(state.epoch, state.n_epochs):
            self._say()

    def close(self) -> None:
        """Leave the bar as it is, and say which epoch was the last."""
        super().close()
        self._say()

    def _say(self) -> None:
        if self._unsaid:
            self._line(self._unsaid)
            self._unsaid = ""


class CellProgress(_Bar):
    """Counts cells that are generated; call it with those done, and all.

    Parameters
    ----------
    label
        What is done to them.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._has_spoken = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:  # the first cells may take a while, so it moves from now on
            self._show(self._label, None, TextColumn("{task.fields[cells]}"), cells="")
        return self

    def __call__(self, done: int, total: int) -> None:
        """Advance; what is done at once needs no line of text."""
        if self._progress is not None:
            cells = f"{done:,}/{total:,} cells"
            self._progress.update(self._task, completed=done, total=total, cells=cells)
        elif self._is_new_tenth(done, total) and (done < total or self._has_spoken):
            self._has_spoken = True
            self._line(f"{self._label}: {done:,}/{total:,} cells")


def _losses(state: TrainingState) -> str:
    names = [name for name in ("train_loss", "val_loss") if name in state.metrics]
    return ", ".join(f"{name} {state.metrics[name]:.4g}" for name in names)
