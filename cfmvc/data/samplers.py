"""The order in which cells are visited: all once an epoch, determined by seed and epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

# What is close together in the file comes into one window together, or else not: blocks are large
# enough to be read at speed, and a window holds enough of them that its cells are a fair mixture.
ROWS_PER_BLOCK = 512
ROWS_PER_WINDOW = 32 * ROWS_PER_BLOCK


@dataclass(frozen=True)
class ShuffledCells:
    """All cells once an epoch, ``cells_per_step`` at a time, in an order that is new each epoch.

    The order depends on seed and epoch alone, so that a resumed run continues as it would have.
    """

    n_cells: int
    cells_per_step: int
    seed: int

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return -(-self.n_cells // self.cells_per_step)

    def windows(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of an epoch in the order of its steps, as many as are held at a time.

        All but the last are whole steps.
        """
        yield np.random.default_rng((self.seed, epoch)).permutation(self.n_cells)

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step of an epoch."""
        return chain.from_iterable(map(self.steps, self.windows(epoch)))

    def steps(self, window: np.ndarray) -> Iterator[np.ndarray]:
        """Cut a window into steps."""
        for start in range(0, len(window), self.cells_per_step):
            yield window[start : start + self.cells_per_step]


@dataclass(frozen=True)
class ShuffledBlocks(ShuffledCells):
    """The same for cells on disk: blocks of neighbours are shuffled, then cells within a window."""

    def windows(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of an epoch, a window of shuffled blocks at a time."""
        rng = np.random.default_rng((self.seed, epoch))
        starts = rng.permutation(np.arange(0, self.n_cells, ROWS_PER_BLOCK))
        blocks = [np.arange(s, min(s + ROWS_PER_BLOCK, self.n_cells)) for s in starts.tolist()]
        rows = np.concatenate([np.zeros(0, np.int64), *blocks])
        size = max(ROWS_PER_WINDOW // self.cells_per_step, 1) * self.cells_per_step
        for start in range(0, self.n_cells, size):
            yield rng.permutation(rows[start : start + size])
