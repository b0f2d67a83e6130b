"""Pairs of which slopes are learnt: within strata, finite, and never too many."""

import numpy as np
import pytest
import torch

from cfmvc.flow.state_slopes import PairGroup
from cfmvc.models.reference import ReferenceCells
from cfmvc.training import pairs
from cfmvc.training.pairs import CellPairs, sampled_pairs

N_VECTORS = 3


def encoded(n: int = 600, seed: int = 0) -> ReferenceCells:
    """Two batches, two cell types, two perturbations; a stratum has no controls."""
    rng = np.random.default_rng(seed)
    vector, batch, cell_type = (torch.from_numpy(rng.integers(0, m, n)) for m in (N_VECTORS, 2, 2))
    vector[(batch == 1) & (cell_type == 1) & (vector == 0)] = 1
    vectors = torch.tensor([[0.0, 0, 0], [0, 1.0, 0], [0, 0, 0.5]])
    means = torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))
    means[::17] = torch.nan
    ones = torch.ones(n, 4)
    return ReferenceCells(
        vectors, vector, batch, cell_type, ones[:, 0], means, ones, ones[:, :2], ones[:, :2]
    )


def sampled(cells: ReferenceCells, seed: int = 0) -> list[PairGroup]:
    return sampled_pairs(CellPairs(cells, cells, lambda z: z, "ot", seed))


def rows_of(groups: list[PairGroup]) -> np.ndarray:
    return np.concatenate([rows for group in groups for rows in (group.before, group.after)])


def test_both_cells_are_finite_and_of_one_stratum_and_the_first_is_a_control() -> None:
    cells = encoded()
    groups = sampled(cells)
    assert cells.is_finite[rows_of(groups)].all()
    for group in groups:
        assert cells.is_control[group.before].all()
        np.testing.assert_array_equal(cells.p[group.after].unique(dim=0)[0], group.p)
        strata = cells.stratum[np.concatenate([group.before, group.after])]
        assert len(strata.unique()) == 1
        assert len(np.unique(group.after)) == len(group.after)
    perturbed = np.concatenate([group.after for group in groups if group.p.any()])
    has_controls = ~((cells.batch == 1) & (cells.cell_type == 1))
    wanted = (~cells.is_control & cells.is_finite & has_controls).nonzero()[:, 0]
    np.testing.assert_array_equal(np.sort(perturbed), wanted)


def test_of_controls_none_is_on_both_sides() -> None:
    cells = encoded()
    groups = [group for group in sampled(cells) if not group.p.any()]
    assert len(groups) == 3
    for group in groups:
        assert not set(group.before) & set(group.after)
        assert abs(len(set(group.before)) - len(group.after)) <= 1


def test_many_conditions_have_fewer_pairs_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = encoded()
    monkeypatch.setattr(pairs, "_MOST_PAIRS", 60)
    groups = sampled(cells)
    assert len(groups) == 9
    assert {len(group.after) for group in groups} == {60 // 9}
    monkeypatch.setattr(pairs, "_MOST_PAIRS", 8)
    assert sampled(cells) == []  # a pair each would tell nothing
    monkeypatch.setattr(pairs, "_MOST_PAIRS", 60)
    monkeypatch.setattr(pairs, "_MOST_OF_A_GROUP", 3)
    assert {len(group.after) for group in sampled(cells)} == {3}


def test_the_same_seed_gives_the_same_pairs_and_another_one_others() -> None:
    cells = encoded()
    first, same, other = (rows_of(sampled(cells, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert len(first) != len(other) or (first != other).any()


def test_without_controls_there_are_no_pairs() -> None:
    cells = encoded()
    alone = cells.select(~cells.is_control)
    assert sampled(alone) == []
    assert sampled(cells.select(cells.is_control)) == []


def test_a_single_cell_type_has_none() -> None:
    cells = encoded()
    assert sampled(cells.select(cells.cell_type == 0)) == []
