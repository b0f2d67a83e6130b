r"""How much a perturbation moves a gene, beside what is usual of this gene.

Most perturbations leave most genes alone, and move some strongly: one variance for all shifts of a
gene shrinks what is strong too much and what is nothing too little. So the variance of a gene's
shifts under a set of perturbations is that of its group times an unknown ratio (adaptive shrinkage
by a mixture of scales; Stephens 2017, Biostatistics 18:275),

.. math:: y_g \sim \sum_r \pi_r \, N(0, r \sigma_g K + N),

with :math:`K` and :math:`N` the signal's and the noise's covariance of the set's conditions. Shares
:math:`\pi` of a set are those of greatest likelihood over the genes, held near the shares of all
sets. What is expected of a condition at a ratio takes the signal of all others to be as large.
"""

from collections.abc import Iterable

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp, softmax

RATIOS = 16.0 ** np.arange(-2, 3)
_USUAL = (RATIOS == 1.0).astype(float)
_ROUNDS = 50  # of expectation and maximisation
_HELD = 20.0  # genes' worth: how strongly shares are held near those of all sets
_MOST_GENES = 400  # of which shares are learnt
_MANY = 50  # conditions of a set


def sets_of(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct sets of perturbations ``(n_sets, K)`` bool, and each row's, ``(n,)``."""
    sets, member = np.unique(p != 0, axis=0, return_inverse=True)
    return sets, member.reshape(-1)


def likelihoods(
    signal: np.ndarray, noise: np.ndarray, shift: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Return the log likelihood of each ratio, ``(R, G)``, up to what all have in common.

    Parameters
    ----------
    signal, noise
        Covariances of some conditions, ``(n, n)``.
    shift
        Measured there, ``(n, G)``.
    size
        What the signal is multiplied by, ``(G,)``.
    """
    values, axes = eigh(signal, noise)
    values, squares = values.clip(0.0), (axes.T @ shift) ** 2
    found = np.empty((len(RATIOS), len(size)))
    for row, ratio in enumerate(RATIOS.tolist()):
        spread = 1.0 + values[:, None] * (ratio * size)
        found[row] = -0.5 * (np.log(spread) + squares / spread).sum(axis=0)
    return found - found.max(axis=0)  # so that single precision is enough


def learnt_shares(log_likelihood: np.ndarray) -> np.ndarray:
    """Return the shares of the ratios in each set, ``(n_sets, R)``.

    Parameters
    ----------
    log_likelihood
        Of each set, ratio and gene, ``(n_sets, R, G)``.
    """
    n_sets, n_ratios, _ = log_likelihood.shape
    shares = np.full((n_sets, n_ratios), 1.0 / n_ratios)
    for _ in range(_ROUNDS):
        told = softmax(log_likelihood + np.log(shares)[:, :, None].astype(np.float32), axis=1)
        of_all = told.mean(axis=(0, 2), dtype=float)
        shares = told.sum(axis=2, dtype=float) + _HELD * of_all
        shares = (shares / shares.sum(axis=1, keepdims=True)).clip(np.finfo(np.float32).tiny)
    return shares


def shares_of(
    p: np.ndarray, signal: np.ndarray, noise: np.ndarray, shift: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Return the shares of the ratios in the set of each condition, ``(n, R)``.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    signal, noise, shift, size
        As in :func:`likelihoods`, of all conditions.
    """
    sets, member = sets_of(p)
    found = np.empty((len(sets), len(RATIOS), len(size)), np.float32)
    for number in range(len(sets)):
        rows = np.flatnonzero(member == number)
        block = np.ix_(rows, rows)
        found[number] = likelihoods(signal[block], noise[block], shift[rows], size)
    return learnt_shares(found)[member]


def some_genes(groups: Iterable[np.ndarray], n_genes: int) -> np.ndarray:
    """Choose genes of which shares are learnt: of every group as many."""
    step = -(-n_genes // _MOST_GENES)
    return np.concatenate([genes[::step] for genes in groups])


class LocalScales:
    """Probabilities of the ratios, for sets of perturbations that were measured or not.

    Parameters
    ----------
    p
        Perturbation vectors of what was measured, ``(n, K)``.
    signal, noise
        Covariances, ``(n, n)``.
    shift
        ``(n, G)``.
    size
        Size of each gene's signal, ``(G,)``.
    shares
        Of the ratios in each condition's set, ``(n, R)``.
    """

    def __init__(
        self,
        p: np.ndarray,
        signal: np.ndarray,
        noise: np.ndarray,
        shift: np.ndarray,
        size: np.ndarray,
        shares: np.ndarray,
    ) -> None:
        self._signal, self._noise = signal, noise
        self._shift, self._size, self._shares = shift, size, shares
        self._of_many: dict[tuple[int, ...], np.ndarray] = {}  # which take long
        self._rows: dict[tuple[int, ...], list[int]] = {}
        for row, one in enumerate(p):
            self._rows.setdefault(_columns(one), []).append(row)

    def of(self, one: np.ndarray, without: int | None = None) -> np.ndarray:
        """Return the probability of each ratio and gene, ``(R, G)``, for the set of a vector.

        Of a set that was never measured the ratio is 1, of a combination of measured ones, too: it
        is moved by what is known of either, and their ratios would let the noise of both through.

        Parameters
        ----------
        one
            A perturbation vector, ``(K,)``.
        without
            A measured condition that is not to be known; among many it is no matter.
        """
        columns = _columns(one)
        rows = self._rows.get(columns, [])
        if len(rows) <= _MANY:
            return self._likely([row for row in rows if row != without])
        if columns not in self._of_many:
            self._of_many[columns] = self._likely(rows)
        return self._of_many[columns]

    def _likely(self, rows: list[int]) -> np.ndarray:
        if not rows:
            return np.repeat(_USUAL[:, None], len(self._size), axis=1)
        block = np.ix_(rows, rows)
        found = likelihoods(self._signal[block], self._noise[block], self._shift[rows], self._size)
        found += np.log(self._shares[rows[0]])[:, None]
        return np.exp(found - logsumexp(found, axis=0))


def _columns(one: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(one).tolist())
