"""Products of the shifts of a stratum, of which combinations and doses are learnt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StratumProducts:
    """What the shifts of one stratum have in common.

    Parameters
    ----------
    rows
        Conditions of the stratum, ``(n,)``.
    products
        Of their shifts, a mean over genes, ``(n, n)``.
    column
        Perturbation of each that has a single one, or -1, ``(n,)``.
    common
        Mean product of two different single perturbations: noise of the controls that all shifts
        are taken from, and whatever all perturbations do alike.
    """

    rows: np.ndarray
    products: np.ndarray
    column: np.ndarray
    common: float


def products_of_strata(
    p: np.ndarray, shift: np.ndarray, stratum: np.ndarray, n_controls: np.ndarray
) -> Iterator[StratumProducts]:
    """Yield the products of each stratum.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    shift
        Measured shifts, in units of the spread within a condition, ``(n, G)``.
    stratum
        Number of the stratum, ``(n,)``.
    n_controls
        Controls of its stratum, ``(n,)``.
    """
    column = np.where(np.count_nonzero(p, axis=1) == 1, p.argmax(axis=1), -1)
    for number in np.unique(stratum):
        rows = np.flatnonzero(stratum == number)
        products = shift[rows] @ shift[rows].T / shift.shape[1]
        of_controls = 1.0 / float(n_controls[rows[0]])
        common = max(_in_common(products, column[rows]), of_controls)
        yield StratumProducts(rows, products, column[rows], common)


def _in_common(products: np.ndarray, column: np.ndarray) -> float:
    """Return the mean product of two different single perturbations; 0 where there is one alone."""
    single = column >= 0
    different = single[:, None] & single[None] & (column[:, None] != column[None])
    return float(products[different].mean()) if different.any() else 0.0
