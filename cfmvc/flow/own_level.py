r"""How much of a shift hangs on the level that a gene has in the controls already.

Counts are shares of a library: what is induced strongly takes from all other genes, from each in
proportion to its level, and a gene that is high already has less to gain. Within a perturbation
the shifts of a gene therefore fall with its level in the controls,

.. math:: y_{cg} = \delta_g + \beta_p (x_{cg} - \bar x_g) + \ldots,

with one slope a perturbation, which all genes tell together. How strongly its dose acts multiplies
all of it, so that shifts are divided by that, and weigh as its square. The same noise of the
controls' mean stands in :math:`x` and, negative, in the shift; it is taken out of both sums
(regression with errors in both variables; Fuller 1987, section 1.2).
"""

from collections.abc import Iterator

import numpy as np

_LEAST = -1.0  # at -1 the level after the perturbation would be the same whatever it was before
_FEWEST = 1e-3  # of the levels' spread must be more than noise


def slopes(
    p: np.ndarray, shift: np.ndarray, level: np.ndarray, noise: np.ndarray, stratum: np.ndarray
) -> np.ndarray:
    """Return the slope of each perturbation column, ``(K,)``, in [-1, 0]; 0 where none is known.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    shift
        Measured shifts, ``(n, G)``.
    level
        Mean controls of their strata, ``(n, G)``.
    noise
        Sum over the genes of the squared standard errors of these means, ``(n,)``.
    stratum
        Number of the stratum, ``(n,)``: several doses have the same controls, and their noise.
    """
    found = np.zeros(p.shape[1])
    for column, rows in _single(p):
        strata, member = np.unique(stratum[rows], return_inverse=True)
        if len(strata) > 1:
            of_stratum = np.zeros(len(strata))
            of_stratum[member] = noise[rows]
            found[column] = _slope(p[rows, column], shift[rows], level[rows], of_stratum, member)
    return found


def _single(p: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each column with the rows that have no other one."""
    rows = np.flatnonzero(np.count_nonzero(p, axis=1) == 1)
    if not len(rows):
        return
    column = p[rows].argmax(axis=1)
    order = np.argsort(column, kind="stable")
    columns, starts = np.unique(column[order], return_index=True)
    yield from zip(columns.tolist(), np.split(rows[order], starts[1:]), strict=True)


def _slope(
    dose: np.ndarray, shift: np.ndarray, level: np.ndarray, noise: np.ndarray, stratum: np.ndarray
) -> float:
    """Return the slope of one perturbation; ``noise`` is that of each stratum."""
    weight = dose**2
    whole = weight.sum()
    x = level - weight @ level / whole
    # weight * y, with y = shift / dose: no small number is divided by
    weighted_y = dose[:, None] * shift
    own = noise * (1.0 - np.bincount(stratum, weight) / whole)
    spread = float(weight @ (x * x).sum(axis=1))
    known = spread - float(np.bincount(stratum, weight) @ own)
    if known <= _FEWEST * spread:
        return 0.0
    # Weighted, x sums to 0: the mean of y drops out.
    together = float((x * weighted_y).sum() + np.bincount(stratum, dose) @ own)
    return float(np.clip(together / known, _LEAST, 0.0))
