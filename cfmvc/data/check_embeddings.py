"""What is wrong with embeddings, and what they cannot tell."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.data.config import DataConfig
from cfmvc.data.embeddings import EMBEDDINGS, embeddings_of_cells, expect_covered, find_embeddings
from cfmvc.data.faults import Fault
from cfmvc.errors import DataError, listed, suggest

_SAME = 1e-5  # relative to the largest value: single precision


def check_embeddings(adata: AnnData, config: DataConfig) -> Iterator[Fault]:
    """Yield what is wrong with the embeddings of a file, and warnings of what they cannot tell."""
    key = config.embeddings
    is_named = key not in ("", EMBEDDINGS)
    if is_named and key not in adata.uns and key not in adata.obsm:
        there = [str(name) for name in (*adata.uns, *adata.obsm)]
        yield Fault(
            "error",
            f"uns['{key}'] or obsm['{key}']",
            f"no such embeddings{suggest(key, there)}; the file has {listed(there) or 'none'}",
            remedy="name the embeddings with --map embeddings=KEY",
        )
        return
    try:
        embeddings = find_embeddings(adata, key, config.perturbation)
    except DataError as error:
        where, _, message = str(error).partition(": ")
        yield Fault("error", where, message)
        return
    if embeddings is None:
        return
    for message in useless(embeddings, config.control):
        yield Fault("warning", _where(adata, key), message)
    if key in adata.uns:
        yield from _check_agreed(adata, embeddings, config)


def check_covered(adata: AnnData, labels: Iterable[str], config: DataConfig) -> Iterator[Fault]:
    """Yield a fault where a file has embeddings, and not of all the perturbations of its cells."""
    with suppress(DataError):  # a fault of its own
        embeddings = find_embeddings(adata, config.embeddings, config.perturbation)
        if embeddings is None:
            return
        try:
            expect_covered(embeddings, labels, config.separator, config.control)
        except DataError as error:
            message = str(error).removeprefix("embeddings: ")
            yield Fault("error", _where(adata, config.embeddings), message)


def useless(embeddings: pd.DataFrame, control: str) -> Iterator[str]:
    """Yield warnings of vectors that tell no perturbation from others.

    Parameters
    ----------
    embeddings
        A row a label.
    control
        Whose vector, if there is one, is not looked at.
    """
    vectors = embeddings.drop(index=control, errors="ignore")
    values = vectors.to_numpy()
    is_zero = ~values.any(axis=1)
    if len(vectors) and is_zero.all():
        yield f"all vectors are 0, and tell nothing: {listed(vectors.index, 5)}"
    elif len(vectors) > 1 and _is_same(values, values[:1]):
        yield f"all vectors are alike, and tell none from another: {listed(vectors.index, 5)}"
    elif is_zero.any():
        those, is_one = listed(vectors.index[is_zero], 5), is_zero.sum() == 1
        what = f"vector of {those} is" if is_one else f"vectors of {those} are"
        yield f"the {what} 0 in all places; if it is not known, leave the cells out"


def _check_agreed(adata: AnnData, embeddings: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    """Yield a warning where ``obsm`` has other vectors than ``uns``, which is read."""
    key, used = config.embeddings, f"uns['{config.embeddings}'] is used"
    try:
        others = embeddings_of_cells(adata, key, config.perturbation)
    except DataError as error:
        where, _, message = str(error).partition(": ")
        yield Fault("warning", where, f"{used}, and not this: {message}")
        return
    if others is None:
        return
    shared = embeddings.index.intersection(others.index)
    differ = [
        label
        for label in shared
        if not _is_same(embeddings.loc[label].to_numpy(), others.loc[label].to_numpy())
    ]
    if differ:
        message = f"{used}, and this has another vector of {listed(differ, 5)}"
        yield Fault("warning", f"obsm['{key}']", message, remedy="keep one of them")


def _is_same(some: np.ndarray, others: np.ndarray) -> bool:
    if some.shape[-1] != others.shape[-1]:
        return False
    return bool(np.allclose(some, others, rtol=0, atol=_SAME * np.abs(some).max(initial=0.0)))


def _where(adata: AnnData, key: str) -> str:
    return f"uns['{key}']" if key in adata.uns else f"obsm['{key}']"
