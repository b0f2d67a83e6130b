"""A step's cells shared out among processes, so that several train as one would.

Each process takes a contiguous share of every step's cells. What is drawn at random is drawn for
all of the step's cells, by all processes alike, and each keeps the rows of its share: several
processes see the noise that one would have seen, and one state of the generator describes them all.

Stages that do not train ask for their share as well: torch is imported where it has to work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shard:
    """One process among those that train together.

    Parameters
    ----------
    rank, n_ranks
        Which one, and how many there are.
    """

    rank: int = 0
    n_ranks: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all: it alone writes and logs."""
        return self.rank == 0

    def share(self, n_cells: int) -> slice:
        """Return this process's rows of ``n_cells``; shares differ by one at most.

        Of fewer cells than processes each takes all: an empty share has no loss.
        """
        if n_cells < self.n_ranks:
            return slice(0, n_cells)
        return slice(n_cells * self.rank // self.n_ranks, n_cells * (self.rank + 1) // self.n_ranks)

    def size(self, n_cells: int) -> float:
        """Return for how many of ``n_cells`` this process's share counts; they add up to all."""
        share = self.share(n_cells)
        return (share.stop - share.start) / (self.n_ranks if n_cells < self.n_ranks else 1)

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place."""
        if self.n_ranks > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.n_ranks > 1:
            import torch.distributed as dist

            dist.barrier()


@dataclass
class _Step:
    shard: Shard
    n_cells: int | None = None  # of all shares of the present step, or of a part of it
    part: float = 1.0  # how much of the step that is


_current = _Step(Shard())


def current_shard() -> Shard:
    """Return the share of this process: all, unless :func:`shared_out` says otherwise."""
    return _current.shard


@contextmanager
def shared_out(shard: Shard) -> Iterator[None]:
    """Let a block compute one process's share."""
    global _current
    before, _current = _current, _Step(shard)
    try:
        yield
    finally:
        _current = before


@contextmanager
def of_step(n_cells: int, part: float = 1.0) -> Iterator[None]:
    """Say how many cells all shares of the present step have, or of which part of it."""
    before = _current.n_cells, _current.part
    _current.n_cells, _current.part = n_cells, part
    try:
        yield
    finally:
        _current.n_cells, _current.part = before


def part_of_step() -> float:
    """Return which part of a step's cells is computed: all, unless memory asks for less."""
    return _current.part


@contextmanager
def process_group() -> Iterator[Shard]:
    """Join the processes that ``torchrun`` has started; alone where it has not.

    On GPUs each process takes the device of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield current_shard()
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        yield current_shard()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        shard = Shard(dist.get_rank(), dist.get_world_size())
        with shared_out(shard):
            yield shard
    finally:
        dist.destroy_process_group()


def sum_over_cells(values: torch.Tensor) -> torch.Tensor:
    """Sum over all processes, in place, what each has summed over its share of the step's cells."""
    shard, n_cells = _current.shard, _current.n_cells
    if n_cells is not None and n_cells < shard.n_ranks:
        values /= shard.n_ranks
    return shard.sum_(values)


def normal_like(values: torch.Tensor) -> torch.Tensor:
    """Draw from N(0, 1), one row a cell: the shape and place of ``values``."""
    import torch

    return _own_rows(torch.randn, values)


def uniform_like(values: torch.Tensor) -> torch.Tensor:
    """Draw from U[0, 1), one row a cell: the shape and place of ``values``."""
    import torch

    return _own_rows(torch.rand, values)


def _own_rows(draw: Callable[..., torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Draw for all cells of the step, and return the rows of this share."""
    shard, n_cells, rows = _current.shard, len(values), slice(None)
    if shard.n_ranks > 1:
        assert _current.n_cells is not None, "cells shared out outside of a step"
        n_cells = _current.n_cells
        rows = shard.share(n_cells)
        assert rows.stop - rows.start == len(values), "draws have one row a cell of this share"
    drawn = draw(n_cells, *values.shape[1:], dtype=values.dtype, device=values.device)
    return drawn[rows]
