r"""How much of a shift hangs on the level that a gene has in the controls already.

Counts are shares of a library: what is induced strongly takes from all other genes, from each in
proportion to its level, and a gene that is high already has less to gain. Within a perturbation
the shifts of a gene therefore fall with its level in the controls,

.. math:: y_{cg} = \delta_g + \beta_p (x_{cg} - \bar x_g) + \ldots,

with one slope a perturbation, which all genes tell together. The same noise of the controls' mean
stands in :math:`x` and, negative, in :math:`y`; it is taken out of both sums (regression with
errors in both variables; Fuller 1987, section 1.2).
"""

import numpy as np

_LEAST = -1.0  # at -1 the level after the perturbation would be the same whatever it was before
_FEWEST = 1e-3  # of the levels' spread must be more than noise


def slopes(p: np.ndarray, shift: np.ndarray, level: np.ndarray, noise: np.ndarray) -> np.ndarray:
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
    """
    found = np.zeros(p.shape[1])
    for column in np.flatnonzero(p.any(axis=0)):
        alone = np.flatnonzero((p[:, column] > 0) & (np.count_nonzero(p, axis=1) == 1))
        if len(alone) < 2:
            continue
        dose = p[alone, column][:, None]
        y = shift[alone] / dose
        x = level[alone] - level[alone].mean(axis=0)
        of_noise = float(noise[alone].sum()) * (1.0 - 1.0 / len(alone))
        spread = float((x * x).sum())
        known = spread - of_noise
        if known > _FEWEST * spread:
            together = float((x * (y - y.mean(axis=0))).sum()) + of_noise
            found[column] = np.clip(together / known, _LEAST, 0.0)
    return found
