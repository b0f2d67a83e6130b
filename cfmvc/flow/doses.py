"""The units of doses: what is much of one drug is little of another."""

import numpy as np


def largest_doses(vectors: np.ndarray) -> np.ndarray:
    """Return the largest dose of each perturbation in the training, ``(K,)``.

    Doses count relative to these. Of a perturbation that has none there it is that of all others.

    Parameters
    ----------
    vectors
        Perturbation vectors, ``(n, K)``.
    """
    own = vectors.max(axis=0, initial=0.0)
    of_all = own.max(initial=0.0)
    return np.where(own > 0, own, of_all if of_all > 0 else 1.0)
