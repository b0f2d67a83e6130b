"""Cells that stay in their file: the same checks, the same counts, an order that is a fair one."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from anndata import AnnData, read_h5ad
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cfmvc.data import CellTable, Vocabulary, reading
from cfmvc.data.canonical import load_cells, write_canonical
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig
from cfmvc.data.on_disk import CountsOnDisk
from cfmvc.data.prepared import load_prepared
from cfmvc.data.reading import is_on_disk, open_cells
from cfmvc.data.samplers import ROWS_PER_WINDOW, ShuffledBlocks
from cfmvc.errors import DataError
from tests.data import malformed as broken


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few cells be many blocks."""
    monkeypatch.setattr(reading, "ROWS_PER_BLOCK", 7)
    monkeypatch.setattr("cfmvc.data.on_disk.ROWS_PER_BLOCK", 7)


def stored(cells: AnnData, folder: Path, kind: str = "h5ad") -> Path:
    path = folder / f"x.{kind}"
    if kind == "zarr":
        cells.write_zarr(path)
    else:
        cells.write_h5ad(path, compression="gzip")
    return path


def left_on_disk(counts: csr_matrix, folder: Path) -> Any:
    path = stored(AnnData(layers={"counts": counts}), folder)
    return open_cells(path, 0).layers["counts"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_are_those_of_the_matrix(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    counts = csr_matrix(rng.poisson(0.7, (40, 5)).astype(np.float32))
    on_disk = left_on_disk(counts, tmp_path_factory.mktemp("x"))
    part = np.asarray(data.draw(st.lists(st.integers(0, 39), min_size=1)))
    held = CountsOnDisk(on_disk, part)
    asked = np.asarray(data.draw(st.lists(st.integers(0, len(part) - 1))), dtype=np.int64)
    expected = counts[part].toarray()
    np.testing.assert_array_equal(held[asked].toarray(), expected[asked])
    np.testing.assert_array_equal(held[2:30].toarray(), expected[2:30])
    np.testing.assert_allclose(held.sum(axis=1), expected.sum(1))
    np.testing.assert_allclose(held.mean(axis=0), expected.mean(0))
    mask = rng.random(len(part)) < 0.5
    np.testing.assert_array_equal(held[mask].toarray(), expected[mask])
    assert held.shape == expected.shape


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize(
    "breaker",
    [
        lambda adata: None,
        broken.put(np.nan, 3, 50),
        broken.put(-1.0, 59),
        broken.put(0.5, 8, 9, 30),
        broken.put(2.0**25, 30),
        broken.put(np.inf, 30),
        broken.counts_as(lambda dense: csr_matrix(np.log1p(dense))),
        broken.counts_as(lambda dense: csr_matrix(dense * (np.arange(60) != 40)[:, None])),
        broken.counts_as(lambda dense: dense * (np.arange(12) != 3)),
    ],
)
def test_faults_are_those_of_the_cells_in_memory(
    cells: AnnData, config: DataConfig, tmp_path: Path, kind: str, breaker: broken.Breaker
) -> None:
    breaker(cells)
    left = open_cells(stored(cells, tmp_path, kind), 0)
    assert is_on_disk(left.layers["counts"])
    found = [str(fault) for fault in check_cells(left, config)]
    assert found == [str(fault) for fault in check_cells(cells, config)]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_canonical_cells_are_those_written_from_memory(
    cells: AnnData, config: DataConfig, tmp_path: Path, kind: str
) -> None:
    cells.obsm["spatial"] = np.random.default_rng(0).normal(size=(60, 2))
    counts = cells.layers["counts"].tocoo()
    # not in canonical form: every entry is stored in two halves, and some are 0
    doubled = csr_matrix(cells.shape, dtype=np.float64)
    doubled.data = np.repeat(counts.tocsr().data - 1, 2) + np.tile([0.0, 2.0], counts.nnz)
    doubled.data[0::2], doubled.data[1::2] = counts.tocsr().data - 1, 1.0
    doubled.indices = np.repeat(counts.tocsr().indices, 2)
    doubled.indptr = 2 * counts.tocsr().indptr
    cells.layers["counts"] = doubled
    path = stored(cells, tmp_path, kind)
    streamed = load_cells(path, config, most_bytes=0)
    assert is_on_disk(streamed.layers["counts"])
    for name, some in (("a", streamed), ("b", load_cells(path, config))):
        write_canonical(some, tmp_path / f"{name}.h5ad")
    written = [read_h5ad(tmp_path / f"{name}.h5ad") for name in "ab"]
    assert written[0].obs.equals(written[1].obs)
    np.testing.assert_array_equal(written[0].obsm["spatial"], written[1].obsm["spatial"])
    for some in written:
        held = some.layers["counts"]
        assert held.dtype == np.int32
        assert held.has_canonical_format
        np.testing.assert_array_equal(held.toarray(), counts.toarray())
        np.testing.assert_array_equal(held.indices, written[1].layers["counts"].indices)


def test_entries_may_be_more_than_32_bits_count(
    cells: AnnData, config: DataConfig, tmp_path: Path
) -> None:
    """Blocks of few entries each, of which nobody knows how many follow."""
    streamed = load_cells(stored(cells, tmp_path, "h5ad"), config, most_bytes=0)
    write_canonical(streamed, tmp_path / "written.h5ad")
    with h5py.File(tmp_path / "written.h5ad") as file:
        assert file["layers/counts/indptr"].dtype == np.int64


def test_a_table_on_disk_is_the_table(cells: AnnData, config: DataConfig, tmp_path: Path) -> None:
    cells.obsm["spatial"] = np.random.default_rng(0).normal(size=(60, 2))
    path = tmp_path / "x.h5ad"
    write_canonical(load_cells(stored(cells, tmp_path), config), path)
    vocabulary = Vocabulary.of(
        cells.obs["perturbation"], cells.obs["batch"], cells.obs["cell_type"], "control"
    )
    rows = np.arange(1, 60, 2)
    tables = [
        CellTable.from_adata(load_prepared(path, most_gib), vocabulary, rows=rows)
        for most_gib in (0, 1)
    ]
    assert [table.is_on_disk for table in tables] == [True, False]
    some = np.asarray([20, 3, 4])
    for table in (tables[0], tables[0].subset(np.arange(30))):
        np.testing.assert_array_equal(
            table.counts[some].toarray(), tables[1].counts[some].toarray()
        )
        np.testing.assert_array_equal(table.library, tables[1].library)
        np.testing.assert_allclose(table.mean_counts, tables[1].mean_counts, rtol=1e-6)
        np.testing.assert_array_equal(table.spatial, tables[1].spatial)
    assert not tables[0].subset(some).is_on_disk


@pytest.mark.parametrize("most_bytes", [0, 2**30], ids=["on disk", "in memory"])
def test_files_with_nothing_as_a_value_and_of_old_are_read(
    cells: AnnData, tmp_path: Path, most_bytes: int
) -> None:
    """``scanpy.pp.log1p`` leaves ``{"base": None}``; anndata before 0.8 said not what a file is."""
    cells.uns["log1p"] = {"base": None}
    path = stored(cells, tmp_path)
    assert open_cells(path, most_bytes).uns["log1p"] == {"base": None}
    with h5py.File(path, "a") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    found = open_cells(path, most_bytes)
    assert found.obs_names.equals(cells.obs_names)


def test_small_integers_that_are_stored_twice_do_not_overflow() -> None:
    twice = csr_matrix((np.array([200, 200], np.uint8), [1, 1], [0, 2]), shape=(1, 3))
    assert reading.canonical_rows(twice).toarray().tolist() == [[0.0, 400.0, 0.0]]


def test_a_file_cut_off_or_damaged_is_named(cells: AnnData, tmp_path: Path) -> None:
    path = stored(cells, tmp_path)
    with h5py.File(path) as file:
        offset = file["layers/counts/data"].id.get_chunk_info(0).byte_offset
    whole = bytearray(path.read_bytes())
    whole[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(whole)
    held = CountsOnDisk(open_cells(path, 0).layers["counts"])
    with pytest.raises(DataError, match=re.escape("counts, rows 0 to 3: cannot be read")):
        held[np.asarray([0, 3])]


@pytest.mark.parametrize(("n_cells", "cells_per_step"), [(40_000, 64), (40_001, 100), (300, 512)])
def test_blocks_are_visited_once_in_whole_steps(n_cells: int, cells_per_step: int) -> None:
    order = ShuffledBlocks(n_cells, cells_per_step, seed=3)
    steps = list(order.epoch(5))
    assert len(steps) == order.n_steps
    assert {len(step) for step in steps[:-1]} <= {cells_per_step}
    rows = np.concatenate(steps)
    np.testing.assert_array_equal(np.sort(rows), np.arange(n_cells))
    np.testing.assert_array_equal(np.concatenate(list(order.epoch(5))), rows)
    assert (np.concatenate(list(order.epoch(6))) != rows).any()
    windows = list(order.windows(5))
    assert all(len(window) <= ROWS_PER_WINDOW for window in windows)
    assert all(len(window) % cells_per_step == 0 for window in windows[:-1])


def test_a_step_mixes_cells_from_all_over_the_file() -> None:
    """Of a file sorted by cell type a step must not see one type alone."""
    n_cells, n_types = 200_000, 4
    kind = np.arange(n_cells) * n_types // n_cells
    shares = np.asarray(
        [
            np.bincount(kind[step], minlength=n_types) / len(step)
            for step in ShuffledBlocks(n_cells, 64, 0).epoch(0)
        ]
    )
    # 64 cells alone would give a spread of 0.054; blocks of a window add theirs
    assert shares.std(axis=0).max() < 0.12
    assert np.abs(shares.mean(axis=0) - 0.25).max() < 0.01
