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
    others = first.loc[labels].to_numpy()
    differ = ((vectors != others) & ~(pd.isna(vectors) & pd.isna(others))).any(axis=1)
    if differ.any():
        raise DataError(
            f"obsm['{key}']: cells of '{labels[differ][0]}' have different vectors; an embedding "
            "belongs to the perturbation, so give one vector a label (uns takes a table)"
        )
    # All NaN is no vector: the control needs none, and of the others it is said that they lack it.
    return _table(first[~first.isna().all(axis=1)], f"obsm['{key}']")


def read_embeddings(path: Path) -> pd.DataFrame:
    """Read a CSV table: the labels in its first column, a vector beside each.

    Its first line may name the columns, or be the first perturbation's already.

    Raises
    ------
    DataError
        If there is no such file, or it is no such table.
    """
    try:
        header = 0 if _is_header(pd.read_csv(path, header=None, nrows=1).iloc[0]) else None
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
        sizes = {len(np.atleast_1d(vector)) for vector in held.values()}
        if not sizes:
            raise DataError(f"{where}: no vector at all; add them, or remove it")
        if len(sizes) != 1:
            raise DataError(f"{where}: vectors of different lengths: {listed(sorted(sizes))}")
        rows = np.stack([np.atleast_1d(np.asarray(vector)) for vector in held.values()])
        held = pd.DataFrame(rows, index=[str(label) for label in held])
    empty = isinstance(held, pd.DataFrame) and held.empty
    if not isinstance(held, pd.DataFrame) or empty:
        raise DataError(
            f"{where}: expected a table with a row a perturbation, or a mapping from label to "
            f"vector; found {'an empty table' if empty else type(held).__name__}"
        )
    try:
        values = held.to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: not all values are numbers: {error}") from error
    labels = pd.Index([str(label) for label in held.index], dtype=object)
    if labels.has_duplicates:
        raise DataError(f"{where}: '{labels[labels.duplicated()][0]}' has more than one vector")
    if not np.isfinite(values).all():
        row = labels[~np.isfinite(values).all(axis=1)][0]
        raise DataError(f"{where}: the vector of '{row}' has missing or infinite values")
    columns = [str(number) for number in range(values.shape[1])]
    return pd.DataFrame(values, index=labels, columns=columns).sort_index()
