"""The field prepared for an integration is the field, however its cells are grouped."""

import pytest
import torch

from cfmvc.models import CFMVCModel
from cfmvc.models.cell_groups import CellGroups, _equal_rows
from cfmvc.models.prepared_field import PreparedField

Conditions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def many(n_cells: int, n_kinds: int) -> Conditions:
    """Return cells of a few conditions in any order, a fifth of them unperturbed."""
    torch.manual_seed(3)
    kinds = torch.zeros(n_kinds, 5)
    kinds[torch.arange(n_kinds), torch.randint(5, (n_kinds,))] = 0.5 + torch.rand(n_kinds)
    batch, cell_type = torch.randint(3, (n_kinds,)), torch.randint(4, (n_kinds,))
    row = torch.randint(n_kinds, (n_cells,))
    return kinds[row] * (row % 5 > 0)[:, None], batch[row], cell_type[row]


@pytest.mark.parametrize(("n_cells", "n_kinds"), [(3000, 12), (100, 2), (60, 50), (1, 1)])
def test_prepared_field_is_the_field(model: CFMVCModel, n_cells: int, n_kinds: int) -> None:
    conditions = many(n_cells, n_kinds)
    z = torch.randn(n_cells, 6)
    model.eval()
    velocity = PreparedField(model.context, model.field, *conditions)
    assert (velocity.groups is not None) is (n_cells >= 16 * n_kinds)
    for t in (0.0, 0.35, 1.0):
        time = torch.tensor(t)
        expected = model.field(z, time, *model.context(*conditions))
        torch.testing.assert_close(velocity(time, z), expected, rtol=1e-5, atol=1e-5)


def test_prepared_field_knows_places() -> None:
    torch.manual_seed(0)
    model = CFMVCModel(30, 3, 4, 5, 6, 3, 16, 8, 16, 4, spatial_dim=2).eval()
    conditions, place = many(200, 3), torch.rand(200, 2)
    velocity = PreparedField(model.context, model.field, *conditions, place)
    z, time = torch.randn(200, 6), torch.tensor(0.5)
    expected = model.field(z, time, *model.context(*conditions, place))
    torch.testing.assert_close(velocity(time, z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_unperturbed_cells_among_many_stay_to_the_bit(method: str) -> None:
    torch.manual_seed(0)
    model = CFMVCModel(30, 3, 4, 5, 6, 3, 16, 8, 16, 4, source="control").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    p, batch, cell_type = many(1000, 10)
    z_0 = torch.randn(1000, 6) * 3
    moved = model.sample_z1_from_flow(p, batch, cell_type, z_0=z_0, method=method)
    unperturbed = ~(p[:, 1:] != 0).any(1)
    assert 0 < int(unperturbed.sum()) < 1000
    assert torch.equal(moved[unperturbed], z_0[unperturbed])
    assert not torch.equal(moved, z_0)


def test_company_does_not_matter(model: CFMVCModel) -> None:
    conditions, z_0 = many(2000, 8), torch.randn(2000, 6)
    whole = model.sample_z1_from_flow(*conditions, z_0=z_0)
    for size in (7, 150, 1999):
        parts = [
            model.sample_z1_from_flow(*(values[rows] for values in conditions), z_0=z_0[rows])
            for rows in (slice(start, start + size) for start in range(0, 2000, size))
        ]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=2e-5)


def test_a_non_finite_velocity_is_reported_of_the_cell_that_had_it() -> None:
    torch.manual_seed(0)
    model = CFMVCModel(30, 3, 4, 5, 6, 3, 16, 8, 16, 4).eval()
    events: list = []
    z_0 = torch.zeros(400, 6)
    z_0[[17, 250]] = float("nan")
    model.sample_z1_from_flow(*many(400, 4), z_0=z_0, n_steps=2, events=events)
    assert [event.cells for event in events] == [[17, 250], [17, 250]]


def test_blocks_hold_each_cell_once_and_are_not_tiny() -> None:
    groups = CellGroups.by_condition(*many(9000, 40))
    assert groups is not None
    pieces = [piece for block in groups.blocks for piece in block]
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, 9000)
    for piece in pieces:
        assert (groups.member[piece.start : piece.stop] == piece.group).all()
    assert groups.order is not None
    assert groups.place is not None
    cells = torch.arange(9000)
    assert torch.equal(groups.in_given_order(groups.sorted(cells)), cells)


def test_rows_of_one_sum_are_told_apart() -> None:
    # The columns weigh sqrt(2) and sqrt(3).
    rows = torch.tensor([[3.0, 0.0], [0.0, 2.0], [3.0, 0.0]]).double().sqrt()
    member, n_cells = _equal_rows(rows)
    assert (member[0] == member[2], member[0] == member[1]) == (True, False)
    assert sorted(n_cells.tolist()) == [1, 2]
