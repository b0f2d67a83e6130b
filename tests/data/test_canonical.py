"""Reading, repairing and writing; files that are none; the real data sets."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from cfmvc.data.canonical import (
    canonicalise,
    check_and_load,
    load_cells,
    rename_control,
    write_canonical,
)
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig
from cfmvc.data.embeddings import EMBEDDINGS
from cfmvc.errors import DataError
from cfmvc.files import md5_of_file
from tests.data import malformed as broken


def test_written_cells_come_back_and_the_bytes_repeat(
    cells: AnnData, config: DataConfig, tmp_path: Path
) -> None:
    cells.obs["note"] = ["x", None, "y"] * 20
    cells.obs["depth"] = np.arange(60.0)
    cells.obsm["spatial"] = np.arange(120.0).reshape(60, 2)
    first = canonicalise(cells, config)
    write_canonical(first, tmp_path / "a.h5ad")
    again = load_cells(tmp_path / "a.h5ad", config)
    write_canonical(again, tmp_path / "b.h5ad")

    assert md5_of_file(tmp_path / "a.h5ad") == md5_of_file(tmp_path / "b.h5ad")
    assert (again.layers["counts"] != cells.layers["counts"]).nnz == 0
    assert again.layers["counts"].dtype == np.float32
    assert again.X is None
    np.testing.assert_array_equal(again.obsm["spatial"], cells.obsm["spatial"])
    for name in ("perturbation", "batch", "cell_type", "depth"):
        assert list(again.obs[name]) == list(cells.obs[name])
    on_disk = read_h5ad(tmp_path / "a.h5ad").layers["counts"]
    assert on_disk.dtype == np.int32
    assert again.uns["cfmvc"] == {"control": "control", "separator": "+"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad"]


@pytest.mark.parametrize("breaker", [broken.unsorted, broken.stored_twice])
def test_csr_is_repaired(cells: AnnData, config: DataConfig, breaker: broken.Breaker) -> None:
    breaker(cells)
    dense = cells.layers["counts"].toarray()
    counts = canonicalise(cells, config).layers["counts"]
    assert counts.has_canonical_format
    np.testing.assert_array_equal(counts.toarray(), dense)


def test_labels_are_repaired(cells: AnnData, config: DataConfig) -> None:
    broken.label("perturbation", " A ", 1)(cells)
    broken.label("perturbation", "A+control", 4)(cells)
    broken.label("perturbation", "A + B", 7)(cells)
    broken.label("perturbation", "B+A", 10)(cells)
    broken.column("batch", np.repeat([1.0, 2.0], 30))(cells)
    broken.unused_category(cells)
    obs = canonicalise(cells, config).obs
    assert list(obs["perturbation"].iloc[[1, 4, 7, 10]]) == ["A", "A", "A+B", "A+B"]
    assert list(obs["batch"].cat.categories) == ["1", "2"]
    assert list(obs["cell_type"].cat.categories) == ["B cell", "T"]


def test_the_users_names_are_mapped_and_nothing_is_lost(cells: AnnData, config: DataConfig) -> None:
    cells.obs = cells.obs.rename(columns={"perturbation": "guide", "cell_type": "cluster"})
    cells.obs["cell_type"] = "PBMC"
    cells.obs["conc"] = ["0.0", "1.0", "2.5"] * 20
    cells.X = cells.layers.pop("counts")
    names = {
        "perturbation": "guide",
        "cell_type": "cluster",
        "dose": "conc",
        "counts_layer": "X",
        "control": "A",
    }
    broken.rename("guide", "control", "C")(cells)
    canonical = canonicalise(cells, config.model_copy(update=names))
    assert list(canonical.obs) == [
        "perturbation",
        "batch",
        "cell_type",
        "dose",
        "cell_type_in_source",
    ]
    assert list(canonical.obs["cell_type"].cat.categories) == ["B cell", "T"]
    # the control's dose means nothing
    assert list(canonical.obs["dose"].iloc[:3]) == [0.0, 0.0, 2.5]
    rename_control(canonical, "control")
    assert list(canonical.obs["perturbation"].iloc[:3]) == ["C", "control", "B"]
    assert canonical.uns["cfmvc"]["control_in_source"] == "A"


def test_a_column_called_dose_may_be_of_something_else(cells: AnnData, config: DataConfig) -> None:
    cells.obs["dose"] = ["low", "high"] * 30
    cells.obsm["spatial"] = np.full((60, 2), np.nan)
    with pytest.raises(DataError, match="--map dose="):
        canonicalise(cells, config)
    names = {"dose": "", "spatial": "", "embeddings": ""}
    cells.uns["perturbation_embeddings"] = {"A": np.ones(2)}  # and not of B
    canonical = canonicalise(cells, config.model_copy(update=names))
    assert list(canonical.obs) == ["perturbation", "batch", "cell_type", "dose_in_source"]
    assert not canonical.obsm
    assert "perturbation_embeddings" not in canonical.uns
    again = canonicalise(canonical, config)
    assert list(again.obs) == list(canonical.obs), "nor later, under the shipped names"


def test_a_control_that_holds_the_separator_stays_whole(
    cells: AnnData, config: DataConfig, tmp_path: Path
) -> None:
    """As in Norman 2019, where a single guide is beside one that does nothing."""
    names = {"control": "NegCtrl_NegCtrl", "A": "A_NegCtrl", "B": "B_A"}
    cells.obs["perturbation"] = cells.obs["perturbation"].map(names).astype("category")
    named = config.model_copy(update={"control": "NegCtrl_NegCtrl", "separator": "_"})
    assert [fault.severity for fault in check_cells(cells, named)].count("error") == 0
    canonical = canonicalise(cells, named)
    assert list(canonical.obs["perturbation"].iloc[:3]) == ["NegCtrl_NegCtrl", "A", "B_A"]


def test_the_control_has_no_embedding_under_its_old_name(
    cells: AnnData, config: DataConfig
) -> None:
    vectors = {"control": [0.0, 1.0], "A": [1.0, 0.0], "B": [1.0, 1.0]}
    cells.obsm["esm"] = np.stack([vectors[label] for label in cells.obs["perturbation"]])
    cells.obs["perturbation"] = cells.obs["perturbation"].cat.rename_categories({"control": "NT"})
    canonical = canonicalise(
        cells, config.model_copy(update={"control": "NT", "embeddings": "esm"})
    )
    rename_control(canonical, "control")
    assert list(canonical.uns[EMBEDDINGS].index) == ["A", "B"]


def test_columns_of_any_type_are_written(
    cells: AnnData, config: DataConfig, tmp_path: Path
) -> None:
    for frame in (cells.obs, cells.var):
        n = len(frame)
        frame["text"] = pd.array(["x", None, "y"] * (n // 3), dtype="string")
        frame["mixed"] = pd.Series([1, "x", None] * (n // 3), index=frame.index, dtype=object)
        frame["day"] = pd.date_range("2020-01-01", periods=n)
        frame["nullable"] = pd.array([1, None] * (n // 2), dtype="Int64")
        frame["flag"] = [True, False] * (n // 2)
        frame[7] = np.arange(n)
    write_canonical(canonicalise(cells, config), tmp_path / "a.h5ad")
    again = load_cells(tmp_path / "a.h5ad", config)
    for frame in (again.obs, again.var):
        assert list(frame["text"].iloc[:3]) == ["x", "", "y"]
        assert list(frame["mixed"].iloc[:3]) == ["1", "x", ""]
        assert frame["day"].iloc[0] == "2020-01-01"
        assert frame["nullable"].isna().sum() == len(frame) // 2
        assert list(frame["flag"].iloc[:2]) == [True, False]
        assert list(frame["7"]) == list(range(len(frame)))


def test_backed_cells_are_read(cells: AnnData, config: DataConfig, tmp_path: Path) -> None:
    in_x = config.model_copy(update={"counts_layer": "X"})
    dense = cells.layers.pop("counts").toarray()
    for stored in (dense, broken.csr_matrix(dense)):
        cells.X = stored
        cells.write_h5ad(tmp_path / "x.h5ad")
        backed = read_h5ad(tmp_path / "x.h5ad", backed="r")
        assert check_cells(backed, in_x) == []
        np.testing.assert_array_equal(canonicalise(backed, in_x).layers["counts"].toarray(), dense)
        backed.file.close()


def test_a_matrix_too_wide_to_be_dense_is_read(config: DataConfig) -> None:
    """Dense, these cells would need 360 GB."""
    n_cells, n_genes = 300_000, 300_000
    rng = np.random.default_rng(0)
    genes = rng.integers(0, n_genes, n_cells).astype(np.int32)
    counts = broken.csr_matrix(
        (np.ones(n_cells, np.float32), genes, np.arange(n_cells + 1, dtype=np.int32)),
        shape=(n_cells, n_genes),
    )
    arm = np.take(["control", "A"], np.arange(n_cells) % 2)
    obs = pd.DataFrame(
        {
            name: pd.Categorical(arm if name == "perturbation" else ["x"] * n_cells)
            for name in ("perturbation", "batch", "cell_type")
        },
        index=np.arange(n_cells).astype(str),
    )
    var = pd.DataFrame(index=np.arange(n_genes).astype(str))
    faults = check_cells(AnnData(obs=obs, var=var, layers={"counts": counts}), config)
    assert ["genes are never seen" in str(fault) for fault in faults] == [True]


def make_file(path: Path, kind: str, cells: AnnData) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("gene,cell\n1,2\n")
    elif kind == "other HDF5":
        with h5py.File(path, "w") as file:
            file["matrix"] = [1, 2]
    elif kind != "missing":
        cells.write_h5ad(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        (
            "folder",
            "is a folder, and no AnnData in zarr's form; expected an .h5ad file or what "
            "adata.write_zarr(path) makes",
        ),
        ("empty", "empty file (0 bytes); copy or download it again"),
        ("text", "not an HDF5 file, so no .h5ad file; write it with adata.write_h5ad(path)"),
        (
            "other HDF5",
            "an HDF5 file, but no AnnData file (no groups 'obs' and 'var'); "
            "write it with adata.write_h5ad(path)",
        ),
        ("truncated", "the file is damaged or incomplete: copy or download it again"),
    ],
)
def test_a_file_that_is_no_h5ad(
    cells: AnnData, config: DataConfig, tmp_path: Path, kind: str, message: str
) -> None:
    path = tmp_path / "x.h5ad"
    make_file(path, kind, cells)
    with pytest.raises(DataError) as raised:
        load_cells(path, config)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).endswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["kang_pbmc_ifnb", "papalexi_thp1_crispr"])
def test_real_data_without_fault(
    published: Callable[[str], Path], config: DataConfig, name: str
) -> None:
    assert check_and_load(published(name), config)[1] == []


def test_confounded_real_data_get_a_warning(
    published: Callable[[str], Path], config: DataConfig
) -> None:
    _, faults, _ = check_and_load(published("airway_cftr_pig_confounded"), config)
    assert {fault.severity for fault in faults} == {"warning"}
    assert (
        "obs['perturbation'], obs['batch']: confounded with batch: 'CFTR_KO' in SCF1, SCF2, SCF3, "
        "the control in SWT1, SWT2, SWT3, SWT4, and no batch has both; "
        "the effect of the perturbation cannot be told from that of the batch"
    ) in map(str, faults)
