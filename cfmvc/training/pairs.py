"""Which control cell each perturbed cell is paired with, condition by condition."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from cfmvc.flow.couplings import BLOCK, COUPLINGS, optimal_transport
from cfmvc.flow.state_slopes import PairGroup
from cfmvc.models.reference import ReferenceCells

_MOST_OF_A_GROUP, _MOST_PAIRS = 512, 2**14
_AT_LEAST_AT_A_TIME = 2**16
_PLACE = 1.0  # what a place weighs in the distance of two cells, relative to their latents


class CellPairs:
    """Perturbed cells, each with a control of its stratum; drawn anew each round.

    Parameters
    ----------
    latents
        Encoded cells.
    controls
        Encoded cells whose controls they are paired with; may be the same.
    standardise
        From latents to those that distances are measured in.
    coupling, seed
        How they are paired: a name in :data:`~cfmvc.flow.couplings.COUPLINGS`.
    """

    def __init__(
        self,
        latents: ReferenceCells,
        controls: ReferenceCells,
        standardise: Callable[[torch.Tensor], torch.Tensor],
        coupling: str,
        seed: int,
    ) -> None:
        self.latents, self.controls, self.standardise = latents, controls, standardise
        self.coupling, self.seed = COUPLINGS[coupling], seed

    @cached_property
    def groups(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Perturbed rows and control rows of each condition whose stratum has controls."""
        return _coupled_groups(self.latents, self.controls)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of all perturbed cells that are paired, group by group."""
        return np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in self.groups)])

    @property
    def n_at_a_time(self) -> int:
        """How many pairs are made at a time: enough for each condition to fill a block.

        That is all of most data sets; of a million cells, those come first that are needed first.
        """
        return max(_AT_LEAST_AT_A_TIME, BLOCK * len(self.groups))

    @property
    def n_parts_of_round(self) -> int:
        """In how many parts a round is made."""
        return -(-len(self.rows) // self.n_at_a_time)

    def of_round(self, number: int, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the pairs of a round, some at a time; the same for the same round and order.

        Of those that are made at a time each control is used about equally often.

        Parameters
        ----------
        number
            Of the round.
        order
            All places in ``rows``, those first whose pairs are needed first.

        Yields
        ------
        places, controls
            Some places, and the control's row for each of them.
        """
        rng = np.random.default_rng((self.seed, number, 1))
        for start in range(0, len(order), self.n_at_a_time):
            places = np.sort(order[start : start + self.n_at_a_time])
            yield places, self._paired(places, rng)

    def _paired(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        targets, sources = self.points
        ends = np.cumsum([len(rows) for rows, _ in self.groups])
        parts = np.split(self.rows[places], np.searchsorted(places, ends[:-1]))
        pairs = [
            candidates[self.coupling(_Gathered(sources, candidates), _Gathered(targets, rows), rng)]
            for rows, (_, candidates) in zip(parts, self.groups, strict=True)
            if len(rows)
        ]
        return np.concatenate([np.zeros(0, np.int64), *pairs])

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Where targets and sources are, ``(n, D)`` each, on the host."""
        targets, sources = (self._point(cells) for cells in (self.latents, self.controls))
        # A target that is not finite stays, for the guard to veto and name; it has no place.
        targets[~np.isfinite(targets).all(1)] = 0.0
        return targets, sources

    def _point(self, cells: ReferenceCells) -> np.ndarray:
        """Return where cells are among all others: their latents, and their places beside them.

        Pairs that are near in their latents alone would make the source itself say what becomes of
        it, and the place nothing (the curse of conditions; Cheng and Schwing 2025,
        arXiv:2503.10636).
        """
        parts = [self.standardise(cells.int_mean)]
        for name in ("spatial", "neighbours"):
            place, known = (getattr(some, name) for some in (cells, self.controls))
            if place is not None and known is not None:
                centre = known.mean(0)
                extent = (known - centre).square().sum(1).mean().clamp_min(1e-12)
                weight = (_PLACE * parts[0].shape[1] / extent).sqrt()
                parts.append((place - centre) * weight)
        return torch.cat(parts, dim=1).cpu().numpy()


@dataclass(frozen=True)
class _Gathered:
    """Some rows of an array: of a large group no copy is made for a few that are drawn."""

    points: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: np.ndarray, /) -> np.ndarray:
        return self.points[self.rows[some]]


def sampled_pairs(pairs: CellPairs) -> list[PairGroup]:
    """Pair some cells of each condition, and controls with other controls of their stratum.

    None where all controls are of one cell type: it says nothing of what others do. All by optimal
    transport; cells that are not finite are in no pair. Of many conditions each has fewer, and of
    more than half of ``_MOST_PAIRS`` none has any: one pair says nothing of a slope. The cells are
    those of one table: ``pairs.latents`` are ``pairs.controls``.
    """
    latents, rng = pairs.latents, np.random.default_rng(pairs.seed)
    strata = list({int(controls[0]): controls for _, controls in pairs.groups}.values())
    most = min(_MOST_OF_A_GROUP, _MOST_PAIRS // max(len(pairs.groups) + len(strata), 1))
    if most < 2 or len(latents.cell_type[latents.is_control].unique()) < 2:
        return []
    is_finite, vector = latents.is_finite.cpu().numpy(), latents.vector.cpu().numpy()
    vectors = latents.vectors.double().cpu().numpy()
    # Of each group those that are moved, and those that they may come from.
    halves = [np.array_split(rng.permutation(controls)[: 2 * most], 2) for controls in strata]
    groups = [*((rows[is_finite[rows]], controls) for rows, controls in pairs.groups), *halves]
    found = []
    for rows, controls in groups:
        if len(rows) and len(controls):
            after = np.sort(rng.permutation(rows)[:most])
            targets, sources = pairs.points
            chosen = optimal_transport(sources[controls], targets[after], rng)
            found.append(PairGroup(vectors[vector[after[0]]], controls[chosen], after))
    return found


def _coupled_groups(
    latents: ReferenceCells, controls: ReferenceCells
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (perturbed rows, control rows) of each condition whose stratum has controls."""
    usable = _rows_by(controls.stratum, controls.is_control & controls.is_finite)
    sources = {_stratum(controls, rows): rows for rows in usable}
    perturbed = _rows_by(latents.condition, ~latents.is_control)
    pairs = [(rows, sources.get(_stratum(latents, rows))) for rows in perturbed]
    return [(rows.numpy(), some.numpy()) for rows, some in pairs if some is not None]


def _rows_by(member: torch.Tensor, chosen: torch.Tensor) -> list[torch.Tensor]:
    """Return the chosen rows of each group that has some, on the host, in order."""
    rows = chosen.cpu().nonzero().reshape(-1)
    numbers, order = member.cpu()[rows].sort(stable=True)
    sizes = numbers.unique_consecutive(return_counts=True)[1]
    return list(rows[order].split(sizes.tolist())) if len(rows) else []


def _stratum(cells: ReferenceCells, rows: torch.Tensor) -> tuple[int, int]:
    return int(cells.batch[rows[0]]), int(cells.cell_type[rows[0]])
