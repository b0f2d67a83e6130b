"""Variances of the parts of a covariance: the cost is the likelihood, the sizes the likeliest."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from cfmvc.flow.condition_kernels import Conditions, StateBasis
from cfmvc.flow.variances import cost, likeliest_sizes

N_DIMS, N_PERTURBATIONS, N_STRATA, N_CELLS = 16, 3, 4, 20


def screen(effect: float) -> tuple[np.ndarray, Conditions]:
    """Measured shifts of perturbations in every stratum, which are the same in each."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.normal(0, effect, (N_PERTURBATIONS, N_DIMS)), N_STRATA, axis=0)
    strata = np.tile(np.arange(N_STRATA), N_PERTURBATIONS)
    controls = rng.normal(0, 2.0, (N_STRATA, N_DIMS))
    n = len(truth)
    p = np.zeros((n, N_PERTURBATIONS + 1))
    p[np.arange(n), 1 + np.repeat(np.arange(N_PERTURBATIONS), N_STRATA)] = 1.0
    measured = truth + rng.normal(0, 1 / np.sqrt(N_CELLS), truth.shape)
    sizes = (np.full(n, N_CELLS), np.full(n, 10_000))
    state = StateBasis.of(controls).scores(controls[strata])
    where, untold = (strata % 2, strata // 2), 2 * [np.zeros((n, 0))]
    return measured, Conditions(p, *where, *sizes, state, *untold, np.ones(n))


def test_cost_is_the_likelihood_and_its_gradient() -> None:
    shift, conditions = screen(0.3)
    kernels = conditions.kernels(conditions)
    noise = np.diag(1.0 / conditions.n_cells)
    products, n_draws, weight = shift @ shift.T, shift.shape[1], 0.1
    rng = np.random.default_rng(0)
    prior = rng.normal(-3, 1, len(kernels))
    points = rng.normal(-2, 1, (2, len(kernels)))

    def likelihood(log_variances: np.ndarray) -> float:
        covariance = np.tensordot(np.exp(log_variances), kernels, 1) + noise
        return multivariate_normal(np.zeros(len(noise)), covariance).logpdf(shift.T).sum()

    def cost_at(x: np.ndarray) -> tuple[float, np.ndarray]:
        return cost(x, kernels, noise, products, n_draws, prior, weight)

    costs = [cost_at(x)[0] - 0.5 * weight * ((x - prior) ** 2).sum() for x in points]
    expected = likelihood(points[1]) - likelihood(points[0])
    assert costs[0] - costs[1] == pytest.approx(expected, rel=1e-8)
    for x in points:
        assert check_grad(lambda y: cost_at(y)[0], lambda y: cost_at(y)[1], x) < 1e-3


def test_the_size_of_a_single_part_is_the_likeliest_of_all() -> None:
    measured, conditions = screen(0.3)
    kernel = conditions.kernels(conditions).sum(axis=0)
    noise = np.diag(1.0 / conditions.n_cells) + 0.01
    shifts = [scale * measured for scale in (1.0, 2.0, 4.0)]
    found = likeliest_sizes(kernel, noise, shifts)
    assert (np.diff(found) > 0).all()

    def likelihood(size: float, shift: np.ndarray) -> float:
        normal = multivariate_normal(np.zeros(len(noise)), size * kernel + noise)
        return float(normal.logpdf(shift.T).sum())

    for size, shift in zip(found, shifts, strict=True):
        others = size * np.exp(np.concatenate([np.linspace(-4, 4, 33), [-0.01, 0.01]]))
        assert likelihood(size, shift) >= max(likelihood(other, shift) for other in others) - 1e-6
