"""Parts of a covariance are covariances, and reach what they are meant to reach."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cfmvc.flow.condition_kernels import (
    N_STATE,
    Conditions,
    StateBasis,
    bend,
    distinct,
    effects_of,
)
from cfmvc.flow.doses import DoseCurves

N_PARTS, N_CONTEXTS = 35, 5


def some(n: int, seed: int, n_embedding: int = 3) -> Conditions:
    """Multi-hot vectors with doses, among them the zero vector."""
    rng = np.random.default_rng(seed)
    p = (rng.random((n, 6)) < 0.3) * rng.choice([0.5, 1.0, 1.5, 4.0], (n, 6))
    p[0] = 0.0
    return Conditions(
        p,
        rng.integers(0, 2, n),
        rng.integers(0, 3, n),
        rng.integers(5, 50, n),
        rng.integers(5, 50, n),
        rng.normal(size=(n, 4)),
        p @ rng.normal(size=(6, n_embedding)),
        p @ rng.normal(size=(6, n_embedding)),
        np.where(np.count_nonzero(p, axis=1) > 1, 0.7, 1.0),
    )


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_every_part_is_a_covariance(n: int, seed: int) -> None:
    conditions = some(n, seed)
    kernels = conditions.kernels(conditions)
    assert kernels.shape == (N_PARTS, n, n)
    for part in [*kernels, conditions.rows(np.arange(n)).kernels(conditions)[0]]:
        np.testing.assert_allclose(part, part.T, atol=1e-12)
        assert np.linalg.eigvalsh(part).min() > -1e-8 * max(1.0, np.abs(part).max())


@given(st.integers(0, 10_000))
def test_no_perturbation_has_nothing_in_common_with_any(seed: int) -> None:
    conditions = some(8, seed)
    assert (conditions.kernels(conditions)[:, 0] == 0.0).all()


def test_a_combination_is_its_parts_and_what_they_are_together() -> None:
    a, b, ab = [1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]
    p = np.asarray([a, b, ab, ab])
    ones, none = np.ones(4, np.int64), np.zeros((4, 0))
    gain = np.asarray([1.0, 1.0, 0.5, 0.5])
    conditions = Conditions(p, np.arange(4), np.arange(4), ones, ones, none, none, none, gain)
    kernels = conditions.kernels(conditions)
    same, together, in_company = (kernels[number * N_CONTEXTS] for number in (1, 2, 3))
    np.testing.assert_array_equal(same[2], [0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(together, [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(in_company, 2.0 * together)


def test_what_a_perturbation_does_in_company_is_shared_by_its_combinations() -> None:
    p = np.asarray([[1.0, 1.0, 0, 0], [1.0, 0, 1.0, 0], [0, 0, 1.0, 1.0], [1.0, 0, 0, 0]])
    ones, none = np.ones(4, np.int64), np.zeros((4, 0))
    conditions = Conditions(p, ones, ones, ones, ones, none, none, none, np.ones(4))
    in_company = conditions.kernels(conditions)[3 * N_CONTEXTS]
    np.testing.assert_array_equal(in_company[0], [2, 1, 0, 0])


def test_a_bend_is_what_another_saturation_changes_in_a_curve() -> None:
    """By finite differences, for curves of whatever steepness; at the largest dose nothing."""
    x, step = np.linspace(0.0, 1.0, 11)[:, None], 1e-6
    for saturation, steepness in ((0.0, 1.0), (0.5, 2.0), (20.0, 0.7)):
        near = [
            DoseCurves(np.ones(1), np.asarray([k]), np.asarray([steepness])).curved(x)
            for k in (saturation, saturation + step)
        ]
        slope = (near[1] - near[0])[:, 0] / step
        found = bend(near[0])
        np.testing.assert_allclose(found[:, 0] / (1.0 + saturation), slope, atol=1e-5)
        assert (found[:, 1] == 0.0).all()


def test_beyond_the_largest_dose_a_bend_goes_on_and_less_is_known_of_it() -> None:
    np.testing.assert_allclose(bend(np.asarray([[0.999], [1.001]]))[:, 0], [1e-3, -1e-3], rtol=2e-3)
    at = np.asarray([[1.0], [1.5], [2.0], [3.0], [4.0]])
    np.testing.assert_allclose(bend(at), [[0, 0], [-0.5, 0.25], [-1, 1], [-1, 3], [-1, 5]])


def test_without_doses_nothing_is_bent() -> None:
    conditions = some(8, 0)
    ones = Conditions(**{**vars(conditions), "p": (conditions.p > 0).astype(float)})
    is_bent = effects_of(np.arange(N_PARTS)) == "bent"
    assert is_bent.sum() == N_CONTEXTS
    assert not ones.kernels(ones)[is_bent].any()
    assert conditions.kernels(conditions)[is_bent].any()


def test_an_embedding_reaches_what_was_never_seen() -> None:
    embedding = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    p = np.eye(3)
    ones = np.ones(3, np.int64)
    deviation = embedding - embedding.mean(axis=0)
    told = embedding, deviation, np.ones(3)
    conditions = Conditions(p, ones, ones, ones, ones, np.zeros((3, 0)), *told)
    like, unlike = conditions.kernels(conditions)[[5 * N_CONTEXTS, 6 * N_CONTEXTS]]
    assert like[2, 0] > like[2, 1] > 0
    np.testing.assert_allclose(unlike.sum(axis=1), 0.0, atol=1e-12)  # what all have is in no one
    assert unlike[2, 0] > 0 > unlike[2, 1]


def test_without_embeddings_there_is_nothing_that_they_tell() -> None:
    with_them, without = some(8, 0), some(8, 0, n_embedding=0)
    told = np.isin(effects_of(np.arange(N_PARTS)), ["like", "unlike"])
    parts, fewer = with_them.kernels(with_them), without.kernels(without)
    assert parts[told].any(axis=(1, 2)).all()
    np.testing.assert_array_equal(fewer, parts[~told])


def test_the_state_is_in_principal_components_of_which_the_largest_score_is_one() -> None:
    rng = np.random.default_rng(0)
    controls = rng.normal(size=(9, 30))
    basis = StateBasis.of(controls)
    scores = basis.scores(controls)
    assert scores.shape == (9, N_STATE)
    assert np.isclose(np.abs(scores).max(), 1.0)
    np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=1e-12)
    products = scores.T @ scores
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-10)
    assert StateBasis.of(controls[:1]).scores(controls).shape == (9, 0)


def test_a_stratum_of_a_cell_or_two_says_nothing_of_what_strata_differ_in() -> None:
    rng = np.random.default_rng(0)
    controls, n_cells = rng.normal(size=(9, 30)), np.full(9, 100)
    far = np.vstack([controls, 50 * rng.normal(size=(2, 30))])
    basis = StateBasis.of(far, np.append(n_cells, [2, 4]))
    np.testing.assert_array_equal(basis.axes, StateBasis.of(controls).axes)
    few = StateBasis.of(far, np.full(11, 2))
    np.testing.assert_array_equal(few.axes, StateBasis.of(far).axes)


def test_equal_and_empty_parts_count_once() -> None:
    part = np.eye(3)
    assert distinct(np.stack([part, 0 * part, part, 2 * part])).tolist() == [0, 3]


def test_the_covariance_is_the_sum_of_its_parts() -> None:
    conditions, parts, variances = some(7, 0), np.asarray([0, 7, 24]), np.asarray([0.5, 2.0, 3.0])
    others = conditions.rows(np.arange(3))
    expected = np.tensordot(variances, conditions.kernels(others)[parts], 1)
    np.testing.assert_allclose(conditions.covariance(others, parts, variances), expected)
