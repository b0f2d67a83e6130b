r"""How a perturbation's shift changes with the state of the cells, learnt within conditions.

Between conditions a shift hangs on the state of a handful of cell types. Within them thousands of
cells differ in the same directions: of perturbed cells that are paired with controls of their
stratum, the change is regressed on the control's state,

.. math:: y_i - \bar y = (s_i - \bar s) B_p + \varepsilon_i,

and a cell type of which no perturbed cell was seen is expected to shift by :math:`(s - s_0) B_p`
more than the average one. The cells of a pair are alike, but not one cell, so that the change falls
with whatever happens to be high in the first (regression to the mean). Pairs of two controls show
how far, and that is no response. What is left is shrunk twice: all slopes by ridge regression, and
those of each gene by how much of their size is expected by chance (the positive part of James and
Stein 1961).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from scipy.sparse import csr_matrix

from cfmvc.flow.condition_kernels import StateBasis
from cfmvc.flow.doses import DoseCurves

# Both were chosen on Kang and simulated cells, with cell types held out.
_FEWEST = 2  # pairs a state, beside which nothing is known of a slope
_PRIOR_CELLS = 500.0  # as if so many cells had been seen of which the state says nothing
_SHRINKAGE = 2.0  # of what is expected by chance; pairs share cells, and 1 would be for independent


@dataclass(frozen=True)
class PairGroup:
    """Pairs of cells of one stratum.

    Parameters
    ----------
    p
        Perturbation vector of the second cells, ``(K,)``; 0 where both are controls.
    before, after
        Rows of the first cells, which are controls, and of the second ones, ``(n,)``.
    """

    p: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class PairedCells:
    """Cells, and pairs of them.

    Parameters
    ----------
    expression
        Log-normalised, ``(n_cells, G)``.
    groups
        Rows of ``expression``.
    """

    expression: csr_matrix
    groups: Sequence[PairGroup]


@dataclass(frozen=True)
class ChangeSums:
    """Sums over pairs of cells, each centred within its group.

    Parameters
    ----------
    n
        Degrees of freedom.
    state
        Products of states, ``(S, S)``.
    both
        Products of states and changes, ``(S, G)``.
    square
        Squared changes, ``(G,)``.
    """

    n: int
    state: np.ndarray
    both: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, state: np.ndarray, change: np.ndarray) -> "ChangeSums":
        """Sum the pairs of a group: states ``(n, S)``, changes ``(n, G)``."""
        state, change = state - state.mean(axis=0), change - change.mean(axis=0)
        return cls(
            len(state) - 1,
            state.T @ state,
            state.T @ change,
            np.einsum("ng,ng->g", change, change),
        )

    def __add__(self, other: "ChangeSums") -> "ChangeSums":
        return ChangeSums(
            self.n + other.n,
            self.state + other.state,
            self.both + other.both,
            self.square + other.square,
        )

    def without(self, slope: np.ndarray) -> "ChangeSums":
        """Return the sums of what the changes have beyond a slope, ``(S, G)``."""
        told = self.state @ slope
        square = self.square - 2.0 * (slope * self.both).sum(axis=0) + (slope * told).sum(axis=0)
        return ChangeSums(self.n, self.state, self.both - told, square)

    def at_strength(self, strength: float) -> "ChangeSums":
        """Return the sums of which slopes at the strength 1 are found."""
        state, both = strength**2 * self.state, strength * self.both
        return ChangeSums(self.n, state, both, self.square)

    def slope(self, prior: float) -> np.ndarray:
        """Return the slopes, ``(S, G)``; ``prior`` is added to the squares of every state."""
        n_states = len(self.state)
        if self.n <= _FEWEST * n_states:
            return np.zeros_like(self.both)
        plain = np.linalg.pinv(self.state, hermitian=True) @ self.both
        told = (plain * self.both).sum(axis=0)
        noise = (self.square - told).clip(0.0) / (self.n - n_states)
        by_chance = _SHRINKAGE * n_states * noise
        kept = (1.0 - by_chance / told.clip(np.finfo(float).tiny)).clip(0.0)
        held = np.linalg.solve(self.state + prior * np.eye(n_states), self.both) if prior else plain
        return np.asarray(held * kept)


@dataclass(frozen=True)
class StateSlopes:
    """What shifts have beyond those of the average cell type.

    Parameters
    ----------
    basis
        In which the states of cell types are described.
    cell_types, states
        Cell types of the training's controls, ``(T,)``, and their states, ``(T, S)``.
    columns, slope
        Perturbation columns of which it is known, ``(C,)``, and change of the shift with the state
        at the largest dose, ``(C, S, G)``.
    """

    basis: StateBasis
    cell_types: np.ndarray
    states: np.ndarray
    columns: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(
        cls,
        cell_types: np.ndarray,
        levels: np.ndarray,
        pairs: PairedCells | None,
        doses: DoseCurves,
    ) -> "StateSlopes":
        """Learn from pairs of cells.

        Parameters
        ----------
        cell_types, levels
            Numbers ``(T,)`` and mean log-normalised controls ``(T, G)`` of the cell types. Their
            batches are put together: what batches differ in is not how cells do.
        pairs
            None: of nothing is a slope known.
        doses
            How strongly the doses of each perturbation act.
        """
        basis = StateBasis.of(levels)
        known, variance = {}, 0.0
        if pairs is not None and len(basis.axes):
            state = np.asarray(pairs.expression @ basis.axes.T) - basis.centre @ basis.axes.T
            groups = [group for group in pairs.groups if _tells_one(group)]
            known = _known(state, pairs.expression, _of_enough(groups, state.shape[1]), doses)
            variance = _variance([state[group.before] for group in groups])
        columns = np.asarray(sorted(known), dtype=np.int64)
        slope = np.zeros((len(columns), *basis.axes.shape), np.float32)
        for place, column in enumerate(columns.tolist()):
            slope[place] = known[column].slope(_PRIOR_CELLS * variance)
        return cls(basis, cell_types, basis.scores(levels), columns, slope)

    def shifts(self, p: np.ndarray, cell_type: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Return what is to be added to the shifts of conditions, ``(n, G)``; 0 for ``p`` = 0.

        Parameters
        ----------
        p
            Perturbation vectors, as strong as they act, ``(n, K)``.
        cell_type
            Numbers of their cell types, ``(n,)``.
        controls
            Mean log-normalised controls, ``(n, G)``: what is known of a new cell type.
        """
        state = self.basis.scores(controls)
        for row, known in enumerate(cell_type[:, None] == self.cell_types):
            if known.any():
                state[row] = self.states[known.argmax()]
        doses = p[:, self.columns]
        return np.tensordot(doses[:, :, None] * state[:, None, :], self.slope, 2)


def _tells_one(group: PairGroup) -> bool:
    """Whether pairs tell of one perturbation column, or of chance."""
    return len(group.before) > 1 and int(np.count_nonzero(group.p)) <= 1


def _of_enough(groups: list[PairGroup], n_states: int) -> list[PairGroup]:
    """Leave out perturbations of too few pairs for a slope; of very many all may be such."""
    columns = [int(group.p.argmax()) if group.p.any() else -1 for group in groups]
    n_pairs = dict.fromkeys(columns, 0)
    for column, group in zip(columns, groups, strict=True):
        n_pairs[column] += len(group.before) - 1
    return [
        group
        for column, group in zip(columns, groups, strict=True)
        if column < 0 or n_pairs[column] > _FEWEST * n_states
    ]


def _known(
    state: np.ndarray, expression: csr_matrix, groups: list[PairGroup], doses: DoseCurves
) -> dict[int, ChangeSums]:
    """Return the sums of each perturbation column, without the regression to the mean."""

    def sums(group: PairGroup) -> ChangeSums:
        after, before = (expression[rows].toarray() for rows in (group.after, group.before))
        return ChangeSums.of(state[group.before], after - before)

    of_controls = [sums(group) for group in groups if not group.p.any()]
    no_slope = np.zeros((state.shape[1], expression.shape[1]))
    regression = reduce(add, of_controls).slope(0.0) if of_controls else no_slope
    found: dict[int, ChangeSums] = {}
    for group in groups:
        strength = doses.strength(group.p)
        for column in group.p.nonzero()[0].tolist():
            some = sums(group).without(regression).at_strength(float(strength[column]))
            found[column] = found[column] + some if column in found else some
    return found


def _variance(groups: list[np.ndarray]) -> float:
    """Return the variance of states ``(n, S)`` within groups, on average over the states."""
    squares = sum(
        float(np.square(state - state.mean(axis=0)).mean(axis=1).sum()) for state in groups
    )
    return squares / max(sum(len(state) - 1 for state in groups), 1)


def level_of_cell_types(
    cell_type: np.ndarray, n_cells: np.ndarray, means: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell types ``(T,)`` of strata and their mean controls ``(T, G)``, cell by cell."""
    kinds = np.unique(cell_type)
    rows: Iterable[np.ndarray] = (cell_type == kind for kind in kinds)
    levels = [np.average(means[some], axis=0, weights=n_cells[some]) for some in rows]
    return kinds, np.stack(levels)
