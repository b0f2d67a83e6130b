"""How strongly perturbations act in company: found through noise, and not made of it."""

import numpy as np
import pytest

from cfmvc.flow.combination_gain import combination_gain, gains_of

N_GENES, N_SINGLE, STRATA = 400, 5, 2
PAIRS = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (0, 4), (1, 3), (2, 4)]
Screen = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def vectors(sets: list[tuple[int, ...]]) -> np.ndarray:
    return np.stack([np.eye(N_SINGLE)[list(one)].sum(0) for one in sets])


def screen(
    gain: float | np.ndarray,
    n_cells: tuple[int, int] = (20, 500),
    n_controls: tuple[int, int] = (20, 500),
    effect: float = 1.0,
    shared: float = 0.0,
    sets: list[tuple[int, ...]] = PAIRS,
    seed: int = 0,
) -> Screen:
    """Singles and sets of them in two strata, from uneven numbers of cells and controls."""
    rng = np.random.default_rng(seed)
    of_all = shared * rng.normal(size=N_GENES)
    own = effect * rng.normal(size=(N_SINGLE, N_GENES))
    p = np.vstack([np.eye(N_SINGLE), vectors(sets)])
    factor = np.concatenate([np.ones(N_SINGLE), np.broadcast_to(gain, len(sets))])
    truth = np.tile(of_all + factor[:, None] * (p @ own), (STRATA, 1))
    stratum, p = np.repeat(np.arange(STRATA), len(p)), np.tile(p, (STRATA, 1))
    cells = rng.integers(*n_cells, len(p))
    controls = rng.integers(*n_controls, STRATA)
    shift = truth + rng.normal(size=truth.shape) / np.sqrt(cells)[:, None]
    shift -= (rng.normal(size=(STRATA, N_GENES)) / np.sqrt(controls)[:, None])[stratum]
    return p, shift, stratum, cells, controls[stratum]


def rows_of(known: Screen, rows: np.ndarray) -> Screen:
    p, shift, stratum, cells, controls = (values[rows] for values in known)
    return p, shift, stratum, cells, controls


@pytest.mark.parametrize("gain", [0.4, 1.0, 1.5])
@pytest.mark.parametrize("sizes", [((20, 500), (20, 500)), ((3, 30), (100, 101)), ((100, 300), 2)])
def test_found_where_means_are_noisy(gain: float, sizes: tuple) -> None:
    n_cells, few = sizes
    n_controls = (2, 5) if few == 2 else few
    found = [combination_gain(*screen(gain, n_cells, n_controls, seed=seed)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(gain, abs=0.1)
    assert np.std(found) < 0.1


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.2, 0.05])
def test_parts_that_are_not_equally_strong_have_less_of_it(strength: float) -> None:
    """As `gains_of` gives it: what is found and what is applied are the same."""
    p, shift, stratum, *sizes = screen(1.0, (500, 501), (500, 501))
    p = p * np.where(np.arange(N_SINGLE) % 2, strength, 1.0)
    shift = gains_of(p, 0.4)[:, None] * (p @ shift[:N_SINGLE])
    assert combination_gain(p, shift, stratum, *sizes) == pytest.approx(0.4, abs=0.08)


def test_combinations_of_few_cells_are_believed_less() -> None:
    known = [screen(0.4, (500, 501), (500, 501), effect=0.2, seed=seed) for seed in range(20)]
    found = {}
    for cells in (500, 2):
        of_cells = []
        for seed, (p, shift, stratum, sizes, controls) in enumerate(known):
            is_set = p.sum(1) > 1
            noise = np.random.default_rng(seed + 100).normal(size=shift.shape)
            few = np.where(is_set, cells, sizes)
            noisy = shift + np.where(is_set, 1.0 / np.sqrt(cells), 0.0)[:, None] * noise
            of_cells.append(combination_gain(p, noisy, stratum, few, controls))
        found[cells] = np.asarray(of_cells)
    assert np.abs(found[500] - 0.4).max() < 0.2
    assert found[500].mean() < found[2].mean() < 1.0
    assert found[2].std() < 0.2


def test_of_three_parts_too() -> None:
    triples = [(0, 1, 2), (1, 2, 3), (0, 3, 4), (1, 2, 4), (0, 2, 4)]
    found = [
        combination_gain(*screen(0.5, (5, 50), (3, 20), sets=triples, seed=seed))
        for seed in range(5)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("gain", [0.6, 1.0])
@pytest.mark.parametrize("shared", [0.0, 1.0, 2.0])
def test_what_all_perturbations_do_alike_does_not_count_as_a_gain(
    gain: float, shared: float
) -> None:
    found = combination_gain(*screen(gain, shared=shared))
    assert found == pytest.approx(gain, abs=0.08 if shared < 2 else 0.12)


def test_genes_that_do_not_respond_and_few_cells_somewhere_take_nothing_away() -> None:
    p, shift, stratum, cells, controls = screen(0.5, (100, 200), (200, 300))
    silent = np.random.default_rng(1).normal(size=(len(p), 4000)) / np.sqrt(cells)[:, None]
    wide = np.hstack([shift, silent])
    assert combination_gain(p, wide, stratum, cells, controls) == pytest.approx(0.5, abs=0.08)
    noise = np.random.default_rng(2).normal(size=shift.shape) / np.sqrt(2)
    beside = (
        np.vstack([p, p]),
        np.vstack([shift, shift + noise]),
        np.concatenate([stratum, stratum + STRATA]),
        np.concatenate([cells, np.full(len(p), 2)]),
        np.concatenate([controls, controls]),
    )
    assert combination_gain(*beside) == pytest.approx(0.5, abs=0.08)


def test_where_noise_drowns_the_effects_it_is_the_sum() -> None:
    found = [
        combination_gain(*screen(0.0, (5, 6), (5, 6), effect=0.05, seed=seed)) for seed in range(10)
    ]
    assert np.abs(np.asarray(found) - 1.0).max() < 0.2


def test_of_a_single_combination_half_is_believed_of_many_all() -> None:
    one, three = (screen(0.4, (500, 501), (500, 501), sets=PAIRS[:n]) for n in (1, 3))
    assert combination_gain(*one) == pytest.approx(0.7, abs=0.03)
    assert combination_gain(*three) == pytest.approx(0.46, abs=0.03)


def test_combinations_that_differ_leave_their_mean_unsure() -> None:
    known = [screen(gain, (500, 501), (500, 501)) for gain in (0.5, np.tile([-0.4, 1.4], 4))]
    alike, differing = (combination_gain(*one) for one in known)
    assert alike == pytest.approx(0.5, abs=0.04)
    assert 0.6 < differing < 0.9


def test_parts_count_at_other_doses_and_in_their_stratum_alone() -> None:
    known = screen(0.5, (500, 501), (500, 501))
    p, shift, stratum, *sizes = known
    is_set = p.sum(1) > 1
    elsewhere = np.where(is_set, stratum + STRATA, stratum)
    assert combination_gain(p, shift, elsewhere, *sizes) == 1.0
    weaker = np.where(is_set[:, None], 0.5 * p, p)  # half of both parts: half of the sum is less
    assert combination_gain(weaker, shift, stratum, *sizes) == pytest.approx(1.0, abs=0.05)
    halved = np.where(is_set[:, None], 0.5 * shift, shift)
    assert combination_gain(weaker, halved, stratum, *sizes) == pytest.approx(0.5, abs=0.05)


def test_a_combination_whose_part_was_not_measured_says_nothing() -> None:
    known = screen(0.5, (500, 501), (500, 501))
    p, shift, *rest = known
    wrong = np.where((p[:, 3] > 0)[:, None], 100.0, shift)
    is_left = ~((p[:, 3] > 0) & (p.sum(1) == 1))
    found = combination_gain(*rows_of((p, wrong, *rest), is_left))
    assert found == pytest.approx(0.5, abs=0.05)


def test_without_combinations_genes_or_effects_it_is_the_sum() -> None:
    known = screen(0.5)
    assert combination_gain(*rows_of(known, known[0].sum(1) == 1)) == 1.0
    p, shift, *rest = known
    assert combination_gain(p, shift[:, :0], *rest) == 1.0
    assert combination_gain(p, 0.0 * shift, *rest) == 1.0


def test_a_part_that_hardly_acts_leaves_the_other_as_it_is() -> None:
    p = np.asarray(
        [[1.0, 0, 0], [1.0, 1e-6, 0], [1.0, 0.5, 0], [0.7, 0.7, 0], [1, 1, 1], [0, 0, 0]]
    )
    np.testing.assert_allclose(gains_of(p, 0.4), [1.0, 1.0, 0.7, 0.4, 0.4, 1.0], atol=1e-5)
    assert (gains_of(p[[0, 5]], 0.123) == 1.0).all()
