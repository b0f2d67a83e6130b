"""Progress of a generation."""

from typing import Self

from rich.progress import TextColumn

from cfmvc.progress.bar import Bar


class CellProgress(Bar):
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
