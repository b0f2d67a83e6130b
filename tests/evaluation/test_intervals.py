"""Intervals cover what they promise, and differences are sharper than their parts."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cfmvc.evaluation.difficulty import BETWEEN, RESISTANT, SOLVED, difficulty
from cfmvc.evaluation.intervals import Scores, interval


def test_conditions_alone_give_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, size=200)
    means = Scores(values, np.zeros((200, 0))).means(4000, rng)
    error = values.std() / np.sqrt(200)
    expected = values.mean() + norm.ppf([0.025, 0.975]) * error
    np.testing.assert_allclose(interval(means, 0.95), expected, atol=0.1 * error)


@pytest.mark.parametrize(
    ("between", "own", "shared"),
    [(1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (0.3, 1.0, 0.0), (0.3, 0.3, 0.5), (0.1, 0.0, 1.0)],
)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 30])
def test_intervals_cover_the_truth_as_often_as_they_say(
    between: float, own: float, shared: float, n: int
) -> None:
    """Conditions differ, and are measured with errors of their own, and with one of them all."""
    rng = np.random.default_rng(1)
    n_covered = 0
    for _ in range(300):
        errors = own * rng.normal(size=(n, 21)) + shared * rng.normal(size=21)
        measured = between * rng.normal(size=n) + errors[:, 0]
        scores = Scores(measured, measured[:, None] + errors[:, 1:])
        low, high = interval(scores.means(2000, rng), 0.9)
        n_covered += low < 0.0 < high
    assert 0.85 < n_covered / 300 < 0.96


def test_a_single_condition_is_as_sure_as_its_draws_say() -> None:
    rng, covered = np.random.default_rng(6), np.zeros(2)
    for _ in range(600):
        measured, *draws = rng.normal(size=21)
        scores = Scores(np.array([measured]), measured + np.array([draws]))
        means = interval(scores.means(400, rng), 0.9)
        bounds = [float(bound[0]) for bound in scores.bounds(0.9)]
        covered += [low < 0.0 < high for low, high in (means, bounds)]
    np.testing.assert_allclose(covered / 600, 0.9, atol=0.03)


def test_an_error_that_noise_adds_to_every_draw_does_not_count() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=12)
    draws = values[:, None] + rng.normal(size=(12, 20))
    biased = Scores(values, draws + 5.0).means(300, np.random.default_rng(3))
    np.testing.assert_allclose(biased, Scores(values, draws).means(300, np.random.default_rng(3)))


def test_what_two_methods_share_does_not_blur_their_difference() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(size=(15, 20))
    one = Scores(np.zeros(15), shared)
    other = Scores(np.full(15, 0.1), shared + 0.1)
    low, high = interval(other.minus(one).means(500, rng), 0.95)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)


def test_conditions_without_the_score_are_left_out() -> None:
    drawn = np.array([[1.0, 1.0], [np.nan, np.nan], [3.0, 3.0]])
    scores = Scores(np.array([1.0, np.nan, 3.0]), drawn).defined()
    assert scores.values.tolist() == [1.0, 3.0]
    means = scores.means(100, np.random.default_rng(0), stretched=False)
    assert set(means) <= {1.0, 2.0, 3.0}


def test_a_condition_has_bounds_of_its_own_where_the_score_is_defined() -> None:
    rng = np.random.default_rng(5)
    spread = np.array([0.1, 1.0, 1.0])
    draws = spread[:, None] * rng.normal(size=(3, 4000)) + 7.0
    draws[2] = np.nan
    low, high = Scores(np.array([1.0, 2.0, np.nan]), draws).bounds(0.9)
    expected = np.array([1.0, 2.0]) + norm.ppf([[0.05], [0.95]]) * spread[:2]
    np.testing.assert_allclose([low[:2], high[:2]], expected, atol=0.08)
    assert np.isnan([low[2], high[2]]).all()
    assert np.isnan(Scores(np.array([1.0]), np.zeros((1, 0))).bounds(0.9)).all()


def test_difficulty_is_how_far_the_best_baseline_comes() -> None:
    distances = {"control": 10.0, "ceiling": 0.0, "model": 0.0}
    rows = [
        {"method": method, "condition": name, "energy_distance": value}
        for name, additive in (("easy", 0.5), ("half", 4.0), ("hard", 9.0))
        for method, value in {**distances, "additive": additive}.items()
    ]
    rows += [
        {"method": method, "condition": "no effect", "energy_distance": 0.01}
        for method in ("control", "ceiling", "model", "additive")
    ]
    found = difficulty(pd.DataFrame(rows), ["control", "additive"], 0.9, 0.5)
    assert found.to_dict() == {
        "easy": SOLVED,
        "half": BETWEEN,
        "hard": RESISTANT,
        "no effect": SOLVED,
    }
