"""Mean expression of the training conditions, of which the mean response is learnt."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix, vstack

from cfmvc.data.dataset import CellTable
from cfmvc.data.normalise import log_normalise
from cfmvc.flow.doses import DoseCurves, largest_doses, several_doses
from cfmvc.flow.local_scales import sets_of
from cfmvc.flow.state_slopes import PairedCells, PairGroup
from cfmvc.models.condition_means import ConditionMeans, curves_of, remembered, with_all_doses
from cfmvc.models.mean_response import MeanResponse

_CELLS_AT_A_TIME = 4096


def fit_response(
    tables: list[CellTable],
    library: float,
    deviation: np.ndarray,
    pairs: Sequence[PairGroup] = (),
    origin: np.ndarray | None = None,
    doses: DoseCurves | None = None,
) -> MeanResponse | None:
    """Learn the mean response of cells whose counts are read once.

    Parameters
    ----------
    tables
        Training cells, and those that validate: a mean of more cells is a better one, and nothing
        that is chosen by validation hangs on it.
    library
        Total counts to which cells are normalised.
    deviation
        Of each perturbation's embedding from the middle of all, ``(K, E)``.
    pairs
        Pairs of cells of the first table, none of which has a count that is not finite.
    origin
        Deviation of the embedding that is zero, ``(E,)``, if that is not the middle.
    doses
        From :func:`dose_curves`; not given: doses act in proportion.

    Returns
    -------
    MeanResponse | None
        None where no perturbed cell has controls in its stratum.
    """
    paired = _Paired(pairs)
    cells, spread = _means_of(tables, library, paired)
    if doses is None:
        doses = DoseCurves.straight(largest_doses(_distinct(_vectors(tables))))
    return MeanResponse.fit(cells, spread, deviation, paired.finished(), doses, origin)


def dose_curves(tables: list[CellTable], library: float) -> DoseCurves:
    """Return how strongly doses act; the counts are read where there are several of any.

    Parameters
    ----------
    tables, library
        As in :func:`fit_response`.
    """
    vectors = _distinct(_vectors(tables))
    largest = largest_doses(vectors)
    if not several_doses(vectors):
        return DoseCurves.straight(largest)
    return curves_of(*_means_of(tables, library, _Paired([]), all_doses=True), largest)


def _means_of(
    tables: list[CellTable], library: float, paired: "_Paired", all_doses: bool = False
) -> tuple[ConditionMeans, np.ndarray]:
    """Return the conditions that are learnt from, and the spread within them.

    With ``all_doses``, those that doses are learnt from.
    """
    vectors = _vectors(tables)
    distinct, (keys, members) = _distinct(vectors), _keys(tables, vectors)
    n_cells = np.bincount(np.concatenate(members), minlength=len(keys))
    is_control = ~np.asarray(distinct.any(axis=1))[keys[:, 0]]
    if all_doses:
        kept = with_all_doses(sets_of(distinct)[1][keys[:, 0]], is_control, keys[:, 1:], n_cells)
    else:
        kept = remembered(keys[:, 0], is_control, keys[:, 1:], n_cells)
    place, sums = np.full(len(keys), -1), _Sums(len(kept), tables[0].n_genes)
    place[kept] = np.arange(len(kept))
    for table, member in zip(tables, members, strict=True):
        for rows in _slices(len(table)):
            logged = log_normalise(table.rows(rows), library)
            sums.add(place[member[rows]], logged)
            if table is tables[0]:
                paired.add(rows.start, logged)
    is_there, means, spread = sums.finished()
    kind, batch, cell_type = keys[kept][is_there].T
    p = distinct[kind].astype(np.float64)
    return ConditionMeans(p, batch, cell_type, sums.n_cells[is_there], means), spread


def _keys(
    tables: list[CellTable], vectors: dict[bytes, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return all conditions (vector, batch, cell type), in order, and which one each cell is of."""
    columns = []
    for table in tables:
        kinds = [vectors[vector.tobytes()] for vector in table.conditions]
        kind = np.asarray(kinds, dtype=np.int64)[table.condition]
        columns.append(np.stack([kind, table.batch, table.cell_type]))
    every = np.concatenate(columns, axis=1)
    shape = every.max(axis=1, initial=0) + 1
    codes, member = np.unique(np.ravel_multi_index(tuple(every), shape), return_inverse=True)
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return np.stack(np.unravel_index(codes, shape), axis=1), np.split(member.reshape(-1), ends)


class _Sums:
    """Sums and squares of expression of some conditions; of all there may be no room for them."""

    def __init__(self, n_conditions: int, n_genes: int) -> None:
        self.n_cells = np.zeros(n_conditions, dtype=np.int64)
        self._sums, self._squares = np.zeros((n_conditions, n_genes)), np.zeros(n_genes)

    def add(self, place: np.ndarray, logged: csr_matrix) -> None:
        """Add cells, of the condition with that number; of none where it is negative."""
        # the guard names the cells that are not finite
        counted = np.isfinite(np.asarray(logged.sum(axis=1)).reshape(-1)) & (place >= 0)
        place, logged = place[counted], logged[counted]
        squares = np.bincount(logged.indices, logged.data**2, minlength=len(self._squares))
        self._squares += squares
        here, member = np.unique(place, return_inverse=True)
        ones, cells = np.ones(len(place)), np.arange(len(place))
        rows = csr_matrix((ones, (member.reshape(-1), cells)), (len(here), len(place)))
        self._sums[here] += (rows @ logged).toarray()
        self.n_cells += np.bincount(place, minlength=len(self.n_cells))

    def finished(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which conditions have cells, their means, and the spread within them."""
        is_there = self.n_cells > 0
        sums = self._sums if is_there.all() else self._sums[is_there]
        n_cells = self.n_cells[is_there]
        means = sums / n_cells[:, None]
        within = (self._squares - (sums * means).sum(axis=0)).clip(0.0)
        return is_there, means, np.sqrt(within / max(n_cells.sum() - len(n_cells), 1))


class _Paired:
    """Expression of the cells that are paired, put aside while all cells are read."""

    def __init__(self, groups: Sequence[PairGroup]) -> None:
        self._groups, self._kept = groups, list[csr_matrix]()
        rows = [rows for group in groups for rows in (group.before, group.after)]
        self._rows = np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))

    def add(self, start: int, logged: csr_matrix) -> None:
        first, last = np.searchsorted(self._rows, (start, start + logged.shape[0]))
        if first < last:
            self._kept.append(logged[self._rows[first:last] - start])

    def finished(self) -> PairedCells | None:
        if not self._kept:
            return None
        groups = [
            PairGroup(group.p, *np.searchsorted(self._rows, (group.before, group.after)))
            for group in self._groups
        ]
        return PairedCells(vstack(self._kept, format="csr"), groups)


def _vectors(tables: list[CellTable]) -> dict[bytes, int]:
    """Return the distinct perturbation vectors of all tables, and their numbers."""
    every = [vector.astype(np.float32).tobytes() for table in tables for vector in table.conditions]
    return {vector: number for number, vector in enumerate(dict.fromkeys(every))}


def _distinct(vectors: dict[bytes, int]) -> np.ndarray:
    """Return these vectors, ``(n, K)``."""
    return np.stack([np.frombuffer(vector, np.float32) for vector in vectors])


def _slices(n_cells: int) -> Iterator[slice]:
    for start in range(0, n_cells, _CELLS_AT_A_TIME):
        yield slice(start, start + _CELLS_AT_A_TIME)
