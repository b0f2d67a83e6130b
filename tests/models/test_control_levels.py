"""Means of controls that are drawn to the truth, on draws of a known truth."""

import numpy as np
import pytest

from cfmvc.models.control_levels import ControlLevels, between_batches

N_GENES = 400


def drawn(
    n_cells: np.ndarray, between_sd: float, n_types: int = 3, seed: int = 0
) -> tuple[ControlLevels, np.ndarray]:
    """Return measured levels, and the true ones, of some batches of each cell type."""
    rng = np.random.default_rng(seed)
    n_batches = len(n_cells)
    strata = np.asarray([(b, c) for c in range(n_types) for b in range(n_batches)])
    spread = rng.uniform(0.5, 1.5, N_GENES)
    of_type = rng.normal(0, 3, (n_types, N_GENES))
    truth = of_type[strata[:, 1]] + between_sd * spread * rng.normal(size=(len(strata), N_GENES))
    cells = np.tile(n_cells, n_types)
    means = truth + spread / np.sqrt(cells)[:, None] * rng.normal(size=truth.shape)
    between = between_batches(strata, cells, means, spread)
    return ControlLevels(strata, cells, means, spread, between), truth


def test_the_variance_between_batches_is_found() -> None:
    levels, _ = drawn(np.full(8, 50), between_sd=0.4, n_types=6)
    relative = levels.between / levels.spread**2
    assert relative.mean() == pytest.approx(0.16, rel=0.1)
    alike, _ = drawn(np.full(8, 50), between_sd=0.0, n_types=6)
    assert (alike.between / alike.spread**2).mean() < 0.01


def test_corrected_means_are_nearer_to_the_truth() -> None:
    levels, truth = drawn(np.asarray([10, 100, 400]), between_sd=0.1)
    errors = np.zeros((2, 3))
    for row, (batch, cell_type) in enumerate(levels.strata.tolist()):
        mean = levels.means[row]
        off = levels.correction(batch, cell_type, mean, float(levels.n_cells[row]))
        for number, found in enumerate((mean, mean + off)):
            errors[number, batch] += ((found - truth[row]) ** 2).mean()
    assert errors[1, 0] < 0.4 * errors[0, 0]  # of few cells, much
    assert (errors[1] < 1.02 * errors[0]).all()


def test_it_is_the_posterior_mean_of_two_batches() -> None:
    spread, between = np.asarray([2.0]), np.asarray([0.5])
    strata = np.asarray([[0, 0], [1, 0], [1, 1]])
    means = np.asarray([[1.0], [3.0], [9.0]])
    levels = ControlLevels(strata, np.asarray([20, 80, 5]), means, spread, between)
    # flat prior on the type's level: the other batch is a draw of variance 0.5 + 0.5 + 4 / 80
    noise, prior = 4.0 / 20, 0.5 + 0.5 + 4.0 / 80
    expected = (3.0 - 1.0) * noise / (noise + prior)
    assert levels.correction(0, 0, means[0], 20.0) == pytest.approx(expected)


def test_who_is_alone_stays_as_measured() -> None:
    levels, _ = drawn(np.asarray([10, 100]), between_sd=0.1)
    unknown = levels.correction(0, 99, levels.means[0], 10.0)
    np.testing.assert_array_equal(unknown, 0.0)
    single, _ = drawn(np.asarray([10]), between_sd=0.1)
    np.testing.assert_array_equal(single.correction(0, 0, single.means[0], 10.0), 0.0)
