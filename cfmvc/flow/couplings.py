"""Which source belongs to which target: minibatch optimal transport, exact and independent."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment


class Points(Protocol):
    """Points, ``(n, D)``: an array, or what gathers some of them when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return some of them."""


BLOCK = 256  # targets that are assigned at once

Coupling = Callable[[Points, Points, np.random.Generator], np.ndarray]


def optimal_transport(
    source: Points, target: Points, rng: np.random.Generator, block: int = BLOCK
) -> np.ndarray:
    """Pair each target with a source, of least total squared distance in blocks.

    Sources are drawn without replacement while they last (each is used about equally often), and
    every block of ``block`` targets is assigned exactly (minibatch optimal transport, Tong et al.
    2024, arXiv:2302.00482).

    Parameters
    ----------
    source, target
        Points, ``(n, D)`` and ``(m, D)``; both at least one.
    rng
        Draws the sources and the blocks.
    block
        Size of an assignment problem; the cost is cubic in it.

    Returns
    -------
    numpy.ndarray
        Row of ``source`` for each target, ``(m,)`` int64.
    """
    drawn = independent(source, target, rng)
    order = rng.permutation(len(target))
    paired = np.empty(len(target), dtype=np.int64)
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        from_source, to_target = linear_sum_assignment(_cost(source[drawn[rows]], target[rows]))
        paired[rows[to_target]] = drawn[rows[from_source]]
    return paired


def _cost(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return squared distances ``(n, n)``, less what is the same in every assignment.

    These are the squares of both sides, and of each row and each column what is least in it: the
    assignment begins there (Jonker and Volgenant 1987), and has less to search.
    """
    centre = source.mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # what is infinite is refused by the assignment
        cost = -2.0 * ((source - centre) @ (target - centre).T)
        cost -= cost.min(axis=1, keepdims=True)
        cost -= cost.min(axis=0)
    return cost


def independent(source: Points, target: Points, rng: np.random.Generator) -> np.ndarray:
    """Pair each target with a source drawn at random, each used about equally often."""
    rounds = -(-len(target) // len(source))
    drawn = np.concatenate([rng.permutation(len(source)) for _ in range(rounds)])
    return drawn[: len(target)].astype(np.int64)


COUPLINGS: dict[str, Coupling] = {"ot": optimal_transport, "independent": independent}
