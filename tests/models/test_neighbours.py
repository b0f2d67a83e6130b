"""Neighbours against a search of all pairs."""

import dataclasses

import numpy as np
import torch

from cfmvc.models import neighbours
from cfmvc.models.neighbours import with_neighbours
from cfmvc.models.reference import ReferenceCells

N, DIM = 120, 3


def cells(seed: int = 0, n: int = N) -> ReferenceCells:
    """Three batches; vector 0 is the control; the third batch has none."""
    rng = np.random.default_rng(seed)
    batch = torch.from_numpy(rng.integers(3, size=n))
    vector = torch.from_numpy(rng.integers(2, size=n))
    vector[batch == 2] = 1
    normal = torch.from_numpy(rng.normal(size=(n, DIM)).astype(np.float32))
    return ReferenceCells(
        vectors=torch.tensor([[0.0, 0.0], [0.0, 1.0]]),
        vector=vector,
        batch=batch,
        cell_type=torch.zeros(n, dtype=torch.int64),
        library=torch.ones(n),
        int_mean=normal,
        int_std=torch.ones(n, DIM),
        tech_mean=torch.zeros(n, 1),
        tech_std=torch.ones(n, 1),
        spatial=torch.from_numpy(rng.uniform(size=(n, 2)).astype(np.float32)),
    )


def nearest(seen: ReferenceCells, row: int, tissue: ReferenceCells, n: int) -> torch.Tensor:
    """Return the mean latent of the neighbours of one cell, looking at every pair."""
    assert seen.spatial is not None
    assert tissue.spatial is not None
    usable = (tissue.batch == seen.batch[row]) & tissue.is_finite
    if (usable & tissue.is_control).any():
        usable &= tissue.is_control
    distance = (tissue.spatial - seen.spatial[row]).norm(dim=1)
    distance[~usable | (distance == 0)] = torch.inf
    order = distance.argsort()[:n]
    return tissue.int_mean[order[torch.isfinite(distance[order])]].mean(0)


def test_neighbours_are_the_nearest_controls_of_the_batch() -> None:
    tissue = cells()
    found = with_neighbours(tissue, tissue, 4).neighbours
    assert found is not None
    expected = torch.stack([nearest(tissue, row, tissue, 4) for row in range(N)])
    torch.testing.assert_close(found, expected)


def test_of_several_at_one_place_as_many_count_as_are_wanted() -> None:
    """A grid of spots: those at the cell's own place are none, and there are n all the same."""
    tissue = cells()
    grid = torch.from_numpy(np.random.default_rng(2).integers(0, 3, (N, 2)).astype(np.float32))
    tissue = dataclasses.replace(tissue, spatial=grid, vector=torch.zeros_like(tissue.vector))
    found = with_neighbours(tissue, tissue, 4).neighbours
    assert found is not None
    for row in range(N):
        distance = (grid - grid[row]).norm(dim=1).double()
        distance[(tissue.batch != tissue.batch[row]) | (distance == 0)] = torch.inf
        left, total = 4.0, torch.zeros(DIM)
        for ring in distance[torch.isfinite(distance)].unique().tolist():
            places = grid[distance == ring].unique(dim=0)
            if left <= 0 or (len(places) > 1 and left < int((distance == ring).sum())):
                break  # which of two places as near comes first is nobody's business
            mine = tissue.int_mean[distance == ring]
            taken = min(left, len(mine))
            total, left = total + taken * mine.mean(0), left - taken
        else:
            left = 0.0
        if left <= 0:
            torch.testing.assert_close(found[row], total / 4.0)


def test_cells_of_elsewhere_look_for_them_in_the_tissue(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "_AT_A_TIME", 7)
    tissue, others = cells(), cells(1, 30)
    found = with_neighbours(others, tissue, 5).neighbours
    assert found is not None
    expected = torch.stack([nearest(others, row, tissue, 5) for row in range(30)])
    torch.testing.assert_close(found, expected)


def test_more_than_there_are_is_all_of_them_and_nan_is_nobodys_neighbour() -> None:
    tissue = cells()
    tissue.int_mean[5] = float("nan")
    found = with_neighbours(tissue, tissue, 500).neighbours
    assert found is not None
    assert torch.isfinite(found).all()
    expected = torch.stack([nearest(tissue, row, tissue, 500) for row in range(N)])
    torch.testing.assert_close(found, expected)


def test_who_has_no_neighbour_takes_the_mean_of_the_tissue() -> None:
    tissue = cells()
    alone = tissue.select(torch.tensor([0]))
    elsewhere = dataclasses.replace(alone, batch=torch.tensor([7]))
    found = with_neighbours(elsewhere, tissue, 3).neighbours
    assert found is not None
    torch.testing.assert_close(found[0], tissue.int_mean.mean(0))
    nobody = tissue.select(torch.zeros(N, dtype=torch.bool))
    none = with_neighbours(alone, nobody, 3).neighbours
    assert none is not None
    assert not none.any()


def test_without_coordinates_or_wish_there_are_none() -> None:
    tissue = cells()
    assert with_neighbours(tissue, tissue, 0).place is tissue.spatial
    placeless = dataclasses.replace(tissue, spatial=None)
    assert with_neighbours(placeless, placeless, 3).place is None
    place = with_neighbours(tissue, tissue, 3).place
    assert place is not None
    assert place.shape == (N, 2 + DIM)
