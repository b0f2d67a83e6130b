"""The variances of a covariance's parts that are likeliest given what was measured."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

PRIOR_LOG_VARIANCE = -3.0  # where a variance that the data do not tell apart is held
_BOUNDS = (-14.0, 6.0)


def likeliest(
    kernels: np.ndarray, noise: np.ndarray, shift: np.ndarray, prior_weight: float
) -> np.ndarray:
    """Return the variances of greatest likelihood under a weak prior, ``(n_parts,)``.

    Parameters
    ----------
    kernels
        Parts of the covariance, ``(n_parts, n, n)``.
    noise
        What is known of it, ``(n, n)``.
    shift
        Measured, ``(n, D)``: D independent draws.
    prior_weight
        Precision of the logarithms of the variances around :data:`PRIOR_LOG_VARIANCE`.
    """
    found = minimize(
        cost,
        np.full(len(kernels), PRIOR_LOG_VARIANCE),
        (kernels, noise, shift @ shift.T, shift.shape[1], prior_weight),
        jac=True,
        method="L-BFGS-B",
        bounds=[_BOUNDS] * len(kernels),
    )
    return np.asarray(np.exp(found.x))


def cost(
    log_variances: np.ndarray,
    kernels: np.ndarray,
    noise: np.ndarray,
    products: np.ndarray,
    n_draws: int,
    prior_weight: float,
) -> tuple[float, np.ndarray]:
    """Return minus the logarithm of likelihood and prior, up to a constant, and its gradient.

    ``products`` are those of the measured shifts, ``(n, n)``: however many dimensions there are, no
    more of them is needed.
    """
    variances = np.exp(log_variances)
    factor = cho_factor(np.tensordot(variances, kernels, 1) + noise)
    precision = cho_solve(factor, np.eye(len(noise)))
    log_determinant = 2.0 * np.log(np.diag(factor[0])).sum()
    likelihood = 0.5 * (n_draws * log_determinant + (precision * products).sum())
    pull = n_draws * precision - precision @ products @ precision
    gradient = 0.5 * np.tensordot(kernels, pull, axes=([1, 2], [0, 1])) * variances
    off = log_variances - PRIOR_LOG_VARIANCE
    return likelihood + 0.5 * prior_weight * (off @ off), gradient + prior_weight * off
