import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control, pearsonr, ttest_ind
from sklearn.metrics import mean_squared_error as mean_squared_error_of
from sklearn.metrics import r2_score

from cfmvc.evaluation.distances import Pairs, energy_distance, median_bandwidth, squared_mmd
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.moments import Population, drawn_with_replacement
from cfmvc.evaluation.responses import expected_share, gene_weights, most_shifted, responds, welch_t
from cfmvc.evaluation.shifts import (
    direction,
    mean_absolute_error,
    mean_squared_error,
    nearer_than_others,
    pearson,
    weighted_r2,
    weighted_squared_error,
)
from cfmvc.evaluation.spreads import correlation_error, variance_error, variance_ratio
from tests.evaluation.conftest import case_of, moments_of, population_of

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


def test_weighted_errors_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=(2, 30))
    weights = rng.dirichlet(np.ones(30))
    expected = mean_squared_error_of(true, predicted, sample_weight=weights)
    assert weighted_squared_error(predicted, true, weights) == pytest.approx(expected)
    expected = r2_score(true, predicted, sample_weight=weights)
    assert weighted_r2(predicted, true, weights) == pytest.approx(expected)
    assert weighted_r2(true, true, weights) == 1.0
    assert weighted_r2(predicted, np.ones(30), weights) == 0.0


def variance_of(cells: Array) -> Array:
    return cells.var(axis=0, ddof=1)


def test_variance_ratio_is_one_for_the_truth_and_zero_for_a_collapse() -> None:
    true = np.random.default_rng(0).normal(size=(40, 5))
    true[:, 0] = 1.0  # does not vary: no ratio
    own = variance_of(true)
    assert variance_ratio(own, own) == 1.0
    assert variance_ratio(np.zeros(5), own) == 0.0
    assert variance_ratio(9.0 * own, own) == pytest.approx(9.0)


def test_variance_error_is_the_same_for_half_and_for_twice_the_variance() -> None:
    true = np.array([1.0, 2.0, 4.0, 0.0])
    assert variance_error(true, true) == 0.0
    assert variance_error(true / 2, true) == pytest.approx(np.log(2))
    assert variance_error(true * 2, true) == pytest.approx(np.log(2))
    assert variance_error(np.zeros(4), true) == pytest.approx(np.log(1000)), "a collapse is finite"


def test_correlation_error_is_numpys_difference() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(20, 4))
    pairs = np.triu_indices(4, k=1)
    difference = np.corrcoef(predicted, rowvar=False) - np.corrcoef(true, rowvar=False)
    covariances = np.cov(predicted, rowvar=False), np.cov(true, rowvar=False)
    assert correlation_error(*covariances) == pytest.approx(np.abs(difference[pairs]).mean())
    assert correlation_error(covariances[1], covariances[1]) == 0.0
    collapsed = np.abs(np.corrcoef(true, rowvar=False)[pairs]).mean()
    assert correlation_error(np.zeros((4, 4)), covariances[1]) == pytest.approx(collapsed)


def test_discrimination_is_a_rank() -> None:
    own = np.array([1.0, 0.0, 0.0])
    others = np.array([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    near, far = np.array([1.9, 0.0, 0.0]), np.array([0.0, 9.0, 9.0])
    assert nearer_than_others(own, own, others, "l1") == 1.0
    assert nearer_than_others(near, own, others, "l1") == pytest.approx(2 / 3)
    assert nearer_than_others(far, own, others, "l1") == pytest.approx(1 / 3)
    along = nearer_than_others(near, own, others, "cosine")
    assert along == pytest.approx(5 / 6), "the size does not count: one other is as near"


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_distances_of_shifts_are_scipys(metric: str) -> None:
    rng = np.random.default_rng(0)
    predicted, own, others = rng.normal(size=6), rng.normal(size=6), rng.normal(size=(20, 6))
    name = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine"}[metric]
    to_others, to_own = (
        cdist(others, predicted[None], name),
        cdist(own[None], predicted[None], name),
    )
    expected = 1.0 - (to_others < to_own).mean()
    assert nearer_than_others(predicted, own, others, metric) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_no_shift_discriminates_by_chance(metric: str) -> None:
    deltas = np.random.default_rng(0).normal(size=(8, 20))
    scores = [
        nearer_than_others(np.zeros(20), deltas[i], np.delete(deltas, i, axis=0), metric)
        for i in range(8)
    ]
    assert np.mean(scores) == pytest.approx(0.5)


def welch_of(cells: Array, controls: Array) -> Array:
    return welch_t(moments_of(cells), moments_of(controls))


def test_top_genes_follow_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    true, controls = rng.normal(size=(12, 40)), rng.normal(0.5, 2.0, size=(30, 40))
    expected = ttest_ind(true, controls, equal_var=False)
    t = welch_of(true, controls)
    np.testing.assert_allclose(t, expected.statistic)
    assert most_shifted(t, 7).tolist() == np.argsort(-np.abs(expected.statistic))[:7].tolist()
    assert len(most_shifted(t, 50)) == 20, "at most half of the panel"
    shifted = true + np.where(np.arange(40) < 6, 4.0, 0.0)
    p = ttest_ind(shifted, controls, equal_var=False).pvalue
    is_found = responds(moments_of(shifted), moments_of(controls))
    assert is_found.tolist() == (false_discovery_control(p) < 0.05).tolist()
    assert is_found[:6].all()


def test_constant_genes_are_no_surprise_to_welch() -> None:
    true, controls = np.zeros((5, 3)), np.zeros((6, 3))
    true[:, 1] = 1.0
    t = welch_of(true, controls)
    assert t.tolist() == [0.0, np.inf, 0.0]
    assert gene_weights(t).tolist() == [0.0, 1.0, 0.0]
    assert responds(moments_of(true), moments_of(controls)).tolist() == [False, True, False]


def test_weights_are_the_squares_of_scaled_t() -> None:
    assert gene_weights(np.array([1.0, -3.0, 2.0])).tolist() == [0.0, 0.8, 0.2]
    assert gene_weights(np.zeros(4)).tolist() == [0.25] * 4


def test_genes_in_no_order_count_as_drawn_at_random() -> None:
    is_hit = np.arange(10) < 4
    assert expected_share(np.array([0, 1, 9, 8]), 4, is_hit) == 0.5
    assert expected_share(np.zeros(0, dtype=int), 5, is_hit) == pytest.approx(0.4)
    assert expected_share(np.array([0]), 3, is_hit) == pytest.approx((1 + 2 * 3 / 9) / 3)


def test_every_metric_is_best_for_the_truth_and_declares_what_it_is() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=(50, 12)) + np.linspace(-2, 2, 12)
    controls, others = rng.normal(size=(60, 12)), rng.normal(size=(3, 12))
    truth = case_of(true, true, controls, others)
    unlike = -2.0 * controls[:, ::-1] - 3.0
    unlike[:, ::2] = unlike[:, [0]]
    wrong, nothing = (case_of(cells, true, controls, others) for cells in (unlike, controls))
    for name, metric in METRICS.items():
        assert metric.is_defined(truth)
        if name != "de_precision_top50":  # nearly all genes respond
            assert metric.loss(metric.of(truth)) < metric.loss(metric.of(wrong)), name
        assert metric.needs
        assert metric.meaning.endswith("."), name
        if metric.chance is not None and "discrimination" not in name:
            assert metric.of(nothing) == pytest.approx(metric.chance(nothing.truth), abs=1e-12), (
                name
            )


def test_controls_in_another_order_have_no_shift() -> None:
    rng = np.random.default_rng(0)
    controls = rng.exponential(size=(301, 200))
    case = case_of(controls[rng.permutation(301)], rng.exponential(size=(50, 200)), controls)
    assert METRICS["pearson_delta"].of(case) == 0.0
    assert METRICS["direction_top50"].of(case) == 0.5
    assert METRICS["de_overlap_top50"].of(case) == 0.25


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_cells_that_count_twice_are_copies_but_make_no_pair_with_themselves(
    n: int, m: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    weights, ones = rng.integers(0, 4, size=n).astype(float), np.ones(m)
    if (weights > 0).sum() < 2:
        return
    copies = np.repeat(np.arange(n), weights.astype(int))
    among = [math.dist(a[i], a[j]) for i, j in itertools.permutations(copies, 2) if i != j]
    within = [math.dist(x, y) for x, y in itertools.permutations(b, 2)]
    cross = [math.dist(a[i], y) for i in copies for y in b]
    expected = 2 * np.mean(cross) - np.mean(among) - np.mean(within)
    assert Pairs(a, b, 1.0).energy_distance(weights, ones) == pytest.approx(expected)


def test_cells_of_one_origin_make_no_pair() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
    origin, weights = np.array([0, 0, 1, 2, 2, 2, 1]), rng.integers(1, 4, size=7).astype(float)
    pairs = [(i, j) for i, j in itertools.product(range(7), repeat=2) if origin[i] != origin[j]]
    share = [weights[i] * weights[j] for i, j in pairs]
    among = np.average([math.dist(a[i], a[j]) for i, j in pairs], weights=share)
    within = np.mean([math.dist(x, y) for x, y in itertools.permutations(b, 2)])
    cross = np.average([math.dist(x, y) for x in a for y in b], weights=np.repeat(weights, 4))
    found = Pairs(a, b, 1.0, origin).energy_distance(weights, np.ones(4))
    assert found == pytest.approx(2 * cross - among - within)


def test_distances_are_unbiased_however_often_a_control_serves() -> None:
    rng = np.random.default_rng(2)
    n, rounds = 12, 5
    origins = {"known": np.tile(np.arange(n), rounds), "unknown": None}
    found: dict[str, list[list[float]]] = {name: [] for name in origins}
    for _ in range(300):
        # true cells, and virtual ones: the same distribution, made of few controls
        true = rng.normal(size=(30, 4)) + rng.normal(size=(30, 4))
        controls = np.tile(rng.normal(size=(n, 4)), (rounds, 1))
        virtual = controls + rng.normal(size=controls.shape)
        weights = np.ones(len(virtual)), np.ones(len(true))
        for name, origin in origins.items():
            pairs = Pairs(virtual, true, 2.0, origin)
            found[name].append([pairs.energy_distance(*weights), pairs.squared_mmd(*weights)])
    for name, scores in found.items():
        mean, error = np.mean(scores, axis=0), np.std(scores, axis=0) / math.sqrt(len(scores))
        assert (abs(mean) < 3 * error).all() if name == "known" else (mean > 5 * error).all()


def test_cells_of_one_origin_are_redrawn_together() -> None:
    rng = np.random.default_rng(3)
    cells, top, origin = rng.normal(5.0, 1.0, size=(9, 4)), np.array([2, 0]), np.arange(9) % 4
    population = Population(cells, cells, np.arange(9), origin)
    counts = np.random.default_rng(7).multinomial(4, np.full(4, 1 / 4), size=5)
    drawn = population.resampled(top, counts.astype(float))
    for often, moments in zip(counts, drawn, strict=True):
        copies = np.repeat(cells, often[origin], axis=0)
        assert moments.n_cells == len(copies)
        np.testing.assert_allclose(moments.mean, copies.mean(axis=0))
        np.testing.assert_allclose(moments.variance, copies.var(axis=0, ddof=1))
        np.testing.assert_allclose(moments.top_covariance, np.cov(copies[:, top], rowvar=False))
        assert moments.pc_weights.tolist() == often[origin].tolist()


def test_resampled_moments_are_those_of_the_copied_cells() -> None:
    rng = np.random.default_rng(0)
    cells, top = rng.normal(5.0, 1.0, size=(20, 6)), np.array([4, 1])
    population = Population(cells, cells[::2], np.arange(0, 20, 2), np.arange(20))
    counts = np.random.default_rng(7).multinomial(20, np.full(20, 1 / 20), size=3)
    drawn = population.resampled(top, counts.astype(float))
    for weights, moments in zip(counts, drawn, strict=True):
        copies = np.repeat(cells, weights, axis=0)
        np.testing.assert_allclose(moments.mean, copies.mean(axis=0))
        np.testing.assert_allclose(moments.variance, copies.var(axis=0, ddof=1))
        np.testing.assert_allclose(moments.top_covariance, np.cov(copies[:, top], rowvar=False))
        assert moments.pc_weights.tolist() == weights[::2].tolist()


def test_a_gene_whose_cells_are_not_drawn_does_not_vary() -> None:
    """Rounding leaves 1e-17 of a variance, and ratios to it would be enormous."""
    rng = np.random.default_rng(0)
    cells = np.log1p(rng.poisson(0.1, size=(11, 200)) * rng.uniform(1, 9, size=(11, 1)))
    top = np.arange(60)
    counts = drawn_with_replacement(11, 50, np.random.default_rng(1))
    for moments in population_of(cells).resampled(top, counts):
        copies = np.repeat(cells, moments.pc_weights.astype(int), axis=0)
        varies = (copies != copies[0]).any(axis=0)
        assert ((moments.variance > 0) == varies).all()
        assert ((np.diagonal(moments.top_covariance) > 0) == varies[top]).all()
    whole = population_of(np.full((11, 3), 0.1)).moments(np.arange(2))
    assert not whole.variance.any()
    assert not whole.top_covariance.any()


def test_of_two_cells_no_draw_is_one_of_them_twice() -> None:
    cells = np.array([[0.0, 1.0], [2.0, 1.0]])
    population = population_of(cells)
    counts = drawn_with_replacement(2, 40, np.random.default_rng(0))
    drawn = list(population.resampled(np.arange(1), counts))
    assert len(drawn) == 40
    assert all((moments.pc_weights == 1).all() for moments in drawn)


def test_where_one_origin_alone_is_drawn_all_cells_are_taken_once() -> None:
    """Controls are drawn for all that is made of them, and of some little is left."""
    cells = np.arange(12.0).reshape(6, 2)
    population = Population(cells, cells, np.arange(6), np.array([0, 0, 2, 2, 2, 2]))
    counts = np.array([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    drawn = [moments.pc_weights.tolist() for moments in population.resampled(np.arange(1), counts)]
    assert drawn == [[1.0] * 6, [2.0, 2.0, 1.0, 1.0, 1.0, 1.0], [1.0] * 6]
