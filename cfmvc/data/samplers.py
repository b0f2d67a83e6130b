"""The order in which cells are visited: a permutation an epoch, determined by seed and epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShuffledCells:
    """All cells once an epoch, ``cells_per_step`` at a time.

    The order depends on seed and epoch alone, so that a resumed run continues as it would have.
    """

    n_cells: int
    cells_per_step: int
    seed: int

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return -(-self.n_cells // self.cells_per_step)

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step of an epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.n_cells)
        for start in range(0, self.n_cells, self.cells_per_step):
            yield order[start : start + self.cells_per_step]
