"""Scales of effects against SciPy's densities, and against effects of known sizes."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cfmvc.flow.condition_kernels import Conditions
from cfmvc.flow.local_scales import RATIOS, LocalScales, learnt_shares, likelihoods, sets_of
from cfmvc.flow.shift_process import ShiftProcess

N_GENES = 400


def covariances(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, 2))
    return factor @ factor.T, np.diag(rng.uniform(0.5, 1.5, n)) + 0.2


def scales(p: np.ndarray, shift: np.ndarray, noise: float = 0.1) -> LocalScales:
    """Each condition a measurement of its own perturbations, all ratios as likely."""
    shares = np.full((len(p), len(RATIOS)), 1.0 / len(RATIOS))
    of_noise = noise * np.eye(len(p))
    return LocalScales(p, p @ p.T, of_noise, shift, np.ones(shift.shape[1]), shares)


def test_likelihoods_are_those_of_scipy() -> None:
    signal, noise = covariances(4)
    shift, size = np.random.default_rng(1).normal(size=(4, 3)), np.asarray([0.1, 1.0, 7.0])
    found = likelihoods(signal, noise, shift, size)
    for gene in range(3):
        expected = [
            multivariate_normal(np.zeros(4), ratio * size[gene] * signal + noise).logpdf(
                shift[:, gene]
            )
            for ratio in RATIOS
        ]
        np.testing.assert_allclose(np.diff(found[:, gene]), np.diff(expected), rtol=1e-8)


def test_shares_are_those_that_were_drawn() -> None:
    """One set moves a tenth of the genes, 256 times as usual in variance; another moves none."""
    rng = np.random.default_rng(0)
    one, noise = np.ones((1, 1)), np.full((1, 1), 1e-3)
    is_moved = rng.random(5000) < 0.1
    moved = np.where(is_moved, 16.0, 1 / 16.0) * rng.normal(size=5000)
    unmoved = rng.normal(size=5000) / 16.0
    told = [
        likelihoods(one, noise, shift[None] + rng.normal(size=5000) * 0.03, np.ones(5000))
        for shift in (moved, unmoved)
    ]
    shares = learnt_shares(np.stack(told).astype(np.float32))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares[0, -1] == pytest.approx(0.1, abs=0.02)
    assert shares[0, 0] == pytest.approx(0.9, abs=0.03)
    assert shares[1, 0] > 0.95


def test_doses_of_the_same_perturbations_are_one_set() -> None:
    p = np.asarray([[1.0, 0.0], [0.25, 0.0], [0.25, 1.0], [1.0, 0.5]])
    sets, member = sets_of(p)
    assert len(sets) == 2
    assert member[0] == member[1] != member[2] == member[3]


@pytest.mark.parametrize("asked", [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
def test_what_was_never_measured_moves_genes_as_usual(asked: list[float]) -> None:
    known = scales(np.eye(3)[:2], np.ones((2, N_GENES)))
    np.testing.assert_array_equal(known.of(np.asarray(asked))[RATIOS == 1.0], 1.0)


def test_a_gene_that_is_moved_strongly_has_a_large_ratio() -> None:
    shift = np.zeros((2, 2))
    shift[:, 0] = 20.0
    known = scales(np.asarray([[1.0, 0.0], [0.5, 0.0]]), shift)
    found = RATIOS @ known.of(np.asarray([0.25, 0.0]))
    assert found[0] > 50.0 > 5.0 > found[1]
    assert RATIOS @ known.of(np.asarray([0.25, 0.0]), without=0)[:, 0] != found[0]


def test_few_strong_effects_are_shrunk_less_and_all_others_more() -> None:
    """Each perturbation moves genes of its own: no gene is known for moving, none for staying."""
    rng = np.random.default_rng(0)
    n_kinds, n_batches, n_cells = 30, 2, 100
    is_moved = rng.random((n_kinds, N_GENES)) < 0.05
    effect = np.where(is_moved, rng.normal(size=is_moved.shape), 0.0)
    kind, batch = np.divmod(np.arange(n_kinds * n_batches), n_batches)
    n = len(kind)
    conditions = Conditions(
        np.eye(n_kinds)[kind],
        batch,
        np.zeros(n, np.int64),
        np.full(n, n_cells),
        np.full(n, 100_000),
        *3 * [np.zeros((n, 0))],
        np.ones(n),
    )
    shift = effect[kind] + rng.normal(size=(n, N_GENES)) / np.sqrt(n_cells)
    asked = conditions.rows(np.flatnonzero(batch == 1))
    process = ShiftProcess.fit(conditions.rows(np.flatnonzero(batch == 0)), shift[batch == 0])
    found, measured = process.expected(asked), shift[batch == 0]
    is_strong = np.abs(effect) > 0.5
    slope = (found * effect)[is_strong].sum() / (effect**2)[is_strong].sum()
    assert slope == pytest.approx(1.0, abs=0.1)
    rest = np.square(found - effect)[~is_moved].mean() / np.square(measured)[~is_moved].mean()
    assert rest < 0.3, "of the noise in what does not move little is believed"
    off = np.abs(found - effect) / process.spread(asked)
    assert (off[is_moved] < 1.645).mean() > 0.8, "and how sure it is it says"
