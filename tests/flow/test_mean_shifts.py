"""Expected shifts: nearer to the truth than measured ones, by the likelihood that they claim."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from cfmvc.flow import mean_shifts
from cfmvc.flow.condition_kernels import Conditions, StateBasis
from cfmvc.flow.mean_shifts import MeanShifts, expected_shifts
from cfmvc.flow.variances import cost, likeliest_sizes

N_DIMS, N_PERTURBATIONS, N_STRATA = 16, 10, 4


def screen(effect: float, n_cells: int, seed: int = 0) -> tuple[MeanShifts, np.ndarray]:
    """Perturbations in every stratum, with the same shift in each, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.normal(0, effect, (N_PERTURBATIONS, N_DIMS)), N_STRATA, axis=0)
    strata = np.tile(np.arange(N_STRATA), N_PERTURBATIONS)
    controls = rng.normal(0, 2.0, (N_STRATA, N_DIMS))
    n = len(truth)
    p = np.zeros((n, N_PERTURBATIONS + 1))
    p[np.arange(n), 1 + np.repeat(np.arange(N_PERTURBATIONS), N_STRATA)] = 1.0
    measured = truth + rng.normal(0, 1 / np.sqrt(n_cells), truth.shape)
    sizes = (np.full(n, n_cells), np.full(n, 10_000))
    state = StateBasis.of(controls).scores(controls[strata])
    conditions = Conditions(p, strata % 2, strata // 2, *sizes, state, np.zeros((n, 0)))
    return MeanShifts(measured, conditions), truth


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(((found - truth) ** 2).mean()))


@pytest.mark.parametrize("effect", [0.0, 0.1, 1.0])
def test_expected_shifts_are_nearer_to_the_truth(effect: float) -> None:
    measured, truth = screen(effect, n_cells=20)
    assert error(expected_shifts(measured), truth) < 0.7 * error(measured.shift, truth)


def test_noise_alone_is_taken_out() -> None:
    measured, _ = screen(0.0, n_cells=20)
    assert np.abs(expected_shifts(measured)).mean() < 0.3 * np.abs(measured.shift).mean()


def test_what_is_measured_well_stays() -> None:
    measured, _ = screen(1.0, n_cells=100_000)
    np.testing.assert_allclose(expected_shifts(measured), measured.shift, atol=0.03)


def test_a_response_of_one_stratum_alone_is_kept_where_it_is_beyond_doubt() -> None:
    measured, truth = screen(0.5, n_cells=400)
    odd = np.array(measured.shift)
    odd[0] += 4.0
    found = expected_shifts(MeanShifts(odd, measured.conditions))
    assert np.abs(found[0] - truth[0] - 4.0).mean() < 0.4


def test_cost_is_the_likelihood_and_its_gradient() -> None:
    measured, _ = screen(0.3, n_cells=20)
    some = measured.rows(np.arange(12))
    kernels = some.conditions.kernels(some.conditions)
    noise = np.diag(1.0 / some.conditions.n_cells)
    products, n_draws, weight = some.shift @ some.shift.T, some.shift.shape[1], 0.1
    rng = np.random.default_rng(0)
    points = rng.normal(-2, 1, (2, len(kernels)))

    def likelihood(log_variances: np.ndarray) -> float:
        covariance = np.tensordot(np.exp(log_variances), kernels, 1) + noise
        return multivariate_normal(np.zeros(12), covariance).logpdf(some.shift.T).sum()

    def cost_at(x: np.ndarray) -> tuple[float, np.ndarray]:
        return cost(x, kernels, noise, products, n_draws, weight)

    costs = [cost_at(x)[0] - 0.5 * weight * ((x + 3.0) ** 2).sum() for x in points]
    expected = likelihood(points[1]) - likelihood(points[0])
    assert costs[0] - costs[1] == pytest.approx(expected, rel=1e-8)
    for x in points:
        assert check_grad(lambda y: cost_at(y)[0], lambda y: cost_at(y)[1], x) < 1e-3


def test_the_size_of_a_single_part_is_the_likeliest_of_all() -> None:
    some = screen(0.3, n_cells=20)[0].rows(np.arange(12))
    kernel = some.conditions.kernels(some.conditions).sum(axis=0)
    noise = np.diag(1.0 / some.conditions.n_cells) + 0.01
    shifts = [scale * some.shift for scale in (1.0, 2.0, 4.0)]
    found = likeliest_sizes(kernel, noise, shifts)
    assert (np.diff(found) > 0).all()

    def likelihood(size: float, shift: np.ndarray) -> float:
        normal = multivariate_normal(np.zeros(len(noise)), size * kernel + noise)
        return float(normal.logpdf(shift.T).sum())

    for size, shift in zip(found, shifts, strict=True):
        others = size * np.exp(np.concatenate([np.linspace(-4, 4, 33), [-0.01, 0.01]]))
        assert likelihood(size, shift) >= max(likelihood(other, shift) for other in others) - 1e-6


def test_blocks_keep_perturbations_together_and_lose_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, truth = screen(0.1, n_cells=20)
    monkeypatch.setattr(mean_shifts, "_MOST_CONDITIONS", 10)
    blocks = mean_shifts._blocks(measured.conditions.p)
    assert sorted(np.concatenate(blocks)) == list(range(len(measured)))
    assert max(map(len, blocks)) <= 10
    for block in blocks:
        assert len(block) == N_STRATA * len(np.unique(measured.conditions.p[block], axis=0))
    assert error(expected_shifts(measured), truth) < error(measured.shift, truth)
    monkeypatch.setattr(mean_shifts, "_MOST_CONDITIONS", 3)
    assert max(map(len, mean_shifts._blocks(measured.conditions.p))) <= 3


def test_one_condition_alone_stays_as_it_is() -> None:
    measured, _ = screen(1.0, n_cells=20)
    one = measured.rows(np.array([3]))
    assert np.array_equal(expected_shifts(one), one.shift)
