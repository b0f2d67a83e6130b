r"""What the mean shifts of conditions are, given that related conditions shift alike.

The mean shift of a condition is measured on few cells, and a flow that is trained on these cells
learns the noise of the mean together with the effect. Here the shifts of all training conditions
are looked at together, as a Gaussian process over conditions (empirical Bayes; Efron & Morris 1973;
Rasmussen & Williams 2006, chapter 2). Two shifts have the covariance

.. math:: \sum_{e \in \{any, same\}} \sum_c \sigma^2_{ec}\, k_e(p, p')\, k_c(s, s'),

with :math:`k_{any} = a(p) a(p')` (what all perturbations share; ``a`` is the sum of the vector, at
most 1), :math:`k_{same} = p \cdot p'`, and for the contexts: everywhere, same batch, same cell
type, same stratum, and like controls (the product of the strata's mean controls in principal
components). The variances :math:`\sigma^2` are those of greatest likelihood, pooled over the latent
dimensions; the noise is known, for it is that of a mean over a known number of cells.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

_MOST_CONDITIONS = 400  # the cost is cubic in them; more are taken in blocks
_N_STATE = 5  # principal components of the strata's mean controls
_PRIOR_LOG_VARIANCE, _PRIOR_WEIGHT = -3.0, 0.1  # holds variances that the data do not tell apart


@dataclass(frozen=True)
class MeanShifts:
    """Mean shifts of perturbed conditions against the controls of their strata.

    Parameters
    ----------
    shift
        ``(n, D)``, in units of the spread within a condition.
    p
        Perturbation vectors, ``(n, K)``; doses relative to the largest.
    batch, cell_type
        Column numbers, ``(n,)``.
    n_cells, n_controls
        Cells behind the two means, ``(n,)``.
    controls
        Mean of the stratum's controls, ``(n, D)``, in the same units.
    """

    shift: np.ndarray
    p: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    n_cells: np.ndarray
    n_controls: np.ndarray
    controls: np.ndarray

    def __len__(self) -> int:
        return len(self.shift)

    def rows(self, chosen: np.ndarray) -> "MeanShifts":
        """Return some of the conditions."""
        return MeanShifts(**{name: values[chosen] for name, values in vars(self).items()})


def expected_shifts(measured: MeanShifts) -> np.ndarray:
    """Return the expectation of the true shifts given the measured ones, ``(n, D)``.

    The noise of the controls' mean is common to all conditions of a stratum and stays in: the flow
    starts from those very controls.
    """
    expected = np.array(measured.shift)
    for rows in _blocks(measured.p):
        if len(rows) > 1:
            expected[rows] = _expected(measured.rows(rows))
    return expected


def _blocks(p: np.ndarray) -> list[np.ndarray]:
    """Split the rows into bounded blocks that keep each perturbation together, where it fits."""
    _, kind = np.unique(p, axis=0, return_inverse=True)
    by_kind = np.argsort(kind.reshape(-1), kind="stable")
    blocks: list[list[int]] = [[]]
    for rows in np.split(by_kind, np.flatnonzero(np.diff(kind.reshape(-1)[by_kind])) + 1):
        if len(blocks[-1]) + len(rows) > _MOST_CONDITIONS and blocks[-1]:
            blocks.append([])
        blocks[-1] += rows.tolist()
    parts = [np.array_split(block, -(-len(block) // _MOST_CONDITIONS)) for block in blocks if block]
    return [np.asarray(part) for block in parts for part in block]


def _expected(measured: MeanShifts) -> np.ndarray:
    kernels = _kernels(measured)
    same_controls = (measured.controls[:, None] == measured.controls[None]).all(-1)
    of_controls = same_controls / measured.n_controls[:, None]
    noise = np.diag(1.0 / measured.n_cells)
    variances = _likeliest(kernels, noise + of_controls, measured.shift)
    signal = np.tensordot(variances, kernels, 1) + of_controls
    return signal @ cho_solve(cho_factor(signal + noise), measured.shift)


def _kernels(measured: MeanShifts) -> np.ndarray:
    """Return the parts of the covariance, ``(n_parts, n, n)``; equal ones and empty ones once."""
    strength = np.minimum(1.0, measured.p.sum(1))
    effects = (np.outer(strength, strength), measured.p @ measured.p.T)
    batch = measured.batch[:, None] == measured.batch[None]
    cell_type = measured.cell_type[:, None] == measured.cell_type[None]
    state = _state(measured.controls)
    contexts = (np.ones_like(batch), batch, cell_type, batch & cell_type, state @ state.T)
    kept: list[np.ndarray] = []
    for part in (effect * context for effect in effects for context in contexts):
        if part.any() and not any(np.allclose(part, other) for other in kept):
            kept.append(part)
    return np.stack(kept)


def _state(controls: np.ndarray) -> np.ndarray:
    """Return the strata's mean controls in principal components, the largest score being 1."""
    strata, position = np.unique(controls, axis=0, return_inverse=True)
    centred = strata - strata.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * sizes)[:, : min(_N_STATE, len(strata) - 1)]
    largest = np.abs(scores).max(initial=0.0)
    return (scores / largest if largest > 0 else scores)[position.reshape(-1)]


def _likeliest(kernels: np.ndarray, noise: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the variances of greatest likelihood (with a weak prior), ``(n_parts,)``."""
    start = np.full(len(kernels), _PRIOR_LOG_VARIANCE)
    bounds = [(-14.0, 6.0)] * len(start)
    arguments = (kernels, noise, shift)
    found = minimize(_cost, start, arguments, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.exp(found.x)


def _cost(
    log_variances: np.ndarray, kernels: np.ndarray, noise: np.ndarray, shift: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return minus the log-likelihood of the shifts, up to a constant, and the prior; gradient."""
    n, n_dims = shift.shape
    variances = np.exp(log_variances)
    factor = cho_factor(np.tensordot(variances, kernels, 1) + noise)
    solved = cho_solve(factor, shift)
    log_determinant = 2.0 * np.log(np.diag(factor[0])).sum()
    likelihood = 0.5 * (n_dims * log_determinant + (shift * solved).sum())
    pull = n_dims * cho_solve(factor, np.eye(n)) - solved @ solved.T
    gradient = 0.5 * np.tensordot(kernels, pull, axes=([1, 2], [0, 1])) * variances
    off = log_variances - _PRIOR_LOG_VARIANCE
    return likelihood + 0.5 * _PRIOR_WEIGHT * (off @ off), gradient + _PRIOR_WEIGHT * off
