"""What is wrong with stored counts, gathered block by block: a file need not fit in memory."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

# float32, in which the model computes, holds every whole number up to here
LARGEST_COUNT = 2**24


@dataclass
class Found:
    """Bad entries of one kind.

    Parameters
    ----------
    n_cells, n_values
        How many cells have some, and how many there are.
    first
        Cell, gene and value of the first one.
    """

    n_cells: int = 0
    n_values: int = 0
    first: tuple[int, int, float] | None = None

    def note(self, block: csr_matrix, start: int, is_bad: np.ndarray) -> None:
        """Take note of a block's bad entries; ``start`` is the number of its first cell."""
        bad = np.flatnonzero(is_bad)
        if not len(bad):
            return
        cells = np.searchsorted(block.indptr, bad, side="right") - 1
        self.n_cells += len(np.unique(cells))
        self.n_values += len(bad)
        if self.first is None:
            self.first = (start + int(cells[0]), int(block.indices[bad[0]]), block.data[bad[0]])


class CountTally:
    """What the checks need to know of a matrix of counts.

    Parameters
    ----------
    n_genes
        Its width.
    """

    def __init__(self, n_genes: int) -> None:
        kinds = ("nan", "infinite", "negative", "fraction", "huge")
        self.found = {kind: Found() for kind in kinds}
        self.n_cells = self.n_values = 0
        self.empty_cells: list[int] = []
        self.is_seen = np.zeros(n_genes, dtype=bool)
        self.largest = 0.0

    def add(self, block: csr_matrix) -> None:
        """Tally the next rows."""
        data, start = block.data, self.n_cells
        is_nan, is_infinite = np.isnan(data), np.isinf(data)
        is_finite = ~(is_nan | is_infinite)
        finite = np.where(is_finite, data, 0)
        for kind, is_bad in (
            ("nan", is_nan),
            ("infinite", is_infinite),
            ("negative", is_finite & (data < 0)),
            ("fraction", is_finite & (np.floor(finite) != finite)),
            ("huge", is_finite & (data > LARGEST_COUNT)),
        ):
            self.found[kind].note(block, start, is_bad)
        is_there = data != 0
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        filled = np.bincount(rows[is_there], minlength=block.shape[0]) > 0
        self.empty_cells += (start + np.flatnonzero(~filled)).tolist()
        self.is_seen[block.indices[is_there]] = True
        self.largest = max(self.largest, float(data.max(initial=0)))
        self.n_cells += block.shape[0]
        self.n_values += len(data)
