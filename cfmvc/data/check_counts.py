"""Faults of the count matrix; works on the stored values, never on the whole dense matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.faults import Fault
from cfmvc.data.reading import is_sparse, matrix_of, name_of_layer, to_csr
from cfmvc.errors import listed, suggest

# float32, in which the model computes, holds every whole number up to here
LARGEST_COUNT = 2**24
_LARGEST_FLOAT16 = 2**11
_KINDS = {
    "b": "booleans",
    "c": "complex numbers",
    "O": "objects",
    "U": "text",
    "S": "text",
    "M": "dates",
    "m": "times",
    "V": "records",
}
_CELLS_LOOKED_AT = 1000


def check_counts(adata: AnnData, layer: str) -> Iterator[Fault]:
    """Yield the faults of the counts: layer, type, values, empty cells, unseen genes."""
    where = name_of_layer(layer)
    matrix = matrix_of(adata, layer)
    if matrix is None:
        yield _missing_layer(adata, layer)
        return
    kind = _KINDS.get(matrix.dtype.kind)
    if kind is not None:
        yield Fault(
            "error",
            where,
            f"holds {kind} ({matrix.dtype}), not counts",
            remedy=_other(adata, layer),
        )
        return
    try:
        if is_sparse(matrix) and matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)
        counts = to_csr(matrix)
    except (ValueError, IndexError) as error:
        yield Fault(
            "error",
            where,
            f"the sparse matrix is broken: {error}",
            remedy="build it again from its source",
        )
        return
    yield from _check_storage(matrix, where)
    if counts.shape[0] == 0 or counts.shape[1] == 0:
        return
    yield from _check_values(adata, counts, layer)
    if matrix.dtype == np.float16 and counts.max() > _LARGEST_FLOAT16:
        yield Fault(
            "warning",
            where,
            f"float16 holds whole numbers exactly only up to {_LARGEST_FLOAT16:,}, "
            "and larger ones occur",
            remedy="store the counts as int32 or float32",
        )
    yield from _check_margins(adata, counts, where)


def _check_storage(matrix: Any, where: str) -> Iterator[Fault]:
    if not is_sparse(matrix) or matrix.format != "csr":
        return
    # a copy of the three arrays' wrapper, so that the flags that scipy caches are found afresh
    fresh = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    if not fresh.has_sorted_indices:
        yield Fault("warning", where, "the CSR indices are not sorted", remedy="sorted on reading")
    elif not fresh.has_canonical_format:
        yield Fault(
            "warning", where, "some entries are stored twice", remedy="summed up on reading"
        )


def _check_values(adata: AnnData, counts: csr_matrix, layer: str) -> Iterator[Fault]:
    where = name_of_layer(layer)
    data = counts.data
    is_nan, is_infinite = np.isnan(data), np.isinf(data)
    is_finite = ~(is_nan | is_infinite)
    is_negative = is_finite & (data < 0)
    is_fraction = is_finite & (
        np.floor(np.where(is_finite, data, 0)) != np.where(is_finite, data, 0)
    )
    is_huge = is_finite & (data > LARGEST_COUNT)

    def fault(is_bad: np.ndarray, message: str, remedy: str, with_value: bool = True) -> Fault:
        n_cells, example = _where_it_shows(adata, counts, is_bad, with_value)
        number = f"{n_cells:,} of {counts.shape[0]:,} cells {message}"
        return Fault("error", where, number, n_cells, example, remedy)

    if is_nan.any():
        yield fault(is_nan, "hold NaN", "remove these cells, or read the counts again", False)
    if is_infinite.any():
        yield fault(is_infinite, "hold infinite values", "remove these cells")
    if is_negative.any():
        yield fault(
            is_negative,
            "hold negative values",
            "counts are never negative: scaled or batch-corrected data? " + _other(adata, layer),
        )
    if is_fraction.any():
        yield fault(
            is_fraction,
            f"hold values that are not whole numbers; {_look(counts, is_fraction)}",
            _other(adata, layer),
        )
    if is_huge.any():
        yield fault(
            is_huge,
            f"hold counts above {LARGEST_COUNT:,}, which float32 cannot hold exactly",
            "are these really UMI counts?",
        )


def _check_margins(adata: AnnData, counts: csr_matrix, where: str) -> Iterator[Fault]:
    n_cells, n_genes = counts.shape
    is_there = counts.data != 0
    rows = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    is_empty = np.bincount(rows[is_there], minlength=n_cells) == 0
    if is_empty.any():
        n_empty = int(is_empty.sum())
        yield Fault(
            "error",
            where,
            f"{n_empty:,} of {n_cells:,} cells are empty (no count at all)",
            n_empty,
            f"cell '{adata.obs_names[int(np.argmax(is_empty))]}'",
            "remove them: scanpy.pp.filter_cells(adata, min_counts=1)",
        )
    is_unseen = np.bincount(counts.indices[is_there], minlength=n_genes) == 0
    if is_unseen.any():
        yield Fault(
            "warning",
            where,
            f"{int(is_unseen.sum()):,} of {n_genes:,} genes are never seen",
            example=f"gene '{adata.var_names[int(np.argmax(is_unseen))]}'",
            remedy="they cost time and teach nothing: scanpy.pp.filter_genes(adata, min_cells=1)",
        )


def _where_it_shows(
    adata: AnnData, counts: csr_matrix, is_bad: np.ndarray, with_value: bool
) -> tuple[int, str]:
    """Count the cells that hold bad entries, and name the first entry."""
    bad = np.flatnonzero(is_bad)
    cells = np.searchsorted(counts.indptr, bad, side="right") - 1
    cell, gene = adata.obs_names[cells[0]], adata.var_names[counts.indices[bad[0]]]
    value = f": {_number(counts.data[bad[0]])}" if with_value else ""
    return len(np.unique(cells)), f"cell '{cell}', gene '{gene}'{value}"


def _number(value: float) -> str:
    is_whole = np.isfinite(value) and float(value).is_integer()
    return f"{int(value):,}" if is_whole else f"{value:g}"


def _look(counts: csr_matrix, is_fraction: np.ndarray) -> str:
    """Say what values that are no counts look like, from the first cells."""
    if is_fraction.mean() < 0.5:
        return "most values are whole, so these are oddities among raw counts"
    some = counts[:_CELLS_LOOKED_AT].astype(np.float64)
    some.data = np.where(np.isfinite(some.data), some.data, 0.0)
    unlogged = some.copy()
    unlogged.data = np.expm1(np.clip(some.data, -50.0, 50.0))
    if (some.data >= 0).all() and (total := _common_total(unlogged)) is not None:
        return f"they look log-normalised (log1p of {total:,.0f} counts a cell)"
    if (total := _common_total(some)) is not None:
        return f"they look normalised to {total:,.4g} a cell"
    if (some.data >= 0).all() and some.data.max(initial=0.0) < 20.0:
        return "they look log-normalised (all below 20)"
    return "raw counts are needed"


def _common_total(matrix: csr_matrix) -> float | None:
    totals = np.asarray(matrix.sum(axis=1)).reshape(-1)
    totals = totals[totals > 0]
    middle = float(np.median(totals)) if len(totals) else 0.0
    if len(totals) < 2 or np.mean(np.abs(totals - middle) < 1e-3 * middle) < 0.9:
        return None
    return middle


def _missing_layer(adata: AnnData, layer: str) -> Fault:
    there = [*adata.layers, *(["X"] if adata.X is not None else [])]
    if layer == "X":
        message = "the file has no matrix X"
    else:
        message = f"no such layer{suggest(layer, adata.layers)}"
    has = f"the file has {listed(there)}" if there else "the file has no matrix at all"
    return Fault("error", name_of_layer(layer), f"{message}; {has}", remedy=_other(adata, layer))


def _other(adata: AnnData, layer: str) -> str:
    """Point at a matrix of the file that does hold whole numbers."""
    for name in [*adata.layers, "X"]:
        matrix = matrix_of(adata, name)
        if name != layer and matrix is not None and _holds_counts(matrix):
            is_hold = "holds whole numbers"
            return f"{name_of_layer(name)} {is_hold}: use it with --map counts_layer={name}"
    return "put the raw counts there, or name their layer with --map counts_layer=NAME"


def _holds_counts(matrix: Any) -> bool:
    if matrix.dtype.kind not in "fiu" or 0 in matrix.shape:
        return False
    data = to_csr(matrix[:_CELLS_LOOKED_AT]).data
    return bool(
        len(data)
        and np.isfinite(data).all()
        and (data >= 0).all()
        and (np.floor(data) == data).all()
    )
