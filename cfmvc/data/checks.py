"""The data contract: every fault of a data set, found in one go.

The checks are pure: they change nothing and raise nothing. What a check repairs on reading (a
warning says so) is repaired by :func:`cfmvc.data.canonical.canonicalise`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.data.check_counts import check_counts
from cfmvc.data.check_design import check_design
from cfmvc.data.check_embeddings import check_covered, check_embeddings
from cfmvc.data.check_labels import check_arms, check_labels, check_separator
from cfmvc.data.config import DataConfig
from cfmvc.data.faults import Fault
from cfmvc.data.labels import COLUMNS, canonical_labels, column_of, holds_fractions, read_labels
from cfmvc.data.reading import is_sparse
from cfmvc.errors import listed, suggest

_WIDE_RANGE = 100  # of doses: hardly meant as multipliers
_NO_PLACE = "if it is of something else, --map spatial="


def check_cells(adata: AnnData, config: DataConfig) -> list[Fault]:
    """Return every fault of a data set: the errors first, then the warnings.

    Parameters
    ----------
    adata
        Cells x genes, as read; sparse, dense, or backed by a file.
    config
        Names of layer and columns, label of the control.
    """
    labels = _complete_labels(adata, config)
    faults = [
        *check_contents(adata, config),
        *check_covered(adata, labels["perturbation"], config),
        *check_arms(labels, config),
        *check_separator(adata, config),
        *check_design(labels, config),
    ]
    return sorted(faults, key=lambda fault: fault.severity != "error")


def check_contents(adata: AnnData, config: DataConfig) -> list[Fault]:
    """Return the faults of counts, names and labels; the design of the experiment is not judged.

    That is what cells to predict from must pass: they may all be controls.
    """
    return [
        *_check_size(adata),
        *_check_names(adata),
        *check_counts(adata, config.counts_layer),
        *check_labels(adata, config),
        *_check_dose(adata, config),
        *_check_spatial(adata, config.spatial),
        *check_embeddings(adata, config),
    ]


def _check_size(adata: AnnData) -> Iterator[Fault]:
    for n, where, what in ((adata.n_obs, "obs", "cells"), (adata.n_vars, "var", "genes")):
        if n == 0:
            yield Fault("error", where, f"the file has no {what}", remedy="was it filtered away?")


def _check_names(adata: AnnData) -> Iterator[Fault]:
    for where, index, what in (
        ("obs_names", adata.obs_names, "cell"),
        ("var_names", adata.var_names, "gene"),
    ):
        if not all(isinstance(name, str) for name in index):
            yield Fault(
                "warning", where, f"{what} names are not text", remedy="turned into text on reading"
            )
        if index.is_unique:
            continue
        twice = [name for name, n in Counter(map(str, index)).items() if n > 1]
        name = "1 name stands" if len(twice) == 1 else f"{len(twice):,} names stand"
        yield Fault(
            "error",
            where,
            f"{name} for more than one {what}",
            int(index.duplicated(keep=False).sum()) if what == "cell" else None,
            f"'{twice[0]}'",
            f"call adata.{where}_make_unique()",
        )


def _check_dose(adata: AnnData, config: DataConfig) -> Iterator[Fault]:
    where = f"obs['{config.dose}']"
    if config.dose not in adata.obs:
        if config.dose not in ("dose", ""):  # a column that the user named
            columns = [str(column) for column in adata.obs.columns]
            yield Fault(
                "error",
                where,
                f"no such column{suggest(config.dose, columns)}; "
                f"the file has {listed(columns, 20)}",
                remedy="name the column of the dose with --map dose=COLUMN",
            )
        return
    column, labels = column_of(adata, config.dose), column_of(adata, config.perturbation)
    if column is None:
        yield Fault("error", where, "several columns have this name", remedy="keep one of them")
        return
    dose = read_dose(column)
    is_text = column.notna().to_numpy(dtype=bool) & np.isnan(dose)
    is_control = (
        np.zeros(adata.n_obs, dtype=bool)
        if labels is None
        else read_labels(labels).text == config.control
    )
    for is_bad, message in (
        (is_text, "have a dose that is not a number"),
        (column.isna().to_numpy(dtype=bool) & ~is_control, "are perturbed and have no dose"),
        (np.isinf(dose), "have an infinite dose"),
        (np.isfinite(dose) & (dose < 0), "have a negative dose"),
    ):
        if is_bad.any():
            yield _dose_fault("error", adata, where, column, is_bad, message)
    is_zero = (dose == 0) & ~is_control
    if labels is not None and is_zero.any():
        yield _dose_fault(
            "warning", adata, where, column, is_zero, "are perturbed with dose 0, so not at all"
        )
    is_given = np.isfinite(dose) & (dose > 0) & ~is_control
    if labels is not None:
        yield from _check_doses_differ(where, dose[is_given])
        yield from _check_doses_beside_others(adata, config, where, dose, is_given)


def _check_doses_differ(where: str, doses: np.ndarray) -> Iterator[Fault]:
    """Yield positive, finite doses that would be two conditions of one name."""
    for dose, next_dose in pairwise(np.unique(doses).tolist()):
        if f"{dose:g}" == f"{next_dose:g}":
            yield Fault(
                "error",
                where,
                f"doses {dose} and {next_dose} are alike in all digits that are shown, and would "
                "be two conditions of one name",
                remedy="give them one value, for example with numpy.round",
            )
            break


def _check_doses_beside_others(
    adata: AnnData, config: DataConfig, where: str, dose: np.ndarray, is_given: np.ndarray
) -> Iterator[Fault]:
    """Yield a warning where doses over a wide range are nowhere seen beside each other."""
    named = (config.perturbation, config.batch, config.cell_type)
    columns = [column_of(adata, name) for name in named]
    if not is_given.any() or any(column is None for column in columns):
        return
    labels = [read_labels(column).text[is_given] for column in columns if column is not None]
    doses = pd.Series(dose[is_given])
    ranges = doses.groupby(labels[0]).agg(["min", "max"])
    widest = (ranges["max"] / ranges["min"]).idxmax()
    least, most = ranges.loc[widest]
    if most > _WIDE_RANGE * least and doses.groupby(labels).nunique().max() == 1:
        yield Fault(
            "warning",
            where,
            f"doses of '{widest}' run from {least:g} to {most:g}, and no batch and cell type has "
            "several of one perturbation: how strongly small ones act cannot be learnt, and is "
            "taken to be in proportion",
            remedy="if the batches are one, give them one name; or store the dose's logarithm, 0 "
            "or more",
        )


def _dose_fault(
    severity: Any, adata: AnnData, where: str, column: pd.Series, is_bad: np.ndarray, message: str
) -> Fault:
    first = int(np.argmax(is_bad))
    value = column.iloc[first]
    example = f"cell '{adata.obs_names[first]}'" + ("" if pd.isna(value) else f": {value}")
    n_bad = int(is_bad.sum())
    text = f"{n_bad:,} of {adata.n_obs:,} cells {message}"
    remedy = "a dose is a number, 0 or more; if the column is of something else, --map dose="
    return Fault(severity, where, text, n_bad, example, remedy)


def _check_spatial(adata: AnnData, key: str) -> Iterator[Fault]:
    where = f"obsm['{key}']"
    if key not in adata.obsm:
        if key not in ("spatial", ""):  # coordinates that the user named
            yield Fault(
                "error",
                where,
                f"no such coordinates{suggest(key, adata.obsm)}; "
                f"the file has {listed(adata.obsm) or 'none'}",
                remedy="name the coordinates with --map spatial=KEY",
            )
        return
    raw = adata.obsm[key]
    try:
        places = np.asarray(raw.toarray() if is_sparse(raw) else raw, dtype=np.float64)
    except (TypeError, ValueError):
        yield Fault(
            "error",
            where,
            "coordinates are not numbers",
            remedy=f"store them as floats; {_NO_PLACE}",
        )
        return
    places = places.reshape(len(places), -1)
    if places.shape[1] not in (2, 3):
        columns = "1 column" if places.shape[1] == 1 else f"{places.shape[1]} columns"
        yield Fault(
            "error",
            where,
            f"coordinates have {columns}, not 2 or 3",
            remedy=f"keep x, y (and z); {_NO_PLACE}",
        )
    is_bad = ~np.isfinite(places).all(axis=1)
    if is_bad.any():
        yield Fault(
            "error",
            where,
            f"{int(is_bad.sum()):,} of {adata.n_obs:,} cells have NaN or infinite coordinates",
            int(is_bad.sum()),
            f"cell '{adata.obs_names[int(np.argmax(is_bad))]}'",
            "remove these cells, or do without the coordinates: --map spatial=",
        )


def read_dose(column: pd.Series) -> np.ndarray:
    """Return doses as float64, NaN where there is no number."""
    return np.asarray(
        pd.to_numeric(pd.Series(column.to_numpy(dtype=object)), errors="coerce"), dtype=np.float64
    )


def _complete_labels(adata: AnnData, config: DataConfig) -> pd.DataFrame:
    """Canonical labels of the cells that have all three; empty if a column is missing."""
    columns = {key: column_of(adata, getattr(config, key)) for key in COLUMNS}
    if any(column is None or holds_fractions(column) for column in columns.values()):
        return pd.DataFrame(columns=list(COLUMNS), dtype=object)
    labels = pd.DataFrame(
        {key: read_labels(column).text for key, column in columns.items() if column is not None}
    )
    labels["perturbation"] = canonical_labels(
        labels["perturbation"].to_numpy(), config.separator, config.control
    )
    return labels[(labels != "").all(axis=1)]
