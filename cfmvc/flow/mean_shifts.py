"""What the mean shifts of conditions are, given that related conditions shift alike.

The mean shift of a condition is measured on few cells, and a flow that is trained on these cells
learns the noise of the mean together with the effect. Here the shifts of all training conditions
are looked at together, as a Gaussian process over conditions (empirical Bayes; Efron & Morris 1973;
Rasmussen & Williams 2006, chapter 2) with the covariance of
:mod:`~cfmvc.flow.condition_kernels`. The variances of its parts are those of greatest likelihood,
pooled over the latent dimensions; the noise is known, for it is that of a mean over a known number
of cells.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from cfmvc.flow.condition_kernels import Conditions, distinct
from cfmvc.flow.variances import likeliest

_MOST_CONDITIONS = 400  # the cost is cubic in them; more are taken in blocks
_PRIOR_WEIGHT = 0.1


@dataclass(frozen=True)
class MeanShifts:
    """Mean shifts of perturbed conditions against the controls of their strata.

    Parameters
    ----------
    shift
        ``(n, D)``, in units of the spread within a condition.
    conditions
        Which conditions they are of.
    """

    shift: np.ndarray
    conditions: Conditions

    def __len__(self) -> int:
        return len(self.shift)

    def rows(self, chosen: np.ndarray) -> "MeanShifts":
        """Return some of the conditions."""
        return MeanShifts(self.shift[chosen], self.conditions.rows(chosen))


def expected_shifts(measured: MeanShifts) -> np.ndarray:
    """Return the expectation of the true shifts given the measured ones, ``(n, D)``.

    The noise of the controls' mean is common to all conditions of a stratum and stays in: the flow
    starts from those very controls.
    """
    expected = np.array(measured.shift)
    for rows in _blocks(measured.conditions.p):
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
    conditions = measured.conditions
    kernels = conditions.kernels(conditions)
    kernels = kernels[distinct(kernels)]
    of_controls = conditions.noise_of_controls(conditions)
    noise = np.diag(1.0 / conditions.n_cells)
    variances = likeliest(kernels, noise + of_controls, measured.shift, _PRIOR_WEIGHT)
    signal = np.tensordot(variances, kernels, 1) + of_controls
    return np.asarray(signal @ cho_solve(cho_factor(signal + noise), measured.shift))
