"""Targets are moved condition by condition; controls and what differs within stay."""

import dataclasses

import torch

from cfmvc.models import CFMVCModel
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.targets import denoised


def latents() -> tuple[CFMVCModel, ReferenceCells]:
    """Two perturbations without any effect, in three batches; batch 2 has no controls."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    n = 600
    vector, batch = torch.arange(n) % 3, torch.arange(n) // 3 % 3
    vector[(batch == 2) & (vector == 0)] = 1
    mean = torch.randn(n, 4, generator=generator) + 2.0 * batch[:, None]
    narrow = torch.full((n, 4), 0.1)
    kind, library = torch.zeros(n, dtype=torch.int64), torch.ones(n)
    cells = ReferenceCells(vectors, vector, batch, kind, library, mean, narrow, narrow, narrow)
    model = CFMVCModel(5, 3, 1, 3, 4, 4, 8, 8, 8, 4)
    model.fit_standardisation(cells)
    return model, cells


def test_moves_conditions_as_a_whole_towards_their_expectation() -> None:
    model, cells = latents()
    moved = denoised(model, cells)(cells)
    step = moved.int_mean - cells.int_mean
    assert (step[cells.is_control] == 0).all()
    assert (step[cells.batch == 2] == 0).all()
    for vector in (1, 2):
        for batch in (0, 1):
            mine = (cells.vector == vector) & (cells.batch == batch)
            torch.testing.assert_close(step[mine], step[mine][:1].expand(int(mine.sum()), 4))
            control = cells.int_mean[cells.is_control & (cells.batch == batch)].mean(0)
            before = (cells.int_mean[mine].mean(0) - control).norm()
            after = (moved.int_mean[mine].mean(0) - control).norm()
            assert after < before


def test_other_cells_of_the_same_conditions_move_alike() -> None:
    model, cells = latents()
    move = denoised(model, cells)
    some = cells.select(torch.arange(50, 130))
    torch.testing.assert_close(move(some).int_mean, move(cells).int_mean[50:130])


def test_cells_that_are_not_finite_disturb_nothing() -> None:
    model, cells = latents()
    spoilt = cells.int_mean.clone()
    spoilt[4] = float("nan")
    found = denoised(model, dataclasses.replace(cells, int_mean=spoilt))(cells)
    assert torch.isfinite(found.int_mean).all()
