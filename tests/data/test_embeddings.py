"""Embeddings are read from where users have them, and what is missing is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.canonical import canonicalise, load_cells, write_canonical
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig
from cfmvc.data.embeddings import (
    EMBEDDINGS,
    expect_covered,
    find_embeddings,
    read_embeddings,
)
from cfmvc.errors import DataError

CONFIG = parse_section(DataConfig, read_yaml(default_params_file())["data"], "data")
VECTORS = {"A": [1.0, 2.0], "B/1": [0.0, -1.0], "unseen": [3.0, 4.0]}


def cells(n: int = 40) -> AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "perturbation": np.asarray(["control", "A", "B/1", "A+B/1"])[np.arange(n) % 4],
            "batch": "b",
            "cell_type": "t",
        },
        index=[f"cell{i}" for i in range(n)],
    )
    counts = rng.poisson(3.0, (n, 6)).astype(np.float32)
    return AnnData(obs=obs, var=pd.DataFrame(index=list("uvwxyz")), layers={"counts": counts})


def expected() -> pd.DataFrame:
    return pd.DataFrame(VECTORS, index=["0", "1"]).T.sort_index()


def test_a_mapping_a_table_and_a_csv_are_the_same(tmp_path: Path) -> None:
    given = cells()
    for held in (VECTORS, pd.DataFrame(VECTORS).T):
        given.uns[EMBEDDINGS] = held
        found = find_embeddings(given, EMBEDDINGS, "perturbation")
        pd.testing.assert_frame_equal(found, expected(), check_names=False)
    pd.DataFrame(VECTORS).T.to_csv(tmp_path / "vectors.csv")
    found = read_embeddings(tmp_path / "vectors.csv")
    pd.testing.assert_frame_equal(found, expected(), check_names=False)


@pytest.mark.parametrize("first", ["label,x,y\n", ",0,1\n", ""])
def test_a_header_is_no_perturbation_and_none_is_needed(first: str, tmp_path: Path) -> None:
    lines = [f"{label},{x},{y}\n" for label, (x, y) in VECTORS.items()]
    (tmp_path / "vectors.csv").write_text(first + "".join(lines))
    found = read_embeddings(tmp_path / "vectors.csv")
    pd.testing.assert_frame_equal(found, expected(), check_names=False)


@pytest.mark.parametrize("first", ["label;x;y", "A;1;2", "A\t1\t2", "A 1 2"])
def test_a_table_without_commas_says_what_separates_its_columns(first: str, tmp_path: Path) -> None:
    file = tmp_path / "vectors.csv"
    file.write_text(f"{first}\n{first.replace('A', 'B')}\n")
    with pytest.raises(DataError, match=f"{file}: its first line is '{first}'; separate the col"):
        read_embeddings(file)


def test_embeddings_that_the_user_named_must_be_there() -> None:
    given = cells()
    given.uns["esm"] = VECTORS
    config = CONFIG.model_copy(update={"embeddings": "esm2"})
    (fault,) = [fault for fault in check_cells(given, config) if fault.severity == "error"]
    assert "no such embeddings (did you mean 'esm'?)" in str(fault)


def test_the_check_names_what_has_no_vector() -> None:
    given = cells()
    given.uns[EMBEDDINGS] = {label: v for label, v in VECTORS.items() if label != "A"}
    (fault,) = [fault for fault in check_cells(given, CONFIG) if fault.severity == "error"]
    assert f"uns['{EMBEDDINGS}']: no vector of 'A'" in str(fault)


def test_vectors_of_cells_are_taken_once_a_label() -> None:
    given = cells()
    order = given.obs["perturbation"].map({"control": 0, "A": 1, "B/1": 2, "A+B/1": 3})
    given.obsm["esm"] = np.stack([order, order**2], axis=1).astype(float)
    found = find_embeddings(given, "esm", "perturbation")
    assert found is not None
    assert found.loc["B/1"].tolist() == [2.0, 4.0]
    for change, message in (
        (1.0, "cells of 'control' have different vectors"),
        ([np.nan, 0.0], "cell 'cell0' has missing values in its vector, and others of 'control'"),
        (np.nan, "cell 'cell0' has no vector, and others of 'control' have one"),
    ):
        given.obsm["esm"][0] += change
        with pytest.raises(DataError, match=message):
            find_embeddings(given, "esm", "perturbation")


def test_labels_of_cells_with_vectors_are_read_as_all_labels_are() -> None:
    """Numbers, blanks around them, and a control whose cells have no vector."""
    given = cells()
    label = given.obs["perturbation"].map({"control": 0.0, "A": 1.0, "B/1": 2.0, "A+B/1": 1.0})
    given.obs["perturbation"] = label.astype(float)
    given.obsm["esm"] = np.where(label == 0, np.nan, label).astype(float)[:, None]
    found = find_embeddings(given, "esm", "perturbation")
    assert found is not None
    assert found["0"].to_dict() == {"1": 1.0, "2": 2.0}
    given.obs["perturbation"] = label.map({0.0: "control", 1.0: " A", 2.0: "B"}).astype(str)
    found = find_embeddings(given, "esm", "perturbation")
    assert found is not None
    assert list(found.index) == ["A", "B"]


def test_they_come_through_the_canonical_file_and_back(tmp_path: Path) -> None:
    given = cells()
    given.uns["esm"] = VECTORS
    config = CONFIG.model_copy(update={"embeddings": "esm"})
    write_canonical(canonicalise(given, config), tmp_path / "cells.h5ad")
    again = load_cells(tmp_path / "cells.h5ad", CONFIG)
    found = find_embeddings(again, EMBEDDINGS, "perturbation")
    pd.testing.assert_frame_equal(found, expected(), check_names=False)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"A": [1.0], "B": [1.0, 2.0], "C": [0.0]}, "different lengths: 1 of 'A', 2 of 'B'"),
        ({"A": [1.0], "B": [[1.0, 2.0]]}, "of 'B' there is a matrix (1, 2), and no vector"),
        ({"A": [1.0], "B": [np.nan]}, "the vector of 'B' has missing or infinite values"),
        ({"A": ["1"], "B": ["x"]}, "the vector of 'B' has 'x', which is no number"),
        ("text", "expected a table"),
        (pd.DataFrame([[1.0], [2.0]], index=["A", "A"]), "'A' has more than one vector"),
        ({1: [1.0], "1": [2.0]}, "'1' has more than one vector"),
    ],
)
def test_what_is_no_embedding_is_a_fault_of_the_file(held: object, message: str) -> None:
    given = cells()
    given.uns[EMBEDDINGS] = held
    faults = [str(fault) for fault in check_cells(given, CONFIG) if fault.severity == "error"]
    assert len(faults) == 1
    assert message in faults[0]


def test_a_missing_vector_names_the_perturbation() -> None:
    expect_covered(expected(), ["A", "A+B/1", "control"], "+", "control")
    with pytest.raises(DataError, match="no vector of 'C'"):
        expect_covered(expected(), ["A+C", "control"], "+", "control")
    with pytest.raises(DataError, match="no such file"):
        read_embeddings(Path("nowhere.csv"))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"A": 0.0, "B/1": 0.0}, "all vectors are 0, and tell nothing: 'A', 'B/1'"),
        ({"A": 2.0, "B/1": 2.0, "control": 0.0}, "all vectors are alike, and tell none from"),
        ({"A": 1.0, "B/1": 0.0}, "the vector of 'B/1' is 0 in all places"),
        ({"A": 0.0, "B/1": 1.0, "C": 0.0}, "the vectors of 'A', 'C' are 0 in all places"),
        ({"A": 1.0, "B/1": 2.0, "control": 0.0}, ""),
    ],
)
def test_vectors_that_tell_nothing_are_warned_of(vectors: dict[str, float], message: str) -> None:
    given = cells()
    given.uns[EMBEDDINGS] = {label: [value, value] for label, value in vectors.items()}
    found = [str(fault) for fault in check_cells(given, CONFIG) if EMBEDDINGS in fault.where]
    assert len(found) == bool(message)
    assert all(text.startswith(f"uns['{EMBEDDINGS}']: {message}") for text in found)
    assert all(fault.severity == "warning" for fault in check_cells(given, CONFIG))


def test_the_vectors_of_cells_that_are_not_read_are_named_where_they_are_others() -> None:
    given = cells()
    given.uns[EMBEDDINGS] = VECTORS | {"A+B/1": [5.0, 5.0], "control": [0.0, 0.0]}
    same = np.asarray([given.uns[EMBEDDINGS][label] for label in given.obs["perturbation"]])
    given.obsm[EMBEDDINGS] = same.astype(np.float32)
    assert [fault for fault in check_cells(given, CONFIG) if EMBEDDINGS in fault.where] == []
    is_a = given.obs["perturbation"].eq("A").to_numpy()
    for others in (same[:, :1], np.where(is_a[:, None], 9.0, same)):
        given.obsm[EMBEDDINGS] = others
        (fault,) = [fault for fault in check_cells(given, CONFIG) if EMBEDDINGS in fault.where]
        assert fault.severity == "warning"
        words = f"obsm['{EMBEDDINGS}']: uns['{EMBEDDINGS}'] is used, and this has another vector of"
        assert str(fault).startswith(f"{words} 'A'")
    given.obsm[EMBEDDINGS] = np.arange(2.0 * len(same)).reshape(-1, 2)
    (fault,) = [fault for fault in check_cells(given, CONFIG) if EMBEDDINGS in fault.where]
    assert "is used, and not this: cells of 'control' have different vectors" in str(fault)
