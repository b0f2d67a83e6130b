"""Where a stage's cells come from: the data set's table, its latents, or a user's loader."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import torch

from cfmvc.data.ahead import made_ahead
from cfmvc.data.dataset import Cells, CellTable
from cfmvc.data.resident import HeldCells, ResidentTable, held_for
from cfmvc.data.samplers import ShuffledBlocks, ShuffledCells
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.reference import ReferenceCells
from cfmvc.shards import normal_like
from cfmvc.training.objectives import LatentCells
from cfmvc.training.pair_rounds import PairRounds
from cfmvc.training.pairs import CellPairs


@dataclass(frozen=True)
class StepCells:
    """The cells of one optimiser step, gathered when they are needed, and as many as fit.

    Parameters
    ----------
    rows
        Their rows in the table.
    take
        Gathers some of them: a slice of ``rows``.
    """

    rows: np.ndarray
    take: Callable[[slice], Any]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class IndexedCells:
    """The cells of one optimiser step that are on the device already, all of them.

    Parameters
    ----------
    rows
        Their rows in the table.
    indices
        Numbers that say which they are, ``(n_kinds, B)`` int64.
    gather
        From such numbers, on the device, to the cells; the same function for every step of a
        source, and no more than the numbers tells one step from another.
    device
        Where.
    """

    rows: np.ndarray
    indices: np.ndarray
    gather: Callable[[torch.Tensor], Any]
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, part: slice) -> Any:
        """Gather some of them."""
        return self.gather(torch.from_numpy(self.indices[:, part]).to(self.device))


class CellSource(Protocol):
    """Cells of one epoch, a step's worth at a time."""

    @property
    def n_cells(self) -> int:
        """Cells an epoch."""

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[StepCells | IndexedCells]:
        """Yield the cells of each step from ``first_step`` on."""


@dataclass(frozen=True)
class TableSource:
    """Cells of a table, shuffled anew each epoch; a step's rows become dense on the device.

    Of a table on disk a window of some thousand cells is in memory at a time. On a GPU the cells
    live there, if they fit.
    """

    table: CellTable
    cells_per_step: int
    seed: int
    device: torch.device

    @property
    def _order(self) -> ShuffledCells:
        order = ShuffledBlocks if self.table.is_on_disk else ShuffledCells
        return order(len(self.table), self.cells_per_step, self.seed)

    @property
    def n_cells(self) -> int:
        """Cells an epoch."""
        return len(self.table)

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return self._order.n_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[StepCells | IndexedCells]:
        """Yield the cells of each step, in the order of this epoch."""
        windows = self._windows(epoch, first_step)
        if not self.table.is_on_disk:
            for rows in chain.from_iterable(map(self._order.steps, windows)):
                yield self._of_step(rows)
            return
        for window, table in made_ahead(partial(self._read, window) for window in windows):
            held = held_for(table, self.device)
            for here in self._order.steps(np.arange(len(window))):
                yield StepCells(window[here], partial(self._gathered, held, here))

    def _windows(self, epoch: int, first_step: int) -> Iterator[np.ndarray]:
        """Yield the windows of an epoch without the cells of the steps before ``first_step``."""
        n_passed = first_step * self.cells_per_step  # windows before the last have whole steps
        for window in self._order.windows(epoch):
            if n_passed < len(window):
                yield window[n_passed:]
            n_passed = max(n_passed - len(window), 0)

    def _read(self, window: np.ndarray) -> tuple[np.ndarray, CellTable]:
        return window, self.table.subset(window)

    def _of_step(self, rows: np.ndarray) -> StepCells | IndexedCells:
        held = self._held
        if isinstance(held, ResidentTable):
            return IndexedCells(rows, rows[None], partial(_resident_cells, held), self.device)
        return StepCells(rows, partial(self._gathered, held, rows))

    @cached_property
    def _held(self) -> HeldCells:
        return held_for(self.table, self.device)

    def _gathered(self, held: HeldCells, here: np.ndarray, part: slice) -> Cells:
        return held.cells(here[part], self.device, with_terms=True)


class LoaderSource:
    """Collated batches of a user's ``DataLoader``, in the loader's own order."""

    def __init__(self, loader: Iterable[Mapping[str, Any]], device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.n_steps = len(loader)  # type: ignore[arg-type]
        dataset = getattr(loader, "dataset", None)
        self.n_cells = self.n_steps if dataset is None else len(dataset)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[StepCells]:
        """Yield the loader's cells, with running numbers as their rows."""
        start = 0
        for number, batch in enumerate(self.loader):
            cells = Cells.from_mapping(batch, self.device)
            if number >= first_step:
                yield StepCells(np.arange(start, start + len(cells)), cells.part)
            start += len(cells)

    def all_cells(self) -> Iterator[Cells]:
        """Yield all cells, as the loader collates them."""
        for step in self.epoch(0):
            yield step.take(slice(None))


class LatentSource:
    """ReferenceCells drawn anew each epoch from their posteriors, and paired with their sources.

    Parameters
    ----------
    latents
        Encoded cells.
    model
        Says which source the flow starts from.
    cells_per_step, seed
        Of the shuffling.
    coupling, recouple_every
        How controls are paired with perturbed cells of their stratum, and every how many epochs.
    controls
        Encoded cells whose controls serve as sources; ``latents`` itself if not given.
    n_epochs
        Epochs to come; a thread makes their pairs ahead.
    """

    def __init__(
        self,
        latents: ReferenceCells,
        model: CFMVCModel,
        cells_per_step: int,
        seed: int,
        coupling: str = "ot",
        recouple_every: int = 1,
        controls: ReferenceCells | None = None,
        n_epochs: int = 0,
    ) -> None:
        self.latents = latents
        self.controls = latents if controls is None else controls
        self.pairs = CellPairs(latents, self.controls, model.standardise, coupling, seed)
        is_paired = model.source == "control"
        self.rows = self.pairs.rows if is_paired else np.arange(len(latents))
        self._order = ShuffledCells(len(self.rows), cells_per_step, seed)
        self.rounds: PairRounds | None = None
        if is_paired:
            self.rounds = PairRounds(self.pairs, self._order, recouple_every, n_epochs)

    @property
    def n_cells(self) -> int:
        """Cells an epoch: all, or those perturbed cells whose stratum has controls."""
        return len(self.rows)

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return self._order.n_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[IndexedCells]:
        """Yield the cells of each step; their latents are drawn when they are taken."""
        device = self.latents.int_mean.device
        for picked in islice(self._order.epoch(epoch), first_step, None):
            rows = self.rows[picked]
            controls = [] if self.rounds is None else [self.rounds.controls(epoch, picked)]
            indices = np.stack([rows, *controls])
            yield IndexedCells(rows, indices, self._drawn_cells, device)

    def _drawn_cells(self, indices: torch.Tensor) -> LatentCells:
        latents, at = self.latents, indices[0]
        z_0 = None if self.rounds is None else _drawn(self.controls, indices[1])
        return LatentCells(
            _drawn(latents, at),
            z_0,
            latents.vectors.index_select(0, latents.vector.index_select(0, at)),
            latents.batch.index_select(0, at),
            latents.cell_type.index_select(0, at),
            None if latents.place is None else latents.place.index_select(0, at),
        )


def _resident_cells(held: ResidentTable, indices: torch.Tensor) -> Cells:
    return held.gathered(indices[0])


def _drawn(latents: ReferenceCells, at: torch.Tensor) -> torch.Tensor:
    mean = latents.int_mean.index_select(0, at)
    return mean + latents.int_std.index_select(0, at) * normal_like(mean)
