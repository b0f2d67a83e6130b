"""Slopes on the state of cells: those of least squares, shrunk, and not made of chance."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cfmvc.flow.couplings import optimal_transport
from cfmvc.flow.doses import DoseCurves
from cfmvc.flow.state_slopes import (
    ChangeSums,
    PairedCells,
    PairGroup,
    StateSlopes,
    level_of_cell_types,
)

N_GENES, N_CELLS = 40, 1500
MARKERS = slice(0, 10)  # what cell types differ in
LEVELS = np.zeros((3, N_GENES))
LEVELS[1, MARKERS], LEVELS[2, MARKERS] = 1.0, -1.0  # states 0, 1 and -1
TARGETS = np.arange(20, 30)  # whose response follows the state
DRUG, OTHER = np.asarray([0.0, 1.0, 0.0]), np.asarray([0.0, 0.0, 1.0])


def cells_of(rng: np.random.Generator, n: int, spread: float = 0.5) -> np.ndarray:
    """Cells of one type that vary along what cell types differ in, and otherwise by noise."""
    state = spread * rng.normal(size=(n, 1))
    cells = 0.3 * rng.normal(size=(n, N_GENES))
    cells[:, MARKERS] += state
    return cells


def response(cells: np.ndarray, slope: float = 0.8) -> np.ndarray:
    """All genes shift by 1, the targets by more where the state is high."""
    shift = np.ones_like(cells)
    shift[:, TARGETS] += slope * cells[:, MARKERS].mean(axis=1, keepdims=True)
    return shift


def paired(rng: np.random.Generator, p: np.ndarray = DRUG) -> PairedCells:
    """Each cell with itself after the perturbation, and noise."""
    before = cells_of(rng, N_CELLS)
    after = before + response(before) + 0.3 * rng.normal(size=before.shape)
    rows = np.arange(N_CELLS)
    return PairedCells(csr_matrix(np.vstack([before, after])), [PairGroup(p, rows, rows + N_CELLS)])


def fitted(pairs: PairedCells | None, largest: float = 1.0) -> StateSlopes:
    doses = DoseCurves.straight(np.full(len(DRUG), largest))
    return StateSlopes.fit(np.arange(3), LEVELS, pairs, doses)


def test_what_cells_show_is_expected_of_cell_types() -> None:
    slopes = fitted(paired(np.random.default_rng(0)))
    assert slopes.columns.tolist() == [1]
    found = slopes.shifts(np.tile(DRUG, (3, 1)), np.arange(3), LEVELS)
    # Shrunk by the cells that are supposed beside the real ones, of the variance that states have.
    assert found[1, TARGETS].mean() == pytest.approx(0.8, abs=0.25)
    np.testing.assert_allclose(found[1], -found[2], atol=1e-6)
    rest = np.setdiff1d(np.arange(N_GENES), TARGETS)
    assert np.abs(found[1, rest]).mean() < 0.05 * found[1, TARGETS].mean()
    assert np.mean(found[1, rest] == 0.0) > 0.5


def test_without_a_prior_they_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(1)
    state, change = rng.normal(size=(200, 2)), rng.normal(size=(200, 5))
    change += state @ (10.0 * rng.normal(size=(2, 5)))
    group = np.repeat([0, 1], 100)
    sums = [ChangeSums.of(state[group == g], change[group == g]) for g in (0, 1)]
    both = sums[0] + sums[1]
    design = np.hstack([state, np.eye(2)[group]])  # a constant of each group
    expected, squares, *_ = np.linalg.lstsq(design, change, rcond=None)
    plain = np.linalg.solve(both.state, both.both)
    np.testing.assert_allclose(plain, expected[:2], rtol=1e-9)
    left = both.without(plain)
    np.testing.assert_allclose(left.square, squares, rtol=1e-9)
    np.testing.assert_allclose(left.both, 0.0, atol=1e-9)
    np.testing.assert_allclose(both.slope(0.0), expected[:2], rtol=1e-2)  # hardly by chance


def test_noise_alone_gives_nearly_nothing() -> None:
    rng = np.random.default_rng(2)
    sums = ChangeSums.of(rng.normal(size=(900, 3)), rng.normal(size=(900, 300)))
    plain = np.linalg.solve(sums.state, sums.both)
    assert (sums.slope(0.0) ** 2).sum() < 0.05 * (plain**2).sum()


def test_regression_to_the_mean_is_no_response() -> None:
    """Two independent samples, paired: where the first is high by chance the change falls."""
    rng = np.random.default_rng(3)
    cells = np.vstack([cells_of(rng, 400, spread=0.05) for _ in range(3)])
    cells[400:800] += 1.0  # the perturbed ones; the response is the same for all

    def group(p: np.ndarray, first: int) -> PairGroup:
        before, after = cells[:400], cells[first : first + 400]
        return PairGroup(p, optimal_transport(before, after, rng), np.arange(first, first + 400))

    groups = [group(DRUG, 400), group(np.zeros(3), 800)]
    asked = np.tile(DRUG, (3, 1)), np.arange(3), LEVELS
    without = fitted(PairedCells(csr_matrix(cells), groups[:1])).shifts(*asked)[1, MARKERS]
    found = fitted(PairedCells(csr_matrix(cells), groups)).shifts(*asked)[1, MARKERS]
    assert without.mean() < -0.1
    assert np.abs(found).mean() < 0.2 * np.abs(without).mean()


def test_doses_count_relative_to_the_largest() -> None:
    pairs = paired(np.random.default_rng(0))
    many = PairedCells(
        pairs.expression, [PairGroup(100.0 * group.p, *pair_rows(group)) for group in pairs.groups]
    )
    np.testing.assert_allclose(fitted(many, 100.0).slope, fitted(pairs).slope)
    half = fitted(pairs).shifts(0.5 * DRUG[None], np.asarray([1]), LEVELS[1:2])
    whole = fitted(pairs).shifts(DRUG[None], np.asarray([1]), LEVELS[1:2])
    np.testing.assert_allclose(half, 0.5 * whole)


def pair_rows(group: PairGroup) -> tuple[np.ndarray, np.ndarray]:
    return group.before, group.after


def test_a_combination_is_the_sum_of_its_parts_and_teaches_none_of_them() -> None:
    rng = np.random.default_rng(0)
    pairs = paired(rng)
    together = [*pairs.groups, PairGroup(DRUG + OTHER, *pair_rows(pairs.groups[0]))]
    slopes = fitted(PairedCells(pairs.expression, together))
    np.testing.assert_array_equal(slopes.slope, fitted(pairs).slope)
    p = np.stack([DRUG, OTHER, DRUG + OTHER, 0.0 * DRUG])
    found = slopes.shifts(p, np.ones(4, np.int64), LEVELS[[1] * 4])
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[[1, 3]] == 0.0).all()


def test_a_new_cell_type_is_known_by_its_controls() -> None:
    slopes = fitted(paired(np.random.default_rng(0)))
    new = np.asarray([7])
    found = slopes.shifts(DRUG[None], new, LEVELS[1:2])
    known = slopes.shifts(DRUG[None], np.asarray([1]), 0.0 * LEVELS[1:2])
    np.testing.assert_allclose(found, known, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_of_few_pairs_and_of_one_cell_type_nothing_is_known(n: int) -> None:
    pairs = paired(np.random.default_rng(0))
    rows = np.arange(n)
    few = PairedCells(pairs.expression, [PairGroup(DRUG, rows, rows + N_CELLS)])
    asked = DRUG[None], np.asarray([1]), LEVELS[1:2]
    assert (fitted(few).shifts(*asked) == 0.0).all()
    assert not len(fitted(few).columns)
    assert (fitted(None).shifts(*asked) == 0.0).all()
    alone = StateSlopes.fit(np.asarray([1]), LEVELS[1:2], pairs, np.ones(len(DRUG)))
    assert (alone.shifts(*asked) == 0.0).all()


def test_levels_of_cell_types_count_cells() -> None:
    kinds, levels = level_of_cell_types(
        np.asarray([4, 2, 4]), np.asarray([30, 5, 10]), np.asarray([[1.0], [7.0], [5.0]])
    )
    assert kinds.tolist() == [2, 4]
    np.testing.assert_allclose(levels, [[7.0], [2.0]])
