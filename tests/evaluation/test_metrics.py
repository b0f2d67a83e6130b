import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import pearsonr, ttest_ind

from cfmvc.evaluation.case import Case, top_genes, welch_t
from cfmvc.evaluation.metrics import (
    METRICS,
    direction,
    discrimination,
    energy_distance,
    mean_absolute_error,
    mean_squared_error,
    median_bandwidth,
    pearson,
    squared_mmd,
    variance_ratio,
)

Array = NDArray[np.float64]
populations = arrays(
    np.float64,
    st.tuples(st.integers(2, 7), st.just(3)),
    elements=st.floats(-50, 50, allow_subnormal=False),
)


def loop_energy(a: Array, b: Array) -> float:
    cross = [math.dist(x, y) for x in a for y in b]
    within_a = [math.dist(x, y) for x, y in itertools.permutations(a, 2)]
    within_b = [math.dist(x, y) for x, y in itertools.permutations(b, 2)]
    return 2 * np.mean(cross) - np.mean(within_a) - np.mean(within_b)


def loop_mmd(a: Array, b: Array, width: float) -> float:
    def k(x: Array, y: Array) -> float:
        return math.exp(-(math.dist(x, y) ** 2) / (2 * width**2))

    cross = [k(x, y) for x in a for y in b]
    within_a = [k(x, y) for x, y in itertools.permutations(a, 2)]
    within_b = [k(x, y) for x, y in itertools.permutations(b, 2)]
    return np.mean(within_a) + np.mean(within_b) - 2 * np.mean(cross)


@given(populations, populations)
@settings(deadline=None, max_examples=60)
def test_distances_equal_their_definition(a: Array, b: Array) -> None:
    assert energy_distance(a, b) == pytest.approx(loop_energy(a, b), abs=1e-9)
    assert squared_mmd(a, b, 3.0) == pytest.approx(loop_mmd(a, b, 3.0), abs=1e-12)


@given(populations, populations, st.randoms())
@settings(deadline=None, max_examples=40)
def test_distances_are_symmetric_and_blind_to_the_order_of_cells(
    a: Array, b: Array, random: object
) -> None:
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(a))  # type: ignore[attr-defined]
    for distance in (energy_distance, lambda x, y: squared_mmd(x, y, median_bandwidth(a, b))):
        assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-9)
        assert distance(a[order], b) == pytest.approx(distance(a, b), abs=1e-9)


def test_distances_of_equal_distributions_are_zero_in_expectation() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(15, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    for distance in (energy_distance, lambda a, b: squared_mmd(a, b, 2.0)):
        values = np.array([distance(a, b) for a, b in draws])
        assert abs(values.mean()) < 4 * values.std() / 20
        assert values.min() < 0, "an unbiased estimate is not clipped"
        shifted = distance(draws[0][0], draws[0][1] + 2.0)
        assert shifted > values.max()


def test_median_bandwidth() -> None:
    a, b = np.array([[0.0], [1.0]]), np.array([[3.0]])
    assert median_bandwidth(a, b) == 2.0  # of 1, 2 and 3
    assert median_bandwidth(np.zeros((3, 2)), np.zeros((3, 2))) == 1.0


@given(arrays(np.float64, (2, 9), elements=st.integers(-50, 50).map(float)))
def test_pearson_is_scipys(vectors: Array) -> None:
    predicted, true = vectors
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        assert pearson(predicted, true) == 0.0
    else:
        assert pearson(predicted, true) == pytest.approx(pearsonr(predicted, true)[0], abs=1e-12)


def test_pearson_of_a_constant_prediction_is_zero_in_spite_of_rounding() -> None:
    true = np.random.default_rng(0).normal(size=30)
    assert pearson(np.full(30, 0.1) + 0.2, true) == 0.0
    assert pearson(np.zeros(30), true) == 0.0


def test_direction() -> None:
    assert direction(np.array([1.0, -2.0, 3.0, 0.0]), np.array([2.0, 5.0, 1.0, 1.0])) == 0.625
    assert direction(np.zeros(5), np.array([1.0, -1.0, 2.0, 3.0, 1.0])) == 0.5


def test_errors() -> None:
    predicted, true = np.array([1.0, 2.0]), np.array([4.0, 1.0])
    assert mean_squared_error(predicted, true) == 5.0
    assert mean_absolute_error(predicted, true) == 2.0


def test_variance_ratio_is_one_for_the_truth_and_zero_for_a_collapse() -> None:
    true = np.random.default_rng(0).normal(size=(40, 5))
    true[:, 0] = 1.0  # does not vary: no ratio
    assert variance_ratio(true, true) == 1.0
    assert variance_ratio(np.repeat(true[:1], 9, axis=0), true) == 0.0
    assert variance_ratio(3.0 * true, true) == pytest.approx(9.0)
    doubled = np.concatenate([true, true])
    assert variance_ratio(doubled, true) == pytest.approx(78 / 79)  # n - 1 in both


def test_discrimination_is_a_rank() -> None:
    own = np.array([1.0, 0.0, 0.0])
    others = np.array([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    assert discrimination(own, own, others) == 1.0
    assert discrimination(np.array([1.9, 0.0, 0.0]), own, others) == pytest.approx(2 / 3)
    assert discrimination(np.array([0.0, 9.0, 9.0]), own, others) == pytest.approx(1 / 3)


def test_no_shift_discriminates_by_chance() -> None:
    deltas = np.random.default_rng(0).normal(size=(8, 20))
    scores = [
        discrimination(np.zeros(20), deltas[i], np.delete(deltas, i, axis=0)) for i in range(8)
    ]
    assert np.mean(scores) == pytest.approx(0.5)


def test_top_genes_follow_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    true, controls = rng.normal(size=(12, 40)), rng.normal(0.5, 2.0, size=(30, 40))
    expected = ttest_ind(true, controls, equal_var=False).statistic
    np.testing.assert_allclose(welch_t(true, controls), expected)
    assert top_genes(true, controls, 7).tolist() == np.argsort(-np.abs(expected))[:7].tolist()
    assert len(top_genes(true, controls, 50)) == 20, "at most half of the panel"


def test_constant_genes_are_no_surprise_to_welch() -> None:
    true, controls = np.zeros((5, 3)), np.zeros((6, 3))
    true[:, 1] = 1.0
    assert welch_t(true, controls).tolist() == [0.0, np.inf, 0.0]


def test_every_metric_is_best_for_the_truth_and_declares_what_it_is() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=(50, 12)) + np.linspace(-2, 2, 12)
    controls = rng.normal(size=(60, 12))

    def case(predicted: Array) -> Case:
        return Case(
            predicted=predicted,
            true=true,
            control_mean=controls.mean(axis=0),
            predicted_pcs=predicted,
            true_pcs=true,
            control_pcs=controls,
            top=top_genes(true, controls, 50),
            other_deltas=rng.normal(size=(3, 12)),
        )

    truth, wrong = case(true), case(-2.0 * controls - 3.0)
    for name, metric in METRICS.items():
        assert metric.is_defined(truth)
        assert metric.loss(metric.of(truth)) < metric.loss(metric.of(wrong)), name
        assert metric.needs
        if metric.chance is not None and name != "discrimination":
            assert metric.of(case(controls)) == pytest.approx(metric.chance, abs=1e-12), name


def test_controls_in_another_order_have_no_shift() -> None:
    rng = np.random.default_rng(0)
    controls = rng.exponential(size=(301, 200))
    predicted = controls[rng.permutation(301)]
    case = Case(
        predicted=predicted,
        true=rng.exponential(size=(50, 200)),
        control_mean=controls.mean(axis=0),
        predicted_pcs=predicted,
        true_pcs=predicted,
        control_pcs=predicted,
        top=np.arange(50),
        other_deltas=np.zeros((0, 200)),
    )
    assert METRICS["pearson_delta"].of(case) == 0.0
    assert METRICS["direction_top50"].of(case) == 0.5
