"""Cells sorted by condition, so that what a condition has in common is computed once."""

from dataclasses import dataclass
from itertools import pairwise

import torch

AT_A_TIME = 1024  # cells whose activations stay in a core's cache
_FEWEST_A_CONDITION = 16  # a matrix of its own for fewer cells costs more than it saves


@dataclass(frozen=True)
class Piece:
    """Neighbouring cells of one group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class CellGroups:
    """Cells sorted by condition.

    Parameters
    ----------
    first
        A cell of each group, ``(C,)``.
    member
        Group of each cell, sorted, ``(B,)``.
    order
        The cell at each sorted place, ``(B,)``; None where they are sorted as given.
    place
        The sorted place of each cell, ``(B,)``; None as well.
    blocks
        Pieces of groups, some hundred cells together.
    """

    first: torch.Tensor
    member: torch.Tensor
    order: torch.Tensor | None
    place: torch.Tensor | None
    blocks: list[list[Piece]]

    @classmethod
    def by_condition(
        cls, p: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
    ) -> "CellGroups | None":
        """Group cells by their conditions; None where most groups would be of a few cells."""
        if len(p) < _FEWEST_A_CONDITION:
            return None
        columns = torch.cat([p.double(), torch.stack([batch_idx, ct_idx], 1)], dim=1)
        member, n_cells = _equal_rows(columns)
        if len(p) < _FEWEST_A_CONDITION * len(n_cells):
            return None
        order = torch.argsort(member, stable=True)
        first = order[n_cells.cumsum(0) - n_cells]
        blocks = _blocks(n_cells.tolist())
        if torch.equal(order, torch.arange(len(order))):
            return cls(first, member, None, None, blocks)
        return cls(first, member[order], order, torch.argsort(order), blocks)

    def sorted(self, values: torch.Tensor) -> torch.Tensor:
        """Return rows in sorted order."""
        return values if self.order is None else values.index_select(0, self.order)

    def in_given_order(self, values: torch.Tensor) -> torch.Tensor:
        """Return sorted rows in the order in which the cells came."""
        return values if self.place is None else values.index_select(0, self.place)


def _equal_rows(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return numbers of the rows, ``(B,)``, the same for equal ones, and how often each occurs.

    A sort of rows takes longer than all of an integration's step: weighted sums are sorted instead,
    and looked at afterwards, should two different rows have the same.
    """
    sums = columns @ torch.arange(2, 2 + columns.shape[1]).to(columns).sqrt()
    _, member, n_cells = torch.unique(sums, return_inverse=True, return_counts=True)
    order = torch.argsort(member, stable=True)
    first = order[n_cells.cumsum(0) - n_cells]
    if not torch.equal(columns, columns[first[member]]):
        _, member, n_cells = torch.unique(columns, dim=0, return_inverse=True, return_counts=True)
    return member, n_cells


def _blocks(n_cells: list[int]) -> list[list[Piece]]:
    """Cut large groups into equal pieces, and put small ones together."""
    blocks: list[list[Piece]] = []
    size, start = AT_A_TIME, 0
    for group, n in enumerate(n_cells):
        n_pieces = max(1, round(n / AT_A_TIME))
        bounds = [start + n * k // n_pieces for k in range(n_pieces + 1)]
        for piece in (Piece(group, *pair) for pair in pairwise(bounds)):
            if size >= AT_A_TIME // 2:
                blocks.append([])
                size = 0
            blocks[-1].append(piece)
            size += piece.stop - piece.start
        start += n
    return blocks
