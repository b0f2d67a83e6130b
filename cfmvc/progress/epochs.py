"""Progress of a training."""

from rich.progress import TextColumn

from cfmvc.progress.bar import Bar
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.events import TrainingEvent
from cfmvc.training.memory import ExpectedMemory


class ProgressBar(Bar, NoCallback):
    """Watches a training: epoch, losses and the time that remains."""

    def __init__(self) -> None:
        super().__init__()
        self._unsaid = ""

    def on_memory(self, expected: ExpectedMemory) -> None:
        """Say how much memory is expected, and whether it is there."""
        self._line(expected.line())

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


def _losses(state: TrainingState) -> str:
    names = [name for name in ("train_loss", "val_loss") if name in state.metrics]
    return ", ".join(f"{name} {state.metrics[name]:.4g}" for name in names)
