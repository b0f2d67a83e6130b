"""Malformed inputs earn the exact words that their tables say."""

import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix

from cfmvc.data.canonical import canonicalise
from cfmvc.data.checks import check_cells, check_contents
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


def looks(cells: AnnData, config: DataConfig) -> list[str]:
    return [str(fault) for fault in check_cells(cells, config) if "look" in str(fault)]


def relabelled(cells: AnnData, *labels: str) -> None:
    """Give the cells of A these labels in turn; the first four keep theirs."""
    for number, row in enumerate(range(13, 60, 3)):
        label("perturbation", labels[number % len(labels)], row)(cells)


@pytest.mark.parametrize(("sign", "joined"), [("_", "A_B"), ("|", "A | B")])
def test_a_label_that_looks_like_a_combination_is_named(
    cells: AnnData, config: DataConfig, sign: str, joined: str
) -> None:
    relabelled(cells, joined)
    assert looks(cells, config) == [
        f"obs['perturbation']: '{joined}' looks like a combination joined by '{sign}', and is read "
        f"as a single perturbation; if that is so: data.separator (--separator '{sign}'), which is "
        "'+' now"
    ]
    assert looks(cells, config.model_copy(update={"separator": sign})) == []
    assert looks(cells, config.model_copy(update={"separator": ""})) == []


def test_singles_that_are_written_with_the_control_are_named(
    cells: AnnData, config: DataConfig
) -> None:
    relabelled(cells, "C_control", "D_control", "control_E")
    (words,) = looks(cells, config)
    assert "3 labels look like combinations joined by '_', and are read as single per" in words


@pytest.mark.parametrize(
    "names",
    [
        ("HLA-A", "IL-2"),
        ("control_1", "control_2", "control_3", "control_4"),
        ("control-d6",),
        ("A_1", "A_2"),
    ],
)
def test_a_name_with_a_sign_in_it_is_no_combination(
    cells: AnnData, config: DataConfig, names: tuple[str, ...]
) -> None:
    relabelled(cells, *names)
    assert looks(cells, config) == []


@pytest.mark.parametrize("separator", [" + ", "__", " & "])
def test_what_the_separator_splits_already_is_not_asked_about(
    cells: AnnData, config: DataConfig, separator: str
) -> None:
    relabelled(cells, separator.join("AB"), separator.join(("A", "control")))
    assert looks(cells, config.model_copy(update={"separator": separator})) == []


def test_a_file_that_lost_its_control_in_joined_labels_is_refused(
    cells: AnnData, config: DataConfig
) -> None:
    relabelled(cells, "A+ctrl")
    cells.uns["cfmvc"] = {"control": "control", "control_in_source": "ctrl", "separator": ""}
    (fault,) = errors_of(check_cells(cells, config))
    assert str(fault) == (
        "obs['perturbation']: the file was added with the separator '', and data.separator is '+': "
        "of 'A+ctrl' 'ctrl' was the control, and would be a perturbation; run cfmvc data add on "
        "its source again, with --separator"
    )
    assert errors_of(check_contents(cells, config)) == [], "controls to predict from are whole"
    cells.uns["cfmvc"]["separator"] = "+"
    assert errors_of(check_cells(cells, config)) == []


def test_another_separator_is_the_users_to_choose(cells: AnnData, config: DataConfig) -> None:
    relabelled(cells, "A+B")
    cells.uns["cfmvc"] = {"control": "control", "separator": "+"}
    assert errors_of(check_cells(cells, config.model_copy(update={"separator": ""}))) == []


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
