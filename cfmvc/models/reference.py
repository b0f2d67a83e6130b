"""Encoded cells: the table that the flow learns from, and what a model keeps to generate from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch

from cfmvc.data.dataset import Cells
from cfmvc.models.columns import Columns
from cfmvc.models.conditions import is_control
from cfmvc.models.encoder import EncoderVAE
from cfmvc.models.layers import evaluating

KEPT_PER_CONDITION = 500  # cells of each condition that a model keeps


@dataclass(frozen=True)
class ReferenceCells:
    """Encoded cells and their conditions; on one device.

    Parameters
    ----------
    vectors
        The distinct perturbation vectors, ``(n_vectors, K)``: a table, because thousands of cells
        times thousands of perturbations would not fit.
    vector
        Row of ``vectors`` of each cell, ``(n,)`` int64.
    batch, cell_type
        Column numbers, ``(n,)`` int64.
    library
        Total counts, ``(n,)``.
    int_mean, int_std, tech_mean, tech_std
        Moments of the posterior, ``(n, dim_int)`` and ``(n, dim_tech)``.
    spatial
        Coordinates, or None.
    neighbours
        Mean ``int_mean`` of the cells around (:mod:`~cfmvc.models.neighbours`), ``(n, dim_int)``;
        or None.
    """

    vectors: torch.Tensor
    vector: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    library: torch.Tensor
    int_mean: torch.Tensor
    int_std: torch.Tensor
    tech_mean: torch.Tensor
    tech_std: torch.Tensor
    spatial: torch.Tensor | None = None
    neighbours: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.library)

    @property
    def p(self) -> torch.Tensor:
        """Perturbation vectors of all cells, ``(n, K)``; gathered anew at each call."""
        return self.vectors[self.vector]

    @cached_property
    def place(self) -> torch.Tensor | None:
        """What the context is told of where cells are: coordinates, and who is around them."""
        if self.spatial is None or self.neighbours is None:
            return self.spatial
        return torch.cat([self.spatial, self.neighbours], dim=1)

    @cached_property
    def _number_of_vector(self) -> dict[bytes, int]:
        table = self.vectors.cpu().numpy()
        return {_digest(row): number for number, row in enumerate(table)}

    @cached_property
    def _is_unperturbed(self) -> torch.Tensor:
        return is_control(self.vectors)

    @property
    def is_control(self) -> torch.Tensor:
        """Which cells are unperturbed, ``(n,)`` bool."""
        return self._is_unperturbed[self.vector]

    @property
    def measured(self) -> torch.Tensor:
        """Which perturbation columns have cells with controls beside them, ``(K,)`` bool."""
        stratum = self.stratum
        is_beside = torch.isin(stratum, stratum[self.is_control])
        return (self.vectors[self.vector[is_beside].unique()] > 0).any(0)

    @property
    def is_finite(self) -> torch.Tensor:
        """Which cells were encoded to finite numbers, ``(n,)`` bool."""
        return torch.isfinite(self.int_mean).all(1) & torch.isfinite(self.int_std).all(1)

    @property
    def stratum(self) -> torch.Tensor:
        """A number of each cell's stratum, ``(n,)`` int64: batch and cell type."""
        if not len(self):
            return self.batch
        return self.batch * (self.cell_type.max() + 1) + self.cell_type

    @property
    def condition(self) -> torch.Tensor:
        """Number of each cell's condition, ``(n,)`` int64: vector, batch and cell type."""
        stratum = self.stratum
        # One number a cell: rows of three take longer to tell apart.
        n_strata = stratum.max() + 1 if len(self) else 1
        return torch.unique(self.vector * n_strata + stratum, return_inverse=True)[1]

    def bounded(self, most: int) -> "ReferenceCells":
        """Return at most ``most`` finite cells of each condition, drawn with a fixed seed."""
        finite = self.is_finite.nonzero().reshape(-1)  # numbers: of many cells no copy is made
        member = self.condition[finite].cpu()
        order = torch.randperm(len(finite), generator=torch.Generator().manual_seed(0))
        by_condition = order[torch.argsort(member[order], stable=True)]
        sizes = torch.bincount(member)
        rank = torch.arange(len(finite)) - (sizes.cumsum(0) - sizes)[member[by_condition]]
        kept = by_condition[rank < most].sort().values
        return self.select(finite[kept.to(finite.device)])

    def select(self, rows: torch.Tensor) -> "ReferenceCells":
        """Return some cells (indices or a boolean mask)."""
        chosen = {name: v if name == "vectors" else v[rows] for name, v in self._present().items()}
        return ReferenceCells(**chosen)

    def to(self, device: torch.device) -> "ReferenceCells":
        """Return the cells on ``device``."""
        return ReferenceCells(**{name: v.to(device) for name, v in self._present().items()})

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """Return the fields by name, for a file."""
        return {name: value.contiguous() for name, value in self._present().items()}

    def _present(self) -> dict[str, torch.Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def nearest(
        self, p: torch.Tensor, batch: torch.Tensor, cell_type: torch.Tensor
    ) -> torch.Tensor:
        """Draw a cell for each row from the most specific group that has any, each equally often.

        The groups: the condition itself; the stratum's controls; the stratum; the cell type's
        controls; the cell type; all cells.

        Parameters
        ----------
        p, batch, cell_type
            Conditions asked for, ``(B, K)``, ``(B,)``, ``(B,)``.

        Returns
        -------
        torch.Tensor
            Row numbers, ``(B,)`` int64.
        """
        asked = torch.cat([p, batch[:, None].to(p), cell_type[:, None].to(p)], dim=1)
        conditions, member = torch.unique(asked, dim=0, return_inverse=True)
        rows = torch.empty(len(p), dtype=torch.int64, device=p.device)
        for number, condition in enumerate(conditions):
            wanted = (member == number).nonzero().reshape(-1)
            stratum = (int(condition[-2]), int(condition[-1]))
            rows[wanted] = self.drawn(condition[:-2], *stratum, len(wanted))
        return rows

    def drawn(self, p: torch.Tensor, batch: int, cell_type: int, n: int) -> torch.Tensor:
        """Draw ``n`` cells of the group nearest to one condition, each about equally often.

        Parameters
        ----------
        p
            Perturbation vector, ``(K,)``.
        batch, cell_type
            Column numbers.
        n
            How many; no cell comes a second time before all came once.

        Returns
        -------
        torch.Tensor
            Row numbers, ``(n,)`` int64.
        """
        group = self._group(p, batch, cell_type)
        n_rounds = -(-n // len(group))
        orders = [torch.randperm(len(group), device=group.device) for _ in range(n_rounds)]
        return group[torch.cat(orders)[:n]]

    def of_condition(self, p: torch.Tensor, batch: int, cell_type: int) -> torch.Tensor:
        """Return which cells are of one condition, ``(n,)`` bool."""
        vector = p.to(self.vectors.dtype).cpu().numpy()
        number = self._number_of_vector.get(_digest(vector), -1)
        of_stratum = (self.cell_type == cell_type) & (self.batch == batch)
        return of_stratum & (self.vector == number)

    def _group(self, p: torch.Tensor, batch: int, cell_type: int) -> torch.Tensor:
        of_type = self.cell_type == cell_type
        of_stratum = of_type & (self.batch == batch)
        for mask in (
            lambda: self.of_condition(p, batch, cell_type),
            lambda: of_stratum & self.is_control,
            lambda: of_stratum,
            lambda: of_type & self.is_control,
            lambda: of_type,
        ):
            if len(rows := mask().nonzero().reshape(-1)):
                return rows
        return torch.arange(len(self), device=p.device)


def _digest(vector: np.ndarray) -> bytes:
    return hashlib.blake2b(vector.tobytes(), digest_size=16).digest()


@torch.no_grad()
def encode_cells(encoder: EncoderVAE, cells: Iterable[Cells], n_cells: int = 0) -> ReferenceCells:
    """Encode cells once, with the encoder in ``eval()`` and left in the mode it was in.

    Parameters
    ----------
    encoder
        A trained encoder.
    cells
        Cells, some at a time.
    n_cells
        How many are expected, where that is known: memory for them is taken at once.
    """
    columns, numbers = Columns(n_cells), dict[bytes, int]()
    vectors = list[torch.Tensor]()  # in the order of their numbers; each once, for they are wide
    for some in cells:
        with evaluating(encoder):
            q = encoder.posterior(some.x, some.batch, some.cell_type)
        int_std, tech_std = torch.exp(0.5 * q.int_logvar), torch.exp(0.5 * q.tech_logvar)
        moments = (q.int_mean, int_std, q.tech_mean, tech_std)
        place = () if some.spatial is None else (some.spatial,)
        few, vector = torch.unique(some.p, dim=0, return_inverse=True)
        number = torch.empty(len(few), dtype=torch.int64)
        vectors = vectors or [few[:0]]
        for row, values in enumerate(few.cpu().numpy()):
            if (key := values.tobytes()) not in numbers:
                numbers[key] = len(numbers)
                vectors.append(few[row : row + 1].clone())
            number[row] = numbers[key]
        codes = (number.to(vector.device)[vector], some.batch, some.cell_type)
        columns.add((*codes, some.x.sum(1), *moments, *place))
    distinct, position = torch.unique(torch.cat(vectors), dim=0, return_inverse=True)
    vector, *others = columns.whole()
    return ReferenceCells(distinct, position[vector], *others)
