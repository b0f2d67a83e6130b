"""The shift that a condition is expected to have, also one that was never measured.

A Gaussian process over conditions (empirical Bayes; Efron & Morris 1973; Rasmussen & Williams 2006,
chapter 2) with the covariance of :mod:`~cfmvc.flow.condition_kernels`; the noise is known, for it
is that of a mean over a known number of cells. Genes differ in how much they respond at all, so
that they are taken in groups of like strength. The variances of the strongest group, those of
greatest likelihood, say what the shifts hang on; of every other group only their common size is
found, for in weak genes noise would decide. Ridge regression on one-hot perturbations and the
state of the controls is the case of two parts and one group.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from cfmvc.flow.condition_kernels import Conditions, distinct, told_by_embeddings
from cfmvc.flow.variances import likeliest, likeliest_sizes

_N_GROUPS = 20
# Where the logarithm of a variance is held that the data do not tell. Who gives embeddings believes
# that they tell something: a few perturbations are explained by them as well as one by one.
_PRIOR, _PRIOR_OF_EMBEDDINGS, _PRIOR_WEIGHT = -3.0, 0.0, 1.0
# Measured means are believed somewhat more than their noise alone would have it: what is lost by
# shrinking a strong response weighs more than noise in a weak one. Chosen on Kang and Papalexi.
NOISE_WEIGHT = 0.5
_MOST_TO_LEARN = 400  # conditions of which the variances are found; the cost is cubic in them
_LEAST_KINDS = 20  # perturbations among these, where there are as many
MOST_CONDITIONS = 2000  # that are remembered


@dataclass(frozen=True)
class ShiftProcess:
    """What was measured, in the form in which it predicts.

    Parameters
    ----------
    conditions
        Those that were measured, ``n`` of them.
    parts
        Numbers of the covariance's parts that count, ``(n_parts,)``.
    variances
        Of each part, in the group of genes that responds most, ``(n_parts,)``.
    sizes
        Of each group of genes, the variance relative to that group, ``(n_groups,)``.
    group
        Group of each gene, ``(n_genes,)``.
    weights
        Solution of the normal equations, ``(n, n_genes)``.
    """

    conditions: Conditions
    parts: np.ndarray
    variances: np.ndarray
    sizes: np.ndarray
    group: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, conditions: Conditions, shift: np.ndarray) -> "ShiftProcess":
        """Learn from measured shifts.

        Parameters
        ----------
        conditions
            Where they were measured; none of them is a control, and they are as many as
            :data:`MOST_CONDITIONS` at most (:func:`foremost`): the cost is cubic in them.
        shift
            ``(n, n_genes)``, in units of the spread within a condition.
        """
        groups = _groups(conditions, shift)
        some = whole_perturbations(conditions.p, conditions.n_cells, _MOST_TO_LEARN)
        parts, variances, sizes = _learnt(conditions.rows(some), shift[some], groups)
        signal = conditions.covariance(conditions, parts, variances)
        noise = NOISE_WEIGHT * _noise(conditions)
        weights = np.empty(shift.shape, np.float32)  # of which a model keeps a copy on disk
        group = np.empty(shift.shape[1], np.int64)
        for number, genes in enumerate(groups):
            factor = cho_factor(sizes[number] * signal + noise)
            weights[:, genes] = cho_solve(factor, shift[:, genes])
            group[genes] = number
        return cls(conditions, parts, variances, sizes, group, weights)

    def expected(self, asked: Conditions) -> np.ndarray:
        """Return the expectation of the shifts of other conditions, ``(n_asked, n_genes)``."""
        signal = asked.covariance(self.conditions, self.parts, self.variances)
        # Controls that were measured high make every shift of their stratum come out low.
        of_controls = NOISE_WEIGHT * asked.noise_of_controls(self.conditions)
        found = np.empty((len(asked), len(self.group)))
        for number, size in enumerate(self.sizes.tolist()):
            genes = self.group == number
            found[:, genes] = (size * signal + of_controls) @ self.weights[:, genes]
        return np.where(asked.p.any(axis=1, keepdims=True), found, 0.0)

    def spread(self, asked: Conditions) -> np.ndarray:
        """Return the standard deviation of what is not known of them, ``(n_asked, n_genes)``."""
        if not len(asked):
            return np.empty((0, len(self.group)))
        learnt = (self.parts, self.variances)
        across = asked.covariance(self.conditions, *learnt)
        own = [asked.rows(np.asarray([row])) for row in range(len(asked))]
        before = np.asarray([one.covariance(one, *learnt)[0, 0] for one in own])
        known = self.conditions.covariance(self.conditions, *learnt)
        noise = _noise(self.conditions)  # all of it: what was measured is no surer than that
        found = np.empty((len(asked), len(self.group)))
        for number, size in enumerate(self.sizes.tolist()):
            factor = np.linalg.cholesky(size * known + noise)
            told = solve_triangular(factor, size * across.T, lower=True)
            left = size * before - (told**2).sum(axis=0)
            found[:, self.group == number] = np.sqrt(left.clip(0.0))[:, None]
        return found


def _noise(conditions: Conditions) -> np.ndarray:
    return np.diag(1.0 / conditions.n_cells) + conditions.noise_of_controls(conditions)


def _groups(conditions: Conditions, shift: np.ndarray) -> list[np.ndarray]:
    """Return the genes of each group, from those that respond least to the strongest."""
    noise = 1.0 / conditions.n_cells + 1.0 / conditions.n_controls
    strength = (shift**2 / noise[:, None]).mean(axis=0)
    order = np.argsort(strength, kind="stable")
    return [genes for genes in np.array_split(order, _N_GROUPS) if len(genes)]


def _learnt(
    conditions: Conditions, shift: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which parts count, their variances in the last group, and the sizes of all groups."""
    kernels = conditions.kernels(conditions)
    parts = distinct(kernels)
    kernels = kernels[parts]
    noise = _noise(conditions)
    prior = np.where(told_by_embeddings(parts), _PRIOR_OF_EMBEDDINGS, _PRIOR)
    strongest = likeliest(kernels, noise, shift[:, groups[-1]], prior, _PRIOR_WEIGHT)
    whole = np.tensordot(strongest, kernels, 1)
    sizes = likeliest_sizes(whole, noise, [shift[:, genes] for genes in groups[:-1]])
    return parts, strongest, np.asarray([*sizes, 1.0])


def whole_perturbations(p: np.ndarray, n_cells: np.ndarray, most: int) -> np.ndarray:
    """Choose conditions that tell what of a perturbation hangs on its context: all of some.

    One condition each of many perturbations would say nothing of that. The perturbations with most
    cells are taken, of which one with very many conditions gives its largest.

    Parameters
    ----------
    p, n_cells, most
        Perturbation vectors, ``(n, K)``; as in :func:`foremost`.
    """
    if len(p) <= most:
        return np.arange(len(p))
    kind = np.unique(p, axis=0, return_inverse=True)[1].reshape(-1)
    total = np.bincount(kind, weights=n_cells)
    most_of_one = max(2, most // min(len(total), _LEAST_KINDS))
    chosen: list[int] = []
    for one in np.argsort(-total, kind="stable"):
        rows = np.flatnonzero(kind == one)
        rows = rows[np.argsort(-n_cells[rows], kind="stable")[:most_of_one]]
        if len(chosen) + len(rows) <= most:
            chosen += rows.tolist()
    return np.sort(np.asarray(chosen))


def foremost(kind: np.ndarray, n_cells: np.ndarray, most: int) -> np.ndarray:
    """Choose conditions: the largest of each perturbation first, then the next ones.

    Parameters
    ----------
    kind
        A number of each one's perturbation, ``(n,)``: vectors of many conditions take gigabytes.
    n_cells
        ``(n,)``.
    most
        How many.

    Returns
    -------
    numpy.ndarray
        Their rows, in order.
    """
    if len(kind) <= most:
        return np.arange(len(kind))
    by_size = np.argsort(-n_cells, kind="stable")
    seen: dict[int, int] = {}
    rank = np.empty(len(kind), dtype=np.int64)
    for row in by_size.tolist():
        of_kind = int(kind[row])
        rank[row] = seen[of_kind] = seen.get(of_kind, -1) + 1
    return np.sort(np.lexsort((-n_cells, rank))[:most])
