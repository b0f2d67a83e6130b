"""Malformed counts, cells and genes, and the exact words that each earns."""

import numpy as np

from tests.data import malformed as broken
from tests.data.malformed import Breaker, counts_as, put

NO_OTHER = "put the raw counts there, or name their layer with --map counts_layer=NAME"
UNSEEN = "they cost time and teach nothing: scanpy.pp.filter_genes(adata, min_cells=1)"
EMPTY = "remove them: scanpy.pp.filter_cells(adata, min_counts=1)"

# name, how to break a good data set, all its faults (errors first)
CASES: list[tuple[str, Breaker, list[str]]] = [
    (
        "layer missing",
        broken.drop_layer,
        [
            f"error: layers['counts']: no such layer; the file has no matrix at all; {NO_OTHER}",
        ],
    ),
    (
        "layer missing, counts in X",
        broken.layer_is_x,
        [
            "error: layers['counts']: no such layer; the file has 'X'; X holds whole "
            "numbers: use it with --map counts_layer=X",
        ],
    ),
    (
        "layer misspelt",
        broken.layer_misspelt,
        [
            "error: layers['counts']: no such layer (did you mean 'Counts'?); the file "
            "has 'Counts'; layers['Counts'] holds whole numbers: use it with --map "
            "counts_layer=Counts",
        ],
    ),
    (
        "layer of booleans",
        counts_as(lambda counts: counts > 0),
        [
            f"error: layers['counts']: holds booleans (bool), not counts; {NO_OTHER}",
        ],
    ),
    (
        "layer of complex numbers",
        counts_as(lambda counts: counts.astype(complex)),
        [
            f"error: layers['counts']: holds complex numbers (complex128), not counts; {NO_OTHER}",
        ],
    ),
    (
        "layer of text",
        counts_as(lambda counts: counts.astype(str)),
        [
            f"error: layers['counts']: holds text (<U32), not counts; {NO_OTHER}",
        ],
    ),
    (
        "NaN",
        put(np.nan, 3, 7),
        [
            "error: layers['counts']: 2 of 60 cells hold NaN (first: cell 'cell3', gene "
            "'g1'); remove these cells, or read the counts again",
        ],
    ),
    (
        "infinite",
        put(np.inf, 4),
        [
            "error: layers['counts']: 1 of 60 cells hold infinite values (first: cell "
            "'cell4', gene 'g1': inf); remove these cells",
        ],
    ),
    (
        "minus infinity",
        put(-np.inf, 4),
        [
            "error: layers['counts']: 1 of 60 cells hold infinite values (first: cell "
            "'cell4', gene 'g1': -inf); remove these cells",
        ],
    ),
    (
        "negative",
        put(-2, 5, 6, 7),
        [
            "error: layers['counts']: 3 of 60 cells hold negative values (first: cell "
            "'cell5', gene 'g1': -2); counts are never negative: scaled or "
            f"batch-corrected data? {NO_OTHER}",
        ],
    ),
    (
        "not whole",
        put(0.5, 8),
        [
            "error: layers['counts']: 1 of 60 cells hold values that are not whole "
            "numbers; most values are whole, so these are oddities among raw counts "
            f"(first: cell 'cell8', gene 'g1': 0.5); {NO_OTHER}",
        ],
    ),
    (
        "log-normalised",
        counts_as(broken.log_normalised),
        [
            "error: layers['counts']: 60 of 60 cells hold values that are not whole "
            "numbers; they look log-normalised (log1p of 10,000 counts a cell) (first: "
            f"cell 'cell0', gene 'g0': 7.09091); {NO_OTHER}",
        ],
    ),
    (
        "log-normalised beside raw counts",
        broken.log_normalised_beside_raw,
        [
            "error: layers['counts']: 60 of 60 cells hold values that are not whole "
            "numbers; they look log-normalised (log1p of 10,000 counts a cell) (first: "
            "cell 'cell0', gene 'g0': 7.09091); layers['raw'] holds whole numbers: use "
            "it with --map counts_layer=raw",
        ],
    ),
    (
        "normalised, not logged",
        counts_as(broken.normalised),
        [
            "error: layers['counts']: 60 of 60 cells hold values that are not whole "
            "numbers; they look normalised to 1 a cell (first: cell 'cell0', gene 'g0': "
            f"0.12); {NO_OTHER}",
        ],
    ),
    (
        "scaled",
        counts_as(broken.scaled),
        [
            "error: layers['counts']: 60 of 60 cells hold negative values (first: cell "
            "'cell0', gene 'g1': -1.77051); counts are never negative: scaled or "
            f"batch-corrected data? {NO_OTHER}",
            "error: layers['counts']: 60 of 60 cells hold values that are not whole "
            "numbers; raw counts are needed (first: cell 'cell0', gene 'g0': 0.0868844); "
            f"{NO_OTHER}",
        ],
    ),
    (
        "too large for float32",
        put(2**24 + 1, 9),
        [
            "error: layers['counts']: 1 of 60 cells hold counts above 16,777,216, which "
            "float32 cannot hold exactly (first: cell 'cell9', gene 'g1': 16,777,217); "
            "are these really UMI counts?",
        ],
    ),
    (
        "float16 above 2048",
        counts_as(lambda counts: (counts * 1000).astype(np.float16)),
        [
            "warning: layers['counts']: float16 holds whole numbers exactly only up to "
            "2,048, and larger ones occur; store the counts as int32 or float32",
        ],
    ),
    (
        "empty cells",
        broken.empty_cells(2, 11),
        [
            "error: layers['counts']: 2 of 60 cells are empty (no count at all) (first: "
            f"cell 'cell2'); {EMPTY}",
        ],
    ),
    (
        "every cell empty",
        counts_as(np.zeros_like),
        [
            "error: layers['counts']: 60 of 60 cells are empty (no count at all) (first: "
            f"cell 'cell0'); {EMPTY}",
            "warning: layers['counts']: 12 of 12 genes are never seen (first: gene "
            f"'g0'); {UNSEEN}",
        ],
    ),
    (
        "gene never seen",
        broken.unseen_gene,
        [
            f"warning: layers['counts']: 1 of 12 genes are never seen (first: gene 'g3'); {UNSEEN}",
        ],
    ),
    (
        "unsorted indices",
        broken.unsorted,
        [
            "warning: layers['counts']: the CSR indices are not sorted; sorted on reading",
        ],
    ),
    (
        "entries stored twice",
        broken.stored_twice,
        [
            "warning: layers['counts']: some entries are stored twice; summed up on reading",
        ],
    ),
    (
        "broken indices",
        broken.index_out_of_range,
        [
            "error: layers['counts']: the sparse matrix is broken: indices must be < 12; "
            "build it again from its source",
        ],
    ),
    (
        "no cells",
        broken.no_cells,
        [
            "error: obs: the file has no cells; was it filtered away?",
        ],
    ),
    (
        "no genes",
        broken.no_genes,
        [
            "error: var: the file has no genes; was it filtered away?",
        ],
    ),
    (
        "cell names twice",
        broken.same_cell_names,
        [
            "error: obs_names: 1 name stands for more than one cell (first: 'cell0'); "
            "call adata.obs_names_make_unique()",
        ],
    ),
    (
        "gene names twice",
        broken.same_gene_names,
        [
            "error: var_names: 1 name stands for more than one gene (first: 'g0'); call "
            "adata.var_names_make_unique()",
        ],
    ),
    (
        "cell names are numbers",
        broken.numbered_cells,
        [
            "warning: obs_names: cell names are not text; turned into text on reading",
        ],
    ),
]
