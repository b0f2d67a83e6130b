"""The one form in which the rest of cfmvc sees cells, in memory and on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSRDataset
from anndata.io import sparse_dataset, write_elem
from scipy.sparse import csr_matrix

from cfmvc.data.checks import check_cells, check_contents, read_dose
from cfmvc.data.config import DataConfig
from cfmvc.data.embeddings import EMBEDDINGS, find_embeddings
from cfmvc.data.faults import Fault, raise_errors
from cfmvc.data.labels import COLUMNS, canonical_labels, read_labels
from cfmvc.data.reading import (
    MOST_IN_MEMORY,
    canonical_rows,
    is_on_disk,
    is_sparse,
    matrix_of,
    open_cells,
    row_blocks,
    to_csr,
)
from cfmvc.files import atomic_path


def load_cells(path: Path | str, config: DataConfig, most_bytes: float = MOST_IN_MEMORY) -> AnnData:
    """Read cells that keep the data contract, in canonical form.

    Parameters
    ----------
    path
        An ``.h5ad`` file or ``.zarr`` folder.
    config
        Names of layer and columns, label of the control.
    most_bytes
        Counts (in CSR) that would need more than this in memory stay on disk.

    Returns
    -------
    AnnData
        ``layers["counts"]`` float32 CSR, sorted, each entry once, or left on disk; ``X`` absent;
        ``obs`` columns ``perturbation, batch, cell_type`` (categories without unused levels) and,
        where the file has it, ``dose``; ``obsm["spatial"]`` where the file has it. The control is
        labelled as ``config.control`` says.

    Raises
    ------
    DataError
        If the contract is broken; the message names every fault.
    """
    return check_and_load(path, config, most_bytes)[0]


def check_and_load(
    path: Path | str, config: DataConfig, most_bytes: float = MOST_IN_MEMORY
) -> tuple[AnnData, list[Fault], list[str]]:
    """Like :func:`load_cells`, with the warnings, and the names of what was left out."""
    adata = open_cells(Path(path), most_bytes)
    faults = check_cells(adata, config)
    raise_errors(faults, str(path))
    return _in_canonical_form(adata, config), faults, _left_out(adata, config)


def load_controls(path: Path | str, config: DataConfig) -> AnnData:
    """Read cells to predict from: as :func:`load_cells`, but they may all be controls."""
    adata = open_cells(Path(path))
    raise_errors(check_contents(adata, config), str(path))
    return _in_canonical_form(adata, config)


def canonicalise(adata: AnnData, config: DataConfig) -> AnnData:
    """Return cells in canonical form (see :func:`load_cells`); the given ones stay as they are."""
    raise_errors(check_cells(adata, config), "the data")
    cells = _in_canonical_form(adata, config)
    if is_on_disk(cells.layers["counts"]):
        cells.layers["counts"] = canonical_rows(to_csr(cells.layers["counts"]))
    return cells


def rename_control(adata: AnnData, control: str) -> None:
    """Give the control of canonical cells another label, in place, where it stands alone."""
    old = str(adata.uns["cfmvc"]["control"])
    text = adata.obs["perturbation"].astype(str).to_numpy(dtype=object)
    adata.obs["perturbation"] = _categories(np.where(text == old, control, text))
    if EMBEDDINGS in adata.uns:  # a vector under the old label would be that of a perturbation
        adata.uns[EMBEDDINGS] = adata.uns[EMBEDDINGS].drop(index=old, errors="ignore")
    adata.uns["cfmvc"]["control"] = control
    adata.uns["cfmvc"].setdefault("control_in_source", old)


def write_canonical(adata: AnnData, path: Path) -> None:
    """Write an ``.h5ad`` file, atomically; the same cells give the same bytes.

    Sparse float layers of whole numbers are stored as int32.
    """
    on_disk = {name: layer for name, layer in adata.layers.items() if is_on_disk(layer)}
    stored = AnnData(
        X=adata.X,
        obs=adata.obs,
        var=adata.var,
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers={n: _compact(layer) for n, layer in adata.layers.items() if n not in on_disk},
        uns=_sorted(adata.uns),  # the order of keys shows in the bytes
    )
    with atomic_path(path) as made:
        stored.write_h5ad(made, compression="gzip")
        for name, layer in on_disk.items():
            _write_layer(made, name, map(canonical_rows, row_blocks(layer)))


def _compact(layer: Any) -> Any:
    # one without entries may be of anything
    is_float = is_sparse(layer) and layer.dtype.kind == "f" and layer.nnz > 0
    if is_float and (np.floor(layer.data) == layer.data).all():
        return layer.astype(np.int32)
    return layer


def _write_layer(path: Path, name: str, blocks: Iterator[csr_matrix]) -> None:
    """Write whole numbers into an ``.h5ad`` file, block by block."""
    with h5py.File(path, "r+") as file:
        layers, first = file["layers"], next(blocks).astype(np.int32)
        # of all blocks together there may be more entries than 32 bits count
        how = {"compression": "gzip", "indptr_dtype": np.int64}
        write_elem(layers, name, first, dataset_kwargs=how)
        stored = sparse_dataset(layers[name])
        for block in blocks:
            stored.append(block.astype(np.int32))


def _in_canonical_form(adata: AnnData, config: DataConfig) -> AnnData:
    matrix = matrix_of(adata, config.counts_layer)
    # CSR alone can be read in any order of its rows, so what else is on disk comes into memory.
    stays = isinstance(matrix, CSRDataset)
    canonical = AnnData(
        obs=_canonical_obs(adata, config),
        var=_canonical_var(adata.var),
        layers={"counts": matrix if stays else canonical_rows(to_csr(matrix))},
    )
    if config.spatial in adata.obsm:
        raw = adata.obsm[config.spatial]
        places = np.asarray(raw.toarray() if is_sparse(raw) else raw, dtype=np.float32)
        canonical.obsm["spatial"] = places
    canonical.uns = {key: value for key, value in adata.uns.items() if _is_plain(value)}
    embeddings = find_embeddings(adata, config.embeddings, config.perturbation)
    if embeddings is not None:
        canonical.uns[EMBEDDINGS] = embeddings
    before = adata.uns.get("cfmvc", {})
    canonical.uns["cfmvc"] = {
        **(before if isinstance(before, dict) else {}),
        "control": config.control,
        "separator": config.separator,
    }
    return canonical


def _left_out(adata: AnnData, config: DataConfig) -> list[str]:
    """Name what the canonical form has no place for, as a user would write it."""
    names = ["X"] if adata.X is not None and config.counts_layer != "X" else []
    names += ["raw"] if adata.raw is not None else []
    kept = {
        "layers": {config.counts_layer},
        "obsm": {config.spatial, config.embeddings},
        "uns": {"cfmvc", config.embeddings},
    }
    for slot in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        held = getattr(adata, slot)
        names += [
            f"{slot}['{key}']"
            for key in sorted(map(str, set(held) - kept.get(slot, set())))
            if slot != "uns" or not _is_plain(held[key])
        ]
    return names


def _canonical_obs(adata: AnnData, config: DataConfig) -> pd.DataFrame:
    obs = _with_text_index(adata.obs)
    labels = {key: read_labels(adata.obs[getattr(config, key)]).text for key in COLUMNS}
    labels["perturbation"] = canonical_labels(
        labels["perturbation"], config.separator, config.control
    )
    new: dict[str, Any] = {key: _categories(text) for key, text in labels.items()}
    has_dose = config.dose in adata.obs
    if has_dose:
        is_control = labels["perturbation"] == config.control
        new["dose"] = np.where(is_control, 0.0, read_dose(adata.obs[config.dose]))
    sources = {getattr(config, key) for key in new}
    others = {}
    for name in obs.columns:
        is_another = name in new and getattr(config, name) != name
        is_no_dose = name == "dose" and not has_dose and name not in sources
        if is_another or is_no_dose:
            # the user's column of that name is not the one that was asked for
            others[f"{name}_in_source"] = obs[name]
        elif name not in sources:
            others[str(name)] = obs[name]
    kept = {name: _storable(column) for name, column in others.items()}
    return pd.DataFrame({**new, **kept}, index=obs.index)


def _canonical_var(var: pd.DataFrame) -> pd.DataFrame:
    index = _with_text_index(var).index
    return pd.DataFrame({str(name): _storable(column) for name, column in var.items()}, index=index)


def _categories(text: np.ndarray) -> pd.Categorical:
    levels = pd.Index(sorted(set(text)), dtype=object)
    return pd.Categorical(np.asarray(text, dtype=object), categories=levels)


def _storable(column: pd.Series) -> Any:
    """Return a column in a form that every version of anndata writes alike."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy() if isinstance(column.dtype, np.dtype) else column
    return _categories(np.where(column.isna(), "", column.astype(str)))


def _with_text_index(frame: pd.DataFrame) -> pd.DataFrame:
    copy = frame.copy()
    copy.index = pd.Index([str(name) for name in frame.index], dtype=object)
    return copy


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _sorted(value) if isinstance(value, Mapping) else value
        for key, value in sorted(values.items())
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | np.integer | np.floating)
