"""Embeddings of perturbations: one vector each, also of those that no cell was given."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.data.labels import read_labels
from cfmvc.data.vocabulary import perturbing_parts
from cfmvc.errors import DataError, listed

EMBEDDINGS = "perturbation_embeddings"  # the key of ``uns`` in canonical cells


def find_embeddings(adata: AnnData, key: str, perturbation: str) -> pd.DataFrame | None:
    """Return the embeddings that a file has, or None.

    Parameters
    ----------
    adata
        Cells as read.
    key
        Of ``uns`` (a mapping from label to vector, or a table with the labels as index) or of
        ``obsm`` (a vector a cell, the same for all cells of a perturbation).
    perturbation
        Column of the perturbations, which tells what a vector of ``obsm`` is of.

    Raises
    ------
    DataError
        If they are no finite vectors of one length, or a label has two.
    """
    if key in adata.uns:
        return _table(adata.uns[key], f"uns['{key}']")
    return embeddings_of_cells(adata, key, perturbation)


def embeddings_of_cells(adata: AnnData, key: str, perturbation: str) -> pd.DataFrame | None:
    """Return the embeddings that a file has a cell, in ``obsm``, as :func:`find_embeddings`."""
    if key not in adata.obsm or perturbation not in adata.obs:
        return None
    held = adata.obsm[key]
    vectors = np.asarray(held.toarray() if hasattr(held, "toarray") else held)
    labels = read_labels(adata.obs[perturbation]).text
    table = pd.DataFrame(vectors, index=labels)
    first = table[~table.index.duplicated()]
    if message := _disagreement(vectors, first.loc[labels].to_numpy(), labels, adata.obs_names):
        raise DataError(
            f"obsm['{key}']: {message}; an embedding belongs to the perturbation, so give one "
            "vector a label (uns takes a table)"
        )
    # All NaN is no vector: the control needs none, and of the others it is said that they lack it.
    return _table(first[~first.isna().all(axis=1)], f"obsm['{key}']")


def _disagreement(
    vectors: np.ndarray, first: np.ndarray, labels: np.ndarray, names: pd.Index
) -> str:
    """Return in which label cells have other vectors than its first one; empty if in none.

    Parameters
    ----------
    vectors, first
        Of each cell, and of the first cell of its label, ``(n_cells, E)``.
    labels, names
        Of the cells.
    """
    is_nan = pd.isna(vectors)
    differ = ((vectors != first) & ~(is_nan & pd.isna(first))).any(axis=1)
    if not differ.any():
        return ""
    label = labels[differ][0]
    lacking = np.flatnonzero((labels == label) & is_nan.any(axis=1))
    if not len(lacking):
        return f"cells of '{label}' have different vectors"
    what = "no vector" if is_nan[lacking[0]].all() else "missing values in its vector"
    return f"cell '{names[lacking[0]]}' has {what}, and others of '{label}' have one"


def read_embeddings(path: Path) -> pd.DataFrame:
    """Read a CSV table: the labels in its first column, a vector beside each.

    Its first line may name the columns, or be the first perturbation's already.

    Raises
    ------
    DataError
        If there is no such file, or it is no such table.
    """
    try:
        line = pd.read_csv(path, header=None, nrows=1).iloc[0]
        if len(line) == 1:
            raise DataError(
                f"{path}: its first line is '{line[0]}'; separate the columns (a label, and its "
                "vector) with commas"
            )
        header = 0 if _is_header(line) else None
        table = pd.read_csv(path, header=header, index_col=0, dtype={0: str})
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table: {error}") from error
    return _table(table, str(path))


def _is_header(line: pd.Series) -> bool:
    """Return whether a table's first line says what its columns are, and is no vector with a label.

    pandas writes nothing above an index, and numbers above columns without a name.
    """
    numbers = pd.to_numeric(line[1:], errors="coerce").to_numpy(dtype=float)
    if pd.isna(line[0]) or not np.isfinite(numbers).all():
        return True
    return len(numbers) > 2 and np.array_equal(numbers, np.arange(len(numbers)))


def expect_covered(
    embeddings: pd.DataFrame, labels: Iterable[str], separator: str, control: str
) -> None:
    """Raise unless every part of the labels has a vector; the control needs none.

    Raises
    ------
    DataError
        Naming the perturbations without one.
    """
    parts = {
        part for label in set(labels) for part in perturbing_parts(str(label), separator, control)
    }
    missing = sorted(parts - set(embeddings.index))
    if missing:
        raise DataError(
            f"embeddings: no vector of {listed(missing, 10)}; there are {len(embeddings):,}, "
            f"for example {listed(embeddings.index, 5)}. A missing vector is not taken for 0: "
            "add it, or leave the cells out"
        )


def _table(held: Any, where: str) -> pd.DataFrame:
    if isinstance(held, Mapping):
        held = _of_mapping(held, where)
    empty = isinstance(held, pd.DataFrame) and held.empty
    if not isinstance(held, pd.DataFrame) or empty:
        raise DataError(
            f"{where}: expected a table with a row a perturbation, or a mapping from label to "
            f"vector; found {'an empty table' if empty else type(held).__name__}"
        )
    try:
        values = held.to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {_no_number(held) or error}") from error
    labels = pd.Index([str(label) for label in held.index], dtype=object)
    if labels.has_duplicates:
        raise DataError(f"{where}: '{labels[labels.duplicated()][0]}' has more than one vector")
    if not np.isfinite(values).all():
        row = labels[~np.isfinite(values).all(axis=1)][0]
        raise DataError(f"{where}: the vector of '{row}' has missing or infinite values")
    columns = [str(number) for number in range(values.shape[1])]
    return pd.DataFrame(values, index=labels, columns=columns).sort_index()


def _of_mapping(held: Mapping[Any, Any], where: str) -> pd.DataFrame:
    labels = [str(label) for label in held]
    vectors = [np.atleast_1d(np.asarray(vector)) for vector in held.values()]
    if not labels:
        raise DataError(f"{where}: no vector at all; add them, or remove it")
    first = dict[int, str]()  # label of each length
    for label, vector in zip(labels, vectors, strict=True):
        if vector.ndim > 1:
            raise DataError(
                f"{where}: of '{label}' there is a matrix {vector.shape}, and no vector"
            )
        first.setdefault(len(vector), label)
    if len(first) != 1:
        lengths = ", ".join(f"{length} of '{label}'" for length, label in sorted(first.items())[:5])
        raise DataError(f"{where}: vectors of different lengths: {lengths}")
    return pd.DataFrame(np.stack(vectors), index=labels)


def _no_number(table: pd.DataFrame) -> str:
    """Return the first value that is no number, with its label; empty if there is none."""
    for label, row in zip(table.index, table.to_numpy(dtype=object), strict=True):
        for value in row:
            try:
                float(value)
            except (TypeError, ValueError):
                return f"the vector of '{label}' has '{value}', which is no number"
    return ""
