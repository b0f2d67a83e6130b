r"""How strongly perturbations act in company, beside how they act alone.

Two perturbations that reach the same genes seldom do twice as much: there is a limit to what a gene
gains or loses. A combination that was measured beside its parts tells its factor,

.. math:: y_{ab} = \gamma_{ab}\,(y_a + y_b) + \kappa\,\bar y + \ldots,

by regression with errors in both variables (Fuller 1987, section 1.2): the noise of the parts'
means, and that of the controls that all of them are taken from, is known, and taken out. With
:math:`\bar y`, the mean of the other perturbations of the stratum, goes what all of them do alike:
the covariance has it once in a combination, too. Factors differ from one combination to the next,
so that one that was never seen has their mean, held at 1 (the sum) as long as few are known (random
effects; DerSimonian & Laird 1986).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
    if not shift.shape[1]:
        return 1.0
    of_set: dict[tuple[int, ...], list[np.ndarray]] = {}
    for one in _beside_parts(p, stratum):
        columns = tuple(p[one.row].nonzero()[0].tolist())
        products = _products(one, shift, n_cells, n_controls)
        of_set.setdefault(columns, []).append(products)
    if not of_set:
        return 1.0
    n_evidence = shift.shape[1] / _ALIKE
    told = [_factor(np.sum(some, axis=0), len(some), n_evidence) for some in of_set.values()]
    return _mean_factor(*np.asarray(told).T)


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
    strongest = p.max(axis=1, initial=0.0)
    beside = p.sum(axis=1) - strongest
    share = np.divide(beside, strongest, out=np.zeros(len(p)), where=strongest > 0)
    return np.asarray(1.0 + (gain - 1.0) * np.minimum(share, 1.0))


@dataclass(frozen=True)
class _Beside:
    """A combination: its row, rows of its parts and what they are multiplied by, other singles."""

    row: int
    parts: np.ndarray
    ratios: np.ndarray
    others: np.ndarray


def _beside_parts(p: np.ndarray, stratum: np.ndarray) -> Iterator[_Beside]:
    """Yield the combinations whose parts were all measured beside them, at whatever dose."""
    n_parts = np.count_nonzero(p, axis=1)
    singles: dict[int, list[int]] = {}
    for row in np.flatnonzero(n_parts == 1).tolist():
        singles.setdefault(int(stratum[row]), []).append(row)
    for row in np.flatnonzero(n_parts > 1).tolist():
        there = np.asarray(singles.get(int(stratum[row]), []), dtype=np.int64)
        columns = p[row].nonzero()[0]
        doses = p[np.ix_(there, columns)]
        if len(there) and (doses > 0).any(axis=0).all():
            apart = np.abs(np.log(np.where(doses > 0, doses, np.nan) / p[row, columns]))
            nearest = np.nanargmin(apart, axis=0)
            ratios = p[row, columns] / doses[nearest, np.arange(len(columns))]
            yield _Beside(row, there[nearest], ratios, there[~(doses > 0).any(axis=1)])


def _products(
    one: _Beside, shift: np.ndarray, n_cells: np.ndarray, n_controls: np.ndarray
) -> np.ndarray:
    """Return products of shift, sum of the parts and mean of the others, without their noise.

    ``(3, 3)``, a mean over genes in units of the noise of the sum.
    """
    n_other, n_genes = len(one.others), shift.shape[1]
    weights = np.zeros((3, 1 + len(one.parts) + n_other))
    weights[0, 0] = 1.0
    weights[1, 1 : 1 + len(one.parts)] = one.ratios
    weights[2, 1 + len(one.parts) :] = 1.0 / max(n_other, 1)
    rows = np.concatenate([[one.row], one.parts, one.others])
    together = weights @ shift[rows]
    noise = (weights / n_cells[rows]) @ weights.T
    if n_other > 1:  # what each does by itself is noise here as well
        noise[2, 2] = shift[one.others].var(axis=0, ddof=1).mean() / n_other
    noise += np.outer(weights.sum(axis=1), weights.sum(axis=1)) / n_controls[one.row]
    known = together @ together.T / n_genes - noise
    # Where it may be nothing but chance, nothing hangs on what all do alike.
    known[2, 2] = max(known[2, 2], 0.0) + noise[2, 2] * np.sqrt(2.0 * _ALIKE / n_genes)
    return np.asarray(known / noise[1, 1])


def _factor(products: np.ndarray, n_rows: int, n_evidence: float) -> tuple[float, float]:
    """Return the factor of one combination, and the variance that noise gives it.

    Parameters
    ----------
    products
        Of shift, parts and others, summed over its ``n_rows`` strata.
    n_rows, n_evidence
        Strata, and pieces of evidence that the genes are.
    """
    (_, across, shift_of_all), (_, own, parts_of_all), (_, _, of_all) = products.tolist()
    if of_all > 0.0:
        across -= shift_of_all * parts_of_all / of_all
        own -= parts_of_all**2 / of_all
    if own <= 0.0:
        return 1.0, np.inf
    factor = float(np.clip(across / own, _LEAST, _MOST))
    return factor, (2.0 * own + n_rows) / own**2 / n_evidence


def _mean_factor(factors: np.ndarray, variances: np.ndarray) -> float:
    """Return the mean of the factors of all combinations, as far as these tell it."""
    known = _SPREAD**2 / (_SPREAD**2 + variances)
    if known.sum() == 0.0:
        return 1.0
    off = factors - known @ factors / known.sum()
    between = (_SPREAD**2 + known @ off**2) / max(known.sum(), 1.0)
    weights = 1.0 / (variances + between)
    return float((_SPREAD**-2 + weights @ factors) / (_SPREAD**-2 + weights.sum()))
