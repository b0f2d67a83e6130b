"""Malformed inputs earn the exact words that their tables say."""

import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix

from cfmvc.data.canonical import canonicalise
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig
from cfmvc.data.faults import errors_of
from cfmvc.data.understood import understood
from cfmvc.errors import DataError
from tests.data import malformed as broken
from tests.data import malformed_counts, malformed_labels
from tests.data.malformed import Breaker, counts_as, label
from tests.data.malformed_counts import EMPTY, NO_OTHER
from tests.data.malformed_labels import DOSE, NO_CONTROL

CASES: list[tuple[str, Breaker, list[str]]] = [
    *malformed_counts.CASES,
    *malformed_labels.CASES,
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
            "error: obsm['spatial']: coordinates have 5 columns, not 2 or 3; keep x, y (and z); if "
            "it is of something else, --map spatial=",
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


def beside_each_other(cells: AnnData) -> np.ndarray:
    """Return 0 and 1 in turn within each perturbation, batch and cell type."""
    names = ["perturbation", "batch", "cell_type"]
    return np.asarray(cells.obs.groupby(names, observed=True).cumcount() % 2)


@pytest.mark.parametrize("doses", [[0.01, 1.0], [1.0, 1e5], [0.0, 0.5]])
def test_doses_may_be_multipliers_or_concentrations(
    cells: AnnData, config: DataConfig, doses: list[float]
) -> None:
    cells.obs["dose"] = np.asarray(doses)[beside_each_other(cells)]
    assert "doses" not in "".join(map(str, check_cells(cells, config)))


def test_doses_that_are_nowhere_beside_each_other_are_warned_of(
    cells: AnnData, config: DataConfig
) -> None:
    batches = cells.obs["batch"].astype(str)
    cells.obs["dose"] = np.where(batches == batches.iloc[0], 1.0, 1000.0)
    (fault,) = [fault for fault in check_cells(cells, config) if "doses" in str(fault)]
    assert fault.severity == "warning"
    assert str(fault) == (
        "obs['dose']: doses of 'A' run from 1 to 1000, and no batch and cell type has several of "
        "one perturbation: how strongly small ones act cannot be learnt, and is taken to be in "
        "proportion; if the batches are one, give them one name; or store the dose's logarithm, 0 "
        "or more"
    )
    cells.obs["dose"] = np.asarray([1.0, 1000.0])[beside_each_other(cells)]
    assert "doses" not in "".join(map(str, check_cells(cells, config)))


@pytest.mark.parametrize(("sign", "joined"), [("_", "A_B"), ("-", "A-control"), ("|", "A | B")])
def test_labels_that_look_like_combinations_are_named(
    cells: AnnData, config: DataConfig, sign: str, joined: str
) -> None:
    label("perturbation", joined, *range(1, 60, 3))(cells)  # the cells of A, but A stays in two
    label("perturbation", "A", 1, 4)(cells)
    (fault,) = [fault for fault in check_cells(cells, config) if "look" in str(fault)]
    assert str(fault) == (
        f"obs['perturbation']: 1 label looks like combinations joined by '{sign}', and are read as "
        f"single perturbations: '{joined}'; if they are combinations: data.separator (--separator "
        f"'{sign}'), which is '+' now"
    )
    as_meant = config.model_copy(update={"separator": sign})
    assert "look" not in "".join(map(str, check_cells(cells, as_meant)))


def test_a_name_with_a_sign_in_it_is_no_combination(cells: AnnData, config: DataConfig) -> None:
    label("perturbation", "HLA-A", *range(1, 60, 3))(cells)
    assert check_cells(cells, config) == []


def test_a_file_that_was_read_in_another_way_is_refused(cells: AnnData, config: DataConfig) -> None:
    """Its control has another name by now, but in the labels that were never split."""
    label("perturbation", "A+ctrl", *range(1, 60, 3))(cells)
    cells.uns["cfmvc"] = {"control": "control", "separator": ""}
    (fault,) = errors_of(check_cells(cells, config))
    assert "was added with the separator '', and data.separator is '+': 'A+ctrl' " in str(fault)
    cells.uns["cfmvc"]["separator"] = "+"
    assert "was added" not in "".join(map(str, check_cells(cells, config)))
    label("perturbation", "A", *range(1, 60, 3))(cells)
    cells.uns["cfmvc"]["separator"] = ""
    assert check_cells(cells, config) == []


def test_strata_of_few_controls_are_named(cells: AnnData, config: DataConfig) -> None:
    for row in (0, 12):  # of the first stratum's 5 controls
        label("perturbation", "A", row)(cells)
    (fault,) = check_cells(cells, config)
    assert str(fault) == (
        "obs['batch'], obs['cell_type']: 1 of 4 strata have fewer than 5 controls: b1 / T (3); "
        "shifts from so few are mostly their noise, and are not scored"
    )


def test_counts_in_raw_are_pointed_at(cells: AnnData, config: DataConfig) -> None:
    counts = cells.layers["counts"]
    cells.X = counts
    cells.raw = cells
    cells.X = counts.multiply(0.5).tocsr()
    del cells.layers["counts"]
    (fault,) = check_cells(cells, config)
    assert "raw.X holds whole numbers: start from adata.raw.to_adata()" in str(fault)


def test_a_line_says_how_the_file_was_understood(cells: AnnData, config: DataConfig) -> None:
    for number, name in enumerate(("A+B", "B+A", "A+control")):
        label("perturbation", name, 1 + 3 * number)(cells)
    is_control = (cells.obs["perturbation"] == "control").to_numpy()
    cells.obs["dose"] = np.where(is_control, np.nan, np.arange(60) % 2 * 9.5 + 0.5)
    assert understood(cells, config) == (
        "60 cells x 12 genes, 2 perturbations, 1 combination joined by '+', 2 doses (0.5 to 10), "
        "2 batches, 2 cell types"
    )
    unsplit = config.model_copy(update={"separator": "", "dose": ""})
    assert "5 perturbations, 2 batches" in understood(cells, unsplit)


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
