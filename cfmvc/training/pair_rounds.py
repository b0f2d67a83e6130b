"""Who is paired with whom, round after round; a thread makes what is needed next."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat

import numpy as np

from cfmvc.data.ahead import made_ahead
from cfmvc.data.samplers import ShuffledCells
from cfmvc.training.pairs import CellPairs


class PairRounds:
    """Controls of the cells of a step; a round is begun with its first pairs, and not with all.

    Parameters
    ----------
    pairs
        Makes them.
    order
        In which the cells are visited: those of a round's first epoch are paired in that order.
    recouple_every
        Epochs that a round serves.
    n_epochs
        Of the training, if that is known; 0 otherwise, and nothing is made for later rounds.
    """

    def __init__(
        self, pairs: CellPairs, order: ShuffledCells, recouple_every: int, n_epochs: int
    ) -> None:
        self._pairs, self._order = pairs, order
        self._every, self._n_rounds = recouple_every, -(-n_epochs // recouple_every)
        self._round, self._end = -1, 0
        self._controls, self._n_missing = np.zeros(0, dtype=np.int64), 0
        self._coming: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())

    def controls(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the control's row for each of some places in ``pairs.rows``, in an epoch."""
        self._go_to(epoch // self._every)
        found = self._controls[places]
        while self._n_missing and (found < 0).any():
            there, controls = next(self._coming)
            self._controls[there] = controls
            self._n_missing -= len(there)
            found = self._controls[places]
        return found

    def _go_to(self, number: int) -> None:
        if number == self._round:
            return
        if number != self._round + 1 or self._n_missing or number >= self._end:
            self._end = max(self._n_rounds, number + 1)
            self._coming = self._made(range(number, self._end))
        self._round, self._n_missing = number, self._order.n_cells
        self._controls = np.full(self._n_missing, -1, dtype=np.int64)

    def _made(self, rounds: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # Not `self`, which holds what is returned here: nothing would let go of the cells.
        pairs, order, every = self._pairs, self._order, self._every
        parts = chain.from_iterable(
            pairs.of_round(number, np.concatenate(list(order.windows(number * every))))
            for number in rounds
        )
        n = pairs.n_parts_of_round
        return made_ahead(repeat(partial(next, parts), len(rounds) * n), n_ahead=n)
