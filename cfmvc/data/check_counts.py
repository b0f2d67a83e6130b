"""Faults of the count matrix; works on the stored values, never on the whole dense matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.count_tally import LARGEST_COUNT, CountTally
from cfmvc.data.faults import Fault
from cfmvc.data.reading import is_sparse, matrix_of, name_of_layer, row_blocks, to_csr
from cfmvc.errors import listed, suggest

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
    tally = CountTally(matrix.shape[1])
    try:
        if is_sparse(matrix) and matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)
        for block in row_blocks(matrix):
            tally.add(block)
    except (ValueError, IndexError) as error:
        yield Fault(
            "error",
            where,
            f"the sparse matrix is broken: {error}",
            remedy="build it again from its source",
        )
        return
    yield from _check_storage(matrix, where)
    if 0 in matrix.shape:
        return
    yield from _check_values(adata, tally, layer)
    if matrix.dtype == np.float16 and tally.largest > _LARGEST_FLOAT16:
        yield Fault(
            "warning",
            where,
            f"float16 holds whole numbers exactly only up to {_LARGEST_FLOAT16:,}, "
            "and larger ones occur",
            remedy="store the counts as int32 or float32",
        )
    yield from _check_margins(adata, tally, where)


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


def _check_values(adata: AnnData, tally: CountTally, layer: str) -> Iterator[Fault]:
    where = name_of_layer(layer)

    def faults(kind: str, message: str, remedy: str) -> Iterator[Fault]:
        found = tally.found[kind]
        if found.first is None:
            return
        cell, gene, value = found.first
        example = f"cell '{adata.obs_names[cell]}', gene '{adata.var_names[gene]}'"
        example += "" if kind == "nan" else f": {_number(value)}"
        number = f"{found.n_cells:,} of {tally.n_cells:,} cells {message}"
        yield Fault("error", where, number, found.n_cells, example, remedy)

    yield from faults("nan", "hold NaN", "remove these cells, or read the counts again")
    yield from faults("infinite", "hold infinite values", "remove these cells")
    yield from faults(
        "negative",
        "hold negative values",
        "counts are never negative: scaled or batch-corrected data? " + _other(adata, layer)
        if tally.found["negative"].n_cells
        else "",
    )
    if tally.found["fraction"].n_cells:
        share = tally.found["fraction"].n_values / tally.n_values
        look = _look(to_csr(matrix_of(adata, layer)[:_CELLS_LOOKED_AT]), share)
        yield from faults(
            "fraction", f"hold values that are not whole numbers; {look}", _other(adata, layer)
        )
    yield from faults(
        "huge",
        f"hold counts above {LARGEST_COUNT:,}, which float32 cannot hold exactly",
        "are these really UMI counts?",
    )


def _check_margins(adata: AnnData, tally: CountTally, where: str) -> Iterator[Fault]:
    if tally.empty_cells:
        n_empty = len(tally.empty_cells)
        yield Fault(
            "error",
            where,
            f"{n_empty:,} of {tally.n_cells:,} cells are empty (no count at all)",
            n_empty,
            f"cell '{adata.obs_names[tally.empty_cells[0]]}'",
            "remove them: scanpy.pp.filter_cells(adata, min_counts=1)",
        )
    is_unseen = ~tally.is_seen
    if is_unseen.any():
        yield Fault(
            "warning",
            where,
            f"{int(is_unseen.sum()):,} of {len(is_unseen):,} genes are never seen",
            example=f"gene '{adata.var_names[int(np.argmax(is_unseen))]}'",
            remedy="they cost time and teach nothing: scanpy.pp.filter_genes(adata, min_cells=1)",
        )


def _number(value: float) -> str:
    is_whole = np.isfinite(value) and float(value).is_integer()
    return f"{int(value):,}" if is_whole else f"{value:g}"


def _look(first_cells: csr_matrix, share: float) -> str:
    """Say what values that are no counts look like; ``share`` is that of the fractions."""
    if share < 0.5:
        return "most values are whole, so these are oddities among raw counts"
    some = first_cells.astype(np.float64)
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
    if adata.raw is not None and _holds_counts(adata.raw.X):
        return (
            "raw.X holds whole numbers: start from adata.raw.to_adata(), with --map counts_layer=X"
        )
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
