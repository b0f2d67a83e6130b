"""Cells that live on the GPU: those of a step are one gather there, and nothing crosses the bus."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cfmvc.data.dataset import Cells, CellTable

_SHARE_OF_FREE_MEMORY = 0.25  # the rest is for the model and a step's activations


class HeldCells(Protocol):
    """Whatever gives the cells of a step."""

    def cells(
        self, rows: np.ndarray | slice, device: torch.device, with_terms: bool = False
    ) -> Cells:
        """Gather rows on ``device``."""


@dataclass(frozen=True)
class ResidentTable:
    """A table with dense counts on one device.

    Parameters
    ----------
    x, batch, cell_type, spatial
        Of every cell, on the device, as in :class:`~cfmvc.data.dataset.Cells`.
    conditions, condition
        The distinct perturbation vectors, and the row of each cell: vectors are wide.
    """

    x: torch.Tensor
    conditions: torch.Tensor
    condition: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    spatial: torch.Tensor | None

    @classmethod
    def of(cls, table: CellTable, device: torch.device) -> "ResidentTable":
        """Move a table's cells to a device."""

        def moved(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        return cls(
            moved(table.rows(slice(None)).toarray()),
            moved(table.conditions),
            moved(table.condition),
            moved(table.batch),
            moved(table.cell_type),
            None if table.spatial is None else moved(table.spatial),
        )

    def cells(
        self, rows: np.ndarray | slice, device: torch.device, with_terms: bool = False
    ) -> Cells:
        """Gather rows; their tally, if it is wanted, is made there from the dense counts."""
        numbers = np.arange(len(self.x))[rows]
        return self.gathered(torch.from_numpy(numbers).to(device, non_blocking=True))

    def gathered(self, at: torch.Tensor) -> Cells:
        """Gather rows whose numbers are on the device, ``(B,)`` int64."""
        return Cells(
            self.x.index_select(0, at),
            self.conditions.index_select(0, self.condition.index_select(0, at)),
            self.batch.index_select(0, at),
            self.cell_type.index_select(0, at),
            None if self.spatial is None else self.spatial.index_select(0, at),
        )


def held_for(table: CellTable, device: torch.device) -> HeldCells:
    """Return the cells where a training takes them from: on the GPU if they fit, else the host."""
    fits = lives_on(device, len(table), table.n_genes)
    return ResidentTable.of(table, device) if fits else table


def lives_on(device: torch.device, n_cells: int, n_genes: int) -> bool:
    """Return whether the counts of so many cells are kept on the device, as dense float32."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return n_cells * n_genes * 4 <= _SHARE_OF_FREE_MEMORY * free
