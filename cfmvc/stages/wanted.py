"""The conditions that virtual cells are asked for, as a model reads them."""

import numpy as np
import pandas as pd
import torch

from cfmvc.errors import UnknownLabelError
from cfmvc.models.bundle import Bundle
from cfmvc.models.reference import ReferenceCells


class Wanted:
    """The conditions asked for, and which of them each cell is of.

    Conditions are rows of a table, because thousands of cells times thousands of perturbations
    would not fit.
    """

    def __init__(
        self,
        p: torch.Tensor,
        batch: torch.Tensor,
        cell_type: torch.Tensor,
        n_cells: pd.Series,
    ) -> None:
        self.p, self.batch, self.cell_type = p, batch, cell_type
        self.n_cells = n_cells.tolist()
        rows = np.repeat(np.arange(len(p)), n_cells.to_numpy())
        self.row = torch.from_numpy(rows).to(p.device)

    @classmethod
    def of(cls, bundle: Bundle, asked: pd.DataFrame) -> "Wanted":
        """Read a table of conditions with the model's columns; unknown labels are an error."""
        vocabulary, device = bundle.vocabulary, bundle.device
        doses = asked["dose"].to_numpy(float) if "dose" in asked else None
        readers = {
            "perturbation": lambda labels: vocabulary.perturbation_matrix(labels, doses),
            "batch": vocabulary.batch_codes,
            "cell_type": vocabulary.cell_type_codes,
        }
        columns, unknown = [], []
        for name, read in readers.items():  # all that is unknown is named at once
            try:
                columns.append(torch.from_numpy(read(asked[name].to_numpy())).to(device))
            except UnknownLabelError as error:
                unknown.append(str(error))
        if unknown:
            raise UnknownLabelError("\n".join(unknown))
        return cls(columns[0], columns[1], columns[2], asked["n_cells"])

    def __len__(self) -> int:
        return len(self.row)

    def conditions(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return vectors, batches and cell types of some rows of the table."""
        return self.p[rows], self.batch[rows], self.cell_type[rows]

    def drawn_from(self, pool: ReferenceCells, unperturbed: bool = False) -> torch.Tensor:
        """Draw a cell of ``pool`` for each cell: of its condition, or a control of its stratum."""
        p = torch.zeros_like(self.p) if unperturbed else self.p
        strata = zip(self.batch.tolist(), self.cell_type.tolist(), self.n_cells, strict=True)
        return torch.cat(
            [pool.drawn(p[row], *stratum_and_n) for row, stratum_and_n in enumerate(strata)]
        )
