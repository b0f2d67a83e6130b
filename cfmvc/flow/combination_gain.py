r"""How strongly perturbations act in company, beside how they act alone.

Two perturbations that reach the same genes seldom do twice as much: there is a limit to what a gene
gains or loses. Of the combinations that were measured, and their parts in the same stratum,

.. math:: y_{ab} = \gamma\,(y_a + y_b) + \ldots,

one factor for all is found by regression with errors in both variables (Fuller 1987, section 1.2):
the noise of the parts' means, and that of the controls that all of them are taken from, is known,
and taken out of both sums. What it leaves unsure holds the factor at 1, which is the sum.
"""

from collections.abc import Iterator

import numpy as np

_LARGEST = 2.0


def combination_gain(
    p: np.ndarray,
    shift: np.ndarray,
    stratum: np.ndarray,
    n_cells: np.ndarray,
    n_controls: np.ndarray,
) -> float:
    """Return what each part's effect is multiplied by in a combination, in [0, 2]; 1 is the sum.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    shift
        Measured shifts, in units of the spread within a condition, ``(n, G)``.
    stratum
        Number of the stratum, ``(n,)``.
    n_cells, n_controls
        Cells behind the means of the condition and of its stratum's controls, ``(n,)``.
    """
    together, whole, noise = 0.0, 0.0, 0.0
    n_genes = shift.shape[1]
    for row, parts in _with_parts(p, stratum):
        total, of_control = shift[parts].sum(axis=0), len(parts) / n_controls[row]
        own = n_genes * ((1.0 / n_cells[parts]).sum() + len(parts) * of_control)
        together += float(total @ shift[row]) - n_genes * of_control
        whole += float(total @ total) - own
        noise += own**2
    unsure = noise**0.5
    if unsure == 0.0:
        return 1.0
    return float(np.clip((together + unsure) / (max(whole, 0.0) + unsure), 0.0, _LARGEST))


def _with_parts(p: np.ndarray, stratum: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yield the combinations whose parts were all measured beside them, at the same doses."""
    n_parts = np.count_nonzero(p, axis=1)
    alone = {
        (int(stratum[row]), int(column), float(p[row, column])): row
        for row in np.flatnonzero(n_parts == 1).tolist()
        for column in p[row].nonzero()[0]
    }
    for row in np.flatnonzero(n_parts > 1).tolist():
        keys = [(int(stratum[row]), int(c), float(p[row, c])) for c in p[row].nonzero()[0]]
        parts = [alone[key] for key in keys if key in alone]
        if len(parts) == len(keys):
            yield row, parts
