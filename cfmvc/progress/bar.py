"""What both progress bars have in common."""

import sys
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


class Bar:
    """A bar on a terminal's standard error; a context manager."""

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
