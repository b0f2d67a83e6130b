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
    """Return the conditions that are learnt from, and the spread within all of them.

    With ``all_doses``, those that doses are learnt from.
    """
    vectors, sums = _vectors(tables), _Sums(tables[0].n_genes)
    for table in tables:
        kinds = np.asarray([vectors[vector.tobytes()] for vector in table.conditions])
        keys = np.stack([kinds[table.condition], table.batch, table.cell_type], axis=1)
        for rows in _slices(len(table)):
            logged = log_normalise(table.rows(rows), library)
            sums.add(keys[rows], logged)
            if table is tables[0]:
                paired.add(rows.start, logged)
    keys, n_cells, means, spread = sums.finished()
    distinct = _distinct(vectors)
    is_control = ~np.asarray(distinct.any(axis=1))[keys[:, 0]]
    if all_doses:
        kept = with_all_doses(sets_of(distinct)[1][keys[:, 0]], is_control, keys[:, 1:], n_cells)
    else:
        kept = remembered(keys[:, 0], is_control, keys[:, 1:], n_cells)
    if len(kept) < len(keys):  # not another copy of all of them
        keys, n_cells, means = keys[kept], n_cells[kept], means[kept]
    kind, batch, cell_type = keys.T
    p = distinct[kind].astype(np.float64)
    return ConditionMeans(p, batch, cell_type, n_cells, means), spread


class _Sums:
    """Sums and squares of expression, condition by condition."""

    def __init__(self, n_genes: int) -> None:
        self._sums: dict[tuple[int, ...], np.ndarray] = {}
        self._n_cells: dict[tuple[int, ...], int] = {}
        self._squares = np.zeros(n_genes)

    def add(self, keys: np.ndarray, logged: csr_matrix) -> None:
        finite = np.isfinite(np.asarray(logged.sum(axis=1)).reshape(-1))
        keys, logged = keys[finite], logged[finite]  # the guard names the cells that are not
        n_genes = len(self._squares)
        self._squares += np.bincount(logged.indices, logged.data**2, minlength=n_genes)
        distinct, member = np.unique(keys, axis=0, return_inverse=True)
        ones = np.ones(len(keys))
        rows = csr_matrix(
            (ones, (member.reshape(-1), np.arange(len(keys)))), (len(distinct), len(keys))
        )
        sums = (rows @ logged).toarray()
        sizes = np.bincount(member.reshape(-1), minlength=len(distinct))
        for key, some, n in zip(map(tuple, distinct.tolist()), sums, sizes.tolist(), strict=True):
            self._sums[key] = self._sums.get(key, 0.0) + some
            self._n_cells[key] = self._n_cells.get(key, 0) + n

    def finished(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return keys, numbers of cells, means, and the spread within conditions."""
        keys = sorted(self._sums)
        n_cells = np.asarray([self._n_cells[key] for key in keys])
        sums = np.stack([self._sums[key] for key in keys])
        means = sums / n_cells[:, None]
        within = (self._squares - (sums * means).sum(axis=0)).clip(0.0)
        return np.asarray(keys), n_cells, means, np.sqrt(within / max(n_cells.sum() - len(keys), 1))


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
