"""All cells of a table through the encoder, once."""

from collections.abc import Iterator

import torch

from cfmvc.data.dataset import Cells, CellTable
from cfmvc.heap import give_back
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.neighbours import with_neighbours
from cfmvc.models.reference import ReferenceCells, encode_cells

CELLS_AT_A_TIME = 4096


def encode_table(
    model: CFMVCModel,
    table: CellTable,
    device: torch.device,
    tissue: ReferenceCells | None = None,
) -> ReferenceCells:
    """Encode all cells of a table; their neighbours are of ``tissue``, or else of the table."""
    encoded = _encoded(model, table, device)
    return with_neighbours(encoded, encoded if tissue is None else tissue, model.n_neighbours)


def settle_centring(model: CFMVCModel, table: CellTable, device: torch.device) -> None:
    """Centre the batches in ``z_int`` by all training cells, after the encoder has learnt."""
    cells = _encoded(model, table, device)
    model.encoder.centring.settle(
        cells.int_mean, cells.vector, cells.is_control, cells.batch, cells.cell_type
    )


def _encoded(model: CFMVCModel, table: CellTable, device: torch.device) -> ReferenceCells:
    give_back()  # of what was before, and of the counts: either may be the stage's peak
    encoded = encode_cells(model.encoder, _all(table, device), len(table))
    give_back()
    return encoded


def _all(table: CellTable, device: torch.device) -> Iterator[Cells]:
    """Yield all cells in order; an empty table yields one empty set of cells."""
    for start in range(0, max(len(table), 1), CELLS_AT_A_TIME):
        yield table.cells(slice(start, start + CELLS_AT_A_TIME), device)
