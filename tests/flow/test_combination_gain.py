"""How strongly perturbations act in company: found through noise, and not made of it."""

import numpy as np
import pytest

from cfmvc.flow.combination_gain import combination_gain

N_GENES, N_SINGLE = 400, 4
PAIRS = [(0, 1), (0, 2), (1, 2), (2, 3)]


def screen(
    gain: float, n_cells: int, n_controls: int, effect: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Singles and pairs in two strata, with the noise of their means and of the controls'."""
    rng = np.random.default_rng(seed)
    truth = effect * rng.normal(size=(N_SINGLE, N_GENES))
    p = np.vstack([np.eye(N_SINGLE), [np.eye(N_SINGLE)[list(pair)].sum(0) for pair in PAIRS]])
    shift = np.where(p.sum(1) > 1, gain, 1.0)[:, None] * (p @ truth)
    stratum = np.repeat([0, 1], len(p))
    p, shift = np.tile(p, (2, 1)), np.tile(shift, (2, 1))
    shift = shift + rng.normal(size=shift.shape) / np.sqrt(n_cells)
    shift -= (rng.normal(size=(2, N_GENES)) / np.sqrt(n_controls))[stratum]
    return p, shift, stratum, np.full(len(p), n_cells), np.full(len(p), n_controls)


@pytest.mark.parametrize("gain", [0.4, 1.0, 1.5])
@pytest.mark.parametrize(("n_cells", "n_controls"), [(1000, 1000), (5, 100), (100, 5)])
def test_found_where_means_are_noisy(gain: float, n_cells: int, n_controls: int) -> None:
    assert combination_gain(*screen(gain, n_cells, n_controls)) == pytest.approx(gain, abs=0.08)


def test_where_noise_drowns_the_effects_it_is_the_sum() -> None:
    for seed in range(10):
        found = combination_gain(*screen(0.0, 5, 5, effect=0.05, seed=seed))
        assert found == pytest.approx(1.0, abs=0.3)


def test_parts_count_at_their_doses_and_in_their_stratum_alone() -> None:
    p, shift, stratum, *sizes = screen(0.5, 1000, 1000)
    elsewhere = np.where(p.sum(1) > 1, stratum + 2, stratum)
    assert combination_gain(p, shift, elsewhere, *sizes) == 1.0
    weaker = np.where(p.sum(1, keepdims=True) > 1, 0.5 * p, p)
    assert combination_gain(weaker, shift, stratum, *sizes) == 1.0
    assert combination_gain(0.5 * p, shift, stratum, *sizes) == pytest.approx(0.5, abs=0.02)


def test_a_combination_whose_part_was_not_measured_says_nothing() -> None:
    p, shift, stratum, *sizes = screen(0.5, 1000, 1000)
    known = ~((p[:, 3] > 0) & (p.sum(1) == 1))
    wrong = np.where((p[:, 3] > 0)[:, None] & known[:, None], 100.0, shift)
    some = (known, *[values[known] for values in sizes])[1:]
    found = combination_gain(p[known], wrong[known], stratum[known], *some)
    assert found == pytest.approx(0.5, abs=0.02)


def test_never_beyond_what_makes_sense() -> None:
    p, shift, stratum, *sizes = screen(0.5, 1000, 1000)
    is_pair = p.sum(1, keepdims=True) > 1
    assert combination_gain(p, np.where(is_pair, -shift, shift), stratum, *sizes) == 0.0
    assert combination_gain(p, np.where(is_pair, 20 * shift, shift), stratum, *sizes) == 2.0


def test_without_combinations_it_is_the_sum() -> None:
    p, shift, stratum, *sizes = screen(0.5, 10, 10)
    rows = p.sum(1) == 1
    some = [values[rows] for values in sizes]
    assert combination_gain(p[rows], shift[rows], stratum[rows], *some) == 1.0
