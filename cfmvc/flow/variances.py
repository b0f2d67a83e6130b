r"""The variances of a covariance's parts that are likeliest given what was measured.

Of a single part there is a short way: with :math:`N = L L^T` and
:math:`L^{-1} K L^{-T} = U \Lambda U^T` the covariance :math:`sK + N` is diagonal in the same axes
for every :math:`s`, and the likelihood is a sum over them.

``scipy.optimize`` is imported where it is needed: who predicts comes by here, and finds none.
"""

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.linalg.lapack import dpotri

_BOUNDS = (-14.0, 6.0)
_TOLERANCE = 1e-6  # of the logarithm of a single variance


def likeliest(
    kernels: np.ndarray,
    noise: np.ndarray,
    shift: np.ndarray,
    prior: np.ndarray,
    prior_weight: float,
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
    prior
        Logarithm at which each variance is held that the data do not tell apart, ``(n_parts,)``.
    prior_weight
        Precision of the logarithms around it.
    """
    from scipy.optimize import minimize

    found = minimize(
        cost,
        prior,
        (kernels, noise, shift @ shift.T, shift.shape[1], prior, prior_weight),
        jac=True,
        method="L-BFGS-B",
        bounds=[_BOUNDS] * len(kernels),
    )
    return np.asarray(np.exp(found.x))


def likeliest_sizes(kernel: np.ndarray, noise: np.ndarray, shifts: list[np.ndarray]) -> np.ndarray:
    """Return the variance of greatest likelihood of one part, for each of several measurements.

    Parameters
    ----------
    kernel, noise
        The part, and what is known of the covariance, ``(n, n)``.
    shifts
        Measured, ``(n, D)`` each.

    Returns
    -------
    numpy.ndarray
        ``(len(shifts),)``.
    """
    from scipy.optimize import minimize_scalar

    lower = cholesky(noise, lower=True)
    half = solve_triangular(lower, kernel, lower=True)
    sizes, axes = eigh(solve_triangular(lower, half.T, lower=True))
    sizes = sizes.clip(0.0)

    def of_one(shift: np.ndarray) -> float:
        squares = ((axes.T @ solve_triangular(lower, shift, lower=True)) ** 2).sum(axis=1)

        def cost(log_variance: float) -> float:
            spread = 1.0 + np.exp(log_variance) * sizes
            return float((shift.shape[1] * np.log(spread) + squares / spread).sum())

        # The cost may have more than one valley: look everywhere, then closely where it is least.
        grid = np.linspace(*_BOUNDS, 41)
        least = int(np.argmin([cost(value) for value in grid]))
        around = grid[max(least - 1, 0)], grid[min(least + 1, len(grid) - 1)]
        options = {"xatol": _TOLERANCE}
        found = minimize_scalar(cost, bounds=around, method="bounded", options=options)
        return float(np.exp(found.x))

    return np.asarray([of_one(shift) for shift in shifts])


def cost(
    log_variances: np.ndarray,
    kernels: np.ndarray,
    noise: np.ndarray,
    products: np.ndarray,
    n_draws: int,
    prior: np.ndarray,
    prior_weight: float,
) -> tuple[float, np.ndarray]:
    """Return minus the logarithm of likelihood and prior, up to a constant, and its gradient.

    ``products`` are those of the measured shifts, ``(n, n)``: however many dimensions there are, no
    more of them is needed.
    """
    n_parts, n = len(kernels), len(noise)
    variances, flat = np.exp(log_variances), kernels.reshape(n_parts, -1)
    lower = cholesky((variances @ flat).reshape(n, n) + noise, lower=True)
    precision = _symmetric(dpotri(lower, lower=True)[0])
    log_determinant = 2.0 * np.log(np.diag(lower)).sum()
    likelihood = 0.5 * (n_draws * log_determinant + (precision * products).sum())
    pull = n_draws * precision - precision @ products @ precision
    gradient = 0.5 * (flat @ pull.reshape(-1)) * variances
    off = log_variances - prior
    return likelihood + 0.5 * prior_weight * (off @ off), gradient + prior_weight * off


def _symmetric(lower: np.ndarray) -> np.ndarray:
    """Return the symmetric matrix of which this is the lower triangle."""
    below = np.tril(lower, -1)
    return np.asarray(below + below.T + np.diag(np.diag(lower)))
