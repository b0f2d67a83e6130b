r"""How strongly perturbations act in company, beside how they act alone.

Two perturbations that reach the same genes seldom do twice as much: there is a limit to what a gene
gains or loses. A combination that was measured beside its parts tells its factor :math:`\gamma`,

.. math:: y_{ab} = \kappa\,u + (1 + (\gamma - 1)\,h)\,(a + b) + \ldots,

where :math:`u` is what all perturbations do alike (the covariance has it once in a combination,
too), and :math:`h` how much of the strongest part there is beside it. It is found by regression
with errors in both variables (Fuller 1987, section 1.2): the noise of all means is known, and what
different perturbations have in common tells of :math:`u`; both are taken out. Factors differ from
one combination to the next, so that one that was never seen has their mean, held at 1 (the sum) as
long as few are known (random effects; DerSimonian & Laird 1986).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cfmvc.flow.stratum_products import StratumProducts, products_of_strata

_SPREAD = 0.3  # of factors around their mean, and of this mean around 1, before any is known
_LEAST, _MOST = -1.0, 3.0  # a factor beyond is chance
_ALIKE = 10.0  # genes that err together: so many are one piece of evidence


def combination_gain(
    p: np.ndarray,
    shift: np.ndarray,
    stratum: np.ndarray,
    n_cells: np.ndarray,
    n_controls: np.ndarray,
) -> float:
    """Return what each part's effect is multiplied by in a combination; 1, where nothing tells.

    Parameters
    ----------
    p
        Perturbation vectors, as strong as they act, ``(n, K)``.
    shift
        Measured shifts, in units of the spread within a condition, ``(n, G)``.
    stratum
        Number of the stratum, ``(n,)``.
    n_cells, n_controls
        Cells behind the means of the condition and of its stratum's controls, ``(n,)``.
    """
    if not shift.shape[1] or not (np.count_nonzero(p, axis=1) > 1).any():
        return 1.0
    sums: dict[tuple[int, ...], np.ndarray] = {}
    for known in products_of_strata(p, shift, stratum, n_controls):
        for one in _beside_parts(p[known.rows], known.column):
            columns = tuple(p[known.rows[one.row]].nonzero()[0].tolist())
            told = _regression(known, one, n_cells[known.rows])
            sums[columns] = sums.get(columns, np.zeros(3)) + told
    n_evidence = shift.shape[1] / _ALIKE
    factors = [_factor(told, n_evidence) for told in sums.values()]
    return _mean_factor(*np.asarray(factors).T) if factors else 1.0


def gains_of(p: np.ndarray, gain: float) -> np.ndarray:
    """Return what the effects of each condition are multiplied by, ``(n,)``; 1 for a single one.

    A second perturbation that hardly acts leaves the first as it is.

    Parameters
    ----------
    p
        Perturbation vectors, as strong as they act, ``(n, K)``.
    gain
        From :func:`combination_gain`.
    """
    return np.asarray(1.0 + (gain - 1.0) * _beside_strongest(p))


def _beside_strongest(p: np.ndarray) -> np.ndarray:
    """Return how much there is beside the strongest perturbation, relative to it, at most 1."""
    strongest = p.max(axis=1, initial=0.0)
    beside = p.sum(axis=1) - strongest
    share = np.divide(beside, strongest, out=np.zeros(len(p)), where=strongest > 0)
    return np.asarray(np.minimum(share, 1.0))


@dataclass(frozen=True)
class _Beside:
    """A combination among the rows of a stratum.

    ``parts`` are the rows of its parts, and ``ratios`` what these are multiplied by; ``others`` of
    all rows are single perturbations that are no part of it. ``share`` is that of the factor.
    """

    row: int
    parts: np.ndarray
    ratios: np.ndarray
    others: np.ndarray
    share: float


def _beside_parts(p: np.ndarray, column: np.ndarray) -> Iterator[_Beside]:
    """Yield the combinations of a stratum whose parts were all measured, at whatever dose."""
    shares = _beside_strongest(p)
    for row in np.flatnonzero(np.count_nonzero(p, axis=1) > 1).tolist():
        columns, parts = p[row].nonzero()[0], []
        for part in columns.tolist():
            rows = np.flatnonzero(column == part)
            if len(rows):
                apart = np.abs(np.log(p[rows, part] / p[row, part]))
                parts.append(int(rows[apart.argmin()]))
        if len(parts) == len(columns):
            ratios = p[row, columns] / p[parts, columns]
            others = (column >= 0) & ~np.isin(column, columns)
            yield _Beside(row, np.asarray(parts), ratios, others, float(shares[row]))


def _regression(known: StratumProducts, one: _Beside, n_cells: np.ndarray) -> np.ndarray:
    """Return product and square of the regression of a combination on its parts, and noise of it.

    ``(3,)``, weighted by how sure the combination and its parts are.
    """
    products, r = known.products, one.ratios
    of_parts = products[one.row, one.parts] @ r
    squares = r @ products[np.ix_(one.parts, one.parts)] @ r
    alike = products[one.row, one.others].mean() if one.others.any() else known.common
    noise_of_parts = float((r**2 / n_cells[one.parts]).sum())
    across = of_parts - r.sum() * alike
    own = squares - r.sum() ** 2 * known.common - noise_of_parts
    noise = 1.0 / n_cells[one.row] + noise_of_parts
    h = one.share
    told = h * (across - (1.0 - h) * own), h**2 * own, h**2 * noise_of_parts
    return np.asarray(told) / noise


def _factor(told: np.ndarray, n_evidence: float) -> tuple[float, float]:
    """Return the factor of one combination, and the variance that noise gives it."""
    across, own, noise = told.tolist()
    if own <= 0.0:
        return 1.0, np.inf
    return float(np.clip(across / own, _LEAST, _MOST)), (own + noise) / own**2 / n_evidence


def _mean_factor(factors: np.ndarray, variances: np.ndarray) -> float:
    """Return the mean of the factors of all combinations, as far as these tell it."""
    known = _SPREAD**2 / (_SPREAD**2 + variances)
    if known.sum() == 0.0:
        return 1.0
    off = (factors - known @ factors / known.sum()) ** 2 - np.where(known > 0.0, variances, 0.0)
    between = (_SPREAD**2 + max(known @ off, 0.0)) / max(known.sum(), 1.0)
    weights = 1.0 / (variances + between)
    return float((_SPREAD**-2 + weights @ factors) / (_SPREAD**-2 + weights.sum()))
