"""Arithmetic in the latent space, by hand."""

import torch

from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.arithmetic import LatentArithmetic

NOTHING, A, B, BOTH = [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]


def encoded(cells: list[tuple[list[float], int, int, float]]) -> ReferenceCells:
    """Cells of perturbation, batch, cell type and place on one axis."""
    vectors, vector = torch.tensor([cell[0] for cell in cells]).unique(dim=0, return_inverse=True)
    place = torch.tensor([[cell[3]] for cell in cells])
    codes = [torch.tensor([cell[n] for cell in cells]) for n in (1, 2)]
    return ReferenceCells(vectors, vector, *codes, torch.ones(len(cells)), *[place] * 4)


CELLS = encoded(
    [
        (NOTHING, 0, 0, 1.0),
        (NOTHING, 0, 0, 3.0),
        (A, 0, 0, 7.0),  # shift 5
        (B, 0, 0, 1.0),  # shift -1
        (NOTHING, 1, 0, 10.0),
        (A, 1, 0, 50.0),  # shift 40, the stratum's own
        (NOTHING, 0, 1, 0.0),
        (A, 0, 1, 100.0),  # shift 100, another cell type
    ]
)


def moved(p: list[float], batch: int, cell_type: int, of: ReferenceCells = CELLS) -> float:
    at = torch.tensor([[2.0]])
    codes = torch.tensor([batch]), torch.tensor([cell_type])
    return float(LatentArithmetic(of).moved(at, torch.tensor([p]), *codes)) - 2.0


def test_shifts_come_from_other_strata_of_the_same_cell_type() -> None:
    assert moved(A, 1, 0) == 5.0
    assert moved(A, 0, 0) == 40.0


def test_of_another_cell_type_where_there_is_no_other() -> None:
    assert moved(B, 1, 1) == -1.0
    assert moved(A, 0, 1) == 22.5, "each stratum weighs the same"


def test_a_combination_is_the_sum_of_its_parts() -> None:
    assert moved(BOTH, 1, 0) == 21.5, "22.5 of its cell type, its own stratum too; -1"
    assert moved(BOTH, 0, 1) == 99.0, "100 of its own stratum, the only one of its cell type"


def test_no_perturbation_and_what_was_never_seen_move_nothing() -> None:
    assert moved(NOTHING, 1, 0) == 0.0
    assert moved(B, 0, 0, of=CELLS.select(CELLS.vectors[CELLS.vector][:, 1] == 0)) == 0.0


def test_another_dose_serves_where_this_one_was_not_seen() -> None:
    """The order of the additive shift: elsewhere at this dose, here, anywhere at another."""
    assert moved([3.0, 0.0], 1, 0) == 22.5, "at 1, the only one"
    assert moved(B, 0, 0) == -1.0, "seen nowhere else"
    more = encoded(
        [
            (NOTHING, 0, 0, 0.0),
            ([0.5, 0.0], 0, 0, 3.0),
            ([2.0, 0.0], 0, 0, 8.0),
            ([2.0, 2.0], 0, 0, 30.0),
            ([1.0, 0.0], 1, 0, 99.0),
            (NOTHING, 1, 0, 0.0),
            (NOTHING, 2, 0, 0.0),
        ]
    )
    assert moved([0.5, 0.0], 1, 0, more) == 3.0
    assert moved([1.0, 0.0], 1, 0, more) == 99.0, "seen nowhere else at this dose"
    assert moved([1.6, 0.0], 1, 0, more) == 8.0, "at 2"
    assert moved([1.4, 0.0], 1, 0, more) == 99.0, "at 1, here"
    assert moved([1.0, 1.0], 1, 0, more) == 30.0, "both together, at the nearest dose"
