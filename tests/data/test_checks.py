"""Malformed inputs and the exact words that each earns."""

import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix

from cfmvc.data.canonical import canonicalise
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig
from cfmvc.data.faults import errors_of
from cfmvc.errors import DataError
from tests.data import malformed as broken
from tests.data.malformed import Breaker, counts_as, dose, label, put, rename

NO_OTHER = "put the raw counts there, or name their layer with --map counts_layer=NAME"
TWO_ARMS = "cells of at least one perturbation and of the control are needed"
NO_CONTROL = "name the label of the unperturbed cells with --control LABEL"
UNMEASURED = "their effects cannot be measured, nor started from their own controls"
CONFOUNDED = "the effect of the perturbation cannot be told from that of the batch"
APART = (
    "the effects of its parts cannot be told apart; if they are no parts, set data.separator "
    "(--separator), now '+', to ''"
)
SYNONYMS = "the control adds nothing to a combination, and the order of its parts is free"
DOSE = "a dose is a number, 0 or more"
MULTIPLY = (
    "they multiply the perturbation's column, scaled by the largest one in training, so that small "
    "ones hardly count; if responses go by the logarithm of the dose, store that instead, 0 or more"
)
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
    (
        "column missing",
        broken.column_gone,
        [
            "error: obs['batch']: no such column; the file has 'perturbation', "
            "'cell_type'; name the column of the batch with --map batch=COLUMN",
        ],
    ),
    (
        "column misspelt",
        broken.column_misspelt,
        [
            "error: obs['cell_type']: no such column (did you mean 'Cell type'?); the "
            "file has 'perturbation', 'batch', 'Cell type'; name the column of the cell "
            "type with --map cell_type=COLUMN",
        ],
    ),
    (
        "all columns missing",
        broken.all_columns_gone,
        [
            "error: obs['perturbation']: no such column; the file has no column; name "
            "the column of the perturbation with --map perturbation=COLUMN",
            "error: obs['batch']: no such column; the file has no column; name the "
            "column of the batch with --map batch=COLUMN",
            "error: obs['cell_type']: no such column; the file has no column; name the "
            "column of the cell type with --map cell_type=COLUMN",
        ],
    ),
    (
        "column twice",
        broken.two_columns_of_one_name,
        [
            "error: obs['batch']: several columns have this name; keep one of them",
        ],
    ),
    (
        "labels missing",
        label("cell_type", None, 1, 2),
        [
            "error: obs['cell_type']: 2 of 60 cells have no label (first: cell 'cell1'); "
            "label or remove them",
        ],
    ),
    (
        "labels blank",
        label("batch", "  ", 10),
        [
            "error: obs['batch']: 1 of 60 cells have a blank label (first: cell "
            "'cell10'); label or remove them",
        ],
    ),
    (
        "labels padded",
        label("batch", " b1", 0),
        [
            "warning: obs['batch']: 1 of 60 cells have blanks around the label (first: "
            "cell 'cell0'); removed on reading",
        ],
    ),
    (
        "labels like a missing one",
        label("cell_type", "nan", *range(12)),
        [
            "warning: obs['cell_type']: 12 of 60 cells are labelled 'nan' (first: cell "
            "'cell0'); is that a missing label?",
        ],
    ),
    (
        "labels are numbers",
        broken.column("batch", np.linspace(0, 1, 60)),
        [
            "error: obs['batch']: holds numbers such as 0.0169492, not labels; name the "
            "column of the batch with --map batch=COLUMN",
        ],
    ),
    (
        "labels in two cases",
        label("batch", "B1", *range(0, 60, 6)),
        [
            "warning: obs['batch']: 'B1', 'b1' differ only in upper and lower case; if "
            "they are one label, spell it one way",
            "warning: obs['batch'], obs['cell_type']: 2 of 6 strata have no control "
            f"cell: b1 / B cell (10), b1 / T (10); {UNMEASURED}",
        ],
    ),
    (
        "unused category",
        broken.unused_category,
        [
            "warning: obs['cell_type']: 1 category is not used by any cell: 'NK'; "
            "dropped on reading",
        ],
    ),
    (
        "no control",
        rename("perturbation", "control", "C"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control; "
            f"labels are 'A', 'B', 'C'; {NO_CONTROL}",
        ],
    ),
    (
        "control misspelt",
        rename("perturbation", "control", "Contrl"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control (did "
            f"you mean 'Contrl'?); labels are 'A', 'B', 'Contrl'; {NO_CONTROL}",
        ],
    ),
    (
        "control by another name",
        rename("perturbation", "control", "DMSO"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control (did "
            f"you mean 'DMSO'?); labels are 'A', 'B', 'DMSO'; {NO_CONTROL}",
        ],
    ),
    (
        "only controls",
        broken.column("perturbation", "control"),
        [
            f"error: obs['perturbation']: every cell is a control ('control'); {TWO_ARMS}",
        ],
    ),
    (
        "one label, no control",
        broken.column("perturbation", "A"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control; "
            f"labels are 'A'; {NO_CONTROL}",
            f"error: obs['perturbation']: every cell is labelled 'A'; {TWO_ARMS}",
        ],
    ),
    (
        "combination with an empty part",
        label("perturbation", "A+", 1, 4),
        [
            "error: obs['perturbation']: 2 of 60 cells are labelled 'A+', a combination "
            "with an empty part; rename it, or set data.separator (--separator), now '+', "
            "to '' or another",
        ],
    ),
    (
        "combination of unknown parts",
        label("perturbation", "A+C", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: of the combination 'A+C', 'C' never occurs "
            f"alone; {APART}",
        ],
    ),
    (
        "combination of wholly unknown parts",
        label("perturbation", "D+C", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: of the combination 'D+C', 'D', 'C' never "
            f"occur alone; {APART}",
        ],
    ),
    (
        "control in a combination",
        label("perturbation", "A+control", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: labels that mean the same are read as one: "
            f"'A+control' as 'A'; {SYNONYMS}",
        ],
    ),
    (
        "combination spelt twice",
        broken.all_of(
            label("perturbation", "A+B", *range(1, 60, 6)),
            label("perturbation", "B+A", *range(2, 60, 6)),
        ),
        [
            "warning: obs['perturbation']: labels that mean the same are read as one: "
            f"'B+A' as 'A+B'; {SYNONYMS}",
        ],
    ),
    (
        "few cells of a perturbation",
        label("perturbation", "C", 1, 2),
        [
            "warning: obs['perturbation']: 1 of 4 perturbations have fewer than 5 cells: "
            "C (2); leave them out, or expect noise",
        ],
    ),
    (
        "stratum with few cells",
        broken.small_stratum,
        [
            "warning: obs['batch'], obs['cell_type']: 1 of 3 strata have fewer than 5 "
            "cells: b3 / T (3); predictions for them rest on little",
        ],
    ),
    (
        "stratum without control",
        broken.stratum_without_control,
        [
            "warning: obs['batch'], obs['cell_type']: 1 of 4 strata have no control "
            f"cell: b2 / T (10); {UNMEASURED}",
        ],
    ),
    (
        "confounded with batch",
        broken.batch_by_arm,
        [
            "warning: obs['batch'], obs['cell_type']: 2 of 4 strata have no control "
            f"cell: b2 / B cell (20), b2 / T (20); {UNMEASURED}",
            "warning: obs['perturbation'], obs['batch']: confounded with batch: 'A' in "
            f"b2; 'B' in b2, the control in b1, and no batch has both; {CONFOUNDED}",
        ],
    ),
    (
        "dose negative",
        dose(-1.0, 1),
        [
            "error: obs['dose']: 1 of 60 cells have a negative dose (first: cell "
            f"'cell1': -1.0); {DOSE}",
        ],
    ),
    (
        "dose missing",
        dose(np.nan, 1, 2),
        [
            "error: obs['dose']: 2 of 60 cells are perturbed and have no dose (first: "
            f"cell 'cell1'); {DOSE}",
        ],
    ),
    (
        "dose infinite",
        dose(np.inf, 1),
        [
            "error: obs['dose']: 1 of 60 cells have an infinite dose (first: cell "
            f"'cell1': inf); {DOSE}",
        ],
    ),
    (
        "dose is text",
        dose("high", 1, 4),
        [
            "error: obs['dose']: 2 of 60 cells have a dose that is not a number (first: "
            f"cell 'cell1': high); {DOSE}",
        ],
    ),
    (
        "dose zero",
        dose(0.0, 1),
        [
            "warning: obs['dose']: 1 of 60 cells are perturbed with dose 0, so not at "
            f"all (first: cell 'cell1': 0.0); {DOSE}",
        ],
    ),
    (
        "doses over a wide range",
        dose(0.005, 1, 2),
        [
            f"warning: obs['dose']: doses run from 0.005 to 1; {MULTIPLY}",
        ],
    ),
    (
        "doses in small units",
        broken.column("dose", np.where(np.arange(60) % 3 == 0, 0.01, 10_000.0)),
        [
            f"warning: obs['dose']: doses are all 10000; {MULTIPLY}",
        ],
    ),
    (
        "coordinates in one column",
        broken.places(np.zeros((60, 1))),
        [
            "error: obsm['spatial']: coordinates have 1 column, not 2 or 3; keep x, y (and z)",
        ],
    ),
    (
        "coordinates in four columns",
        broken.places(np.zeros((60, 4))),
        [
            "error: obsm['spatial']: coordinates have 4 columns, not 2 or 3; keep x, y (and z)",
        ],
    ),
    (
        "coordinates NaN",
        broken.places(np.where(np.arange(120).reshape(60, 2) == 6, np.nan, 1.0)),
        [
            "error: obsm['spatial']: 1 of 60 cells have NaN or infinite coordinates "
            "(first: cell 'cell3'); remove these cells, or the coordinates",
        ],
    ),
    (
        "coordinates are text",
        broken.places(np.full((60, 2), "here")),
        [
            "error: obsm['spatial']: coordinates are not numbers; store them as floats",
        ],
    ),
    (
        "many faults at once",
        broken.everything,
        [
            "error: var_names: 1 name stands for more than one gene (first: 'g0'); call "
            "adata.var_names_make_unique()",
            "error: layers['counts']: 1 of 60 cells hold NaN (first: cell 'cell1', gene "
            "'g0'); remove these cells, or read the counts again",
            "error: layers['counts']: 1 of 60 cells hold negative values (first: cell "
            "'cell2', gene 'g0': -1); counts are never negative: scaled or "
            f"batch-corrected data? {NO_OTHER}",
            "error: layers['counts']: 1 of 60 cells hold values that are not whole "
            "numbers; most values are whole, so these are oddities among raw counts "
            f"(first: cell 'cell3', gene 'g3': 0.5); {NO_OTHER}",
            "error: layers['counts']: 1 of 60 cells are empty (no count at all) (first: "
            f"cell 'cell4'); {EMPTY}",
            "error: obs['batch']: 1 of 60 cells have no label (first: cell 'cell5'); "
            "label or remove them",
            "error: obs['perturbation']: no cell is labelled 'control', the control (did "
            f"you mean 'ctrl'?); labels are 'A', 'B', 'ctrl'; {NO_CONTROL}",
            "error: obs['dose']: 1 of 60 cells have a negative dose (first: cell "
            f"'cell6': -3.0); {DOSE}",
            "error: obsm['spatial']: coordinates have 5 columns, not 2 or 3; keep x, y (and z)",
        ],
    ),
]


@pytest.mark.parametrize(
    ("breaker", "expected"), [row[1:] for row in CASES], ids=[r[0] for r in CASES]
)
def test_malformed_input_gets_exactly_these_faults(
    cells: AnnData, config: DataConfig, breaker: Breaker, expected: list[str]
) -> None:
    changed = breaker(cells)
    cells = cells if changed is None else changed

    faults = check_cells(cells, config)

    assert [f"{fault.severity}: {fault}" for fault in faults] == expected
    if errors_of(faults):
        with pytest.raises(DataError) as raised:
            canonicalise(cells, config)
        errors = [text.removeprefix("error: ") for text in expected if text.startswith("error")]
        assert str(raised.value).splitlines()[1:] == [f"- {text}" for text in errors]
    else:
        canonicalise(cells, config)


def test_doses_that_differ_by_rounding_are_an_error(cells: AnnData, config: DataConfig) -> None:
    """As float32 beside float64 leaves them: two conditions would bear one name."""
    cells.obs["dose"] = [0.1 + 0.2, 0.3, 0.3, 1.0] * 15
    (fault,) = [fault for fault in check_cells(cells, config) if fault.severity == "error"]
    assert str(fault) == (
        "obs['dose']: doses 0.3 and 0.30000000000000004 are alike in all digits that are "
        "shown, and would be two conditions of one name; give them one value, for example with "
        "numpy.round"
    )


@pytest.mark.parametrize("doses", [[0.01, 1.0], [1.0, 100.0], [0.0, 0.5]])
def test_doses_that_may_be_multipliers_have_no_fault_of_range(
    cells: AnnData, config: DataConfig, doses: list[float]
) -> None:
    cells.obs["dose"] = doses * 30
    assert "doses" not in "".join(map(str, check_cells(cells, config)))


def test_good_data_have_no_fault(cells: AnnData, config: DataConfig) -> None:
    assert check_cells(cells, config) == []


@pytest.mark.parametrize(
    "dtype", [np.int32, np.int64, np.uint8, np.float32, np.float64, np.float16]
)
@pytest.mark.parametrize("store", [np.asarray, csc_matrix])
def test_every_numeric_type_and_layout_is_read_alike(
    cells: AnnData, config: DataConfig, dtype: type, store: type
) -> None:
    if dtype is np.float16 and store is csc_matrix:
        pytest.skip("scipy has no sparse float16")
    expected = cells.layers["counts"].toarray()
    counts_as(lambda counts: store(counts.astype(dtype)))(cells)

    assert check_cells(cells, config) == []
    counts = canonicalise(cells, config).layers["counts"]
    assert counts.dtype == np.float32
    assert counts.format == "csr"
    np.testing.assert_array_equal(counts.toarray(), expected)


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        (
            "dose",
            "dosis",
            "obs['dosis']: no such column; the file has 'perturbation', 'batch', 'cell_type'; "
            "name the column of the dose with --map dose=COLUMN",
        ),
        (
            "spatial",
            "X_space",
            "obsm['X_space']: no such coordinates; the file has none; "
            "name the coordinates with --map spatial=KEY",
        ),
        (
            "counts_layer",
            "X",
            "X: the file has no matrix X; the file has 'counts'; "
            "layers['counts'] holds whole numbers: use it with --map counts_layer=counts",
        ),
        (
            "control",
            "a",
            "obs['perturbation']: no cell is labelled 'a', the control (did you mean 'A'?); "
            f"labels are 'A', 'B', 'control'; {NO_CONTROL}",
        ),
        (
            "control",
            "A",
            "obs['perturbation']: both 'A', named as the control, and 'control' are labels; "
            "merge them, or rename 'control'",
        ),
    ],
)
def test_a_name_that_the_user_gave_must_be_there(
    cells: AnnData, config: DataConfig, key: str, name: str, expected: str
) -> None:
    faults = check_cells(cells, config.model_copy(update={key: name}))
    assert [str(fault) for fault in errors_of(faults)] == [expected]


def test_checks_change_nothing(cells: AnnData, config: DataConfig) -> None:
    broken.unsorted(cells)
    before = cells.layers["counts"].indices.copy()
    check_cells(cells, config)
    canonicalise(cells, config)
    np.testing.assert_array_equal(cells.layers["counts"].indices, before)
