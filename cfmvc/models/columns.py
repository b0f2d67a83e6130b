"""Columns of numbers that grow by some rows at a time."""

from collections.abc import Sequence

import torch


class Columns:
    """Rows of several tensors, one below the other.

    They are copied into arrays of their own. If the pieces were kept, they would lie strewn over
    the heap between larger blocks that come and go, and these would find no place there again:
    with a million cells that costs gigabytes.

    Parameters
    ----------
    n_rows
        How many are expected; more are possible.
    """

    def __init__(self, n_rows: int = 0) -> None:
        self._expected, self._n = n_rows, 0
        self._columns: list[torch.Tensor] = []

    def add(self, rows: Sequence[torch.Tensor]) -> None:
        """Copy further rows: one tensor a column, ``(n, ...)`` each."""
        n = self._n + len(rows[0])
        if not self._columns:
            self._columns = [_empty(like, max(n, self._expected)) for like in rows]
        elif n > len(self._columns[0]):
            for number, column in enumerate(self._columns):
                self._columns[number] = _empty(column, 2 * n)
                self._columns[number][: self._n] = column[: self._n]
        for column, some in zip(self._columns, rows, strict=True):
            column[self._n : n] = some
        self._n = n

    def whole(self) -> list[torch.Tensor]:
        """Return the columns, ``(n_rows, ...)`` each."""
        n = self._n
        return [column if len(column) == n else column[:n].clone() for column in self._columns]


def _empty(like: torch.Tensor, n: int) -> torch.Tensor:
    return like.new_empty((n, *like.shape[1:]))
