"""Labels as a data set's columns hold them, and as cfmvc reads them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.data.vocabulary import perturbing_parts, split_label

COLUMNS = ("perturbation", "batch", "cell_type")


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels.

    Parameters
    ----------
    text
        The labels without surrounding blanks, ``(n_cells,)`` object; empty where missing.
    is_missing
        Where there is no label, ``(n_cells,)`` bool.
    is_padded
        Where the label had surrounding blanks, ``(n_cells,)`` bool.
    """

    text: np.ndarray
    is_missing: np.ndarray
    is_padded: np.ndarray


def read_labels(column: pd.Series) -> LabelColumn:
    """Read a column of any type as text (the number 1.0 as ``1``)."""
    is_missing = column.isna().to_numpy(dtype=bool)
    values = column.to_numpy(dtype=object)
    codes, unique = pd.factorize(values)  # missing ones have code -1
    raw = np.asarray([_text(value) for value in unique] + [""], dtype=object)
    stripped = np.asarray([label.strip() for label in raw], dtype=object)
    return LabelColumn(stripped[codes], is_missing, (raw != stripped)[codes])


def canonical_labels(text: np.ndarray, separator: str, control: str) -> np.ndarray:
    """Return perturbation labels in which one condition has one spelling.

    The control is no part of a combination (``A+control`` is ``A``), a part counts once, and of
    ``A+B`` and ``B+A`` the alphabetically first is used where both occur.
    """
    spellings = canonical_spellings(sorted(set(text)), separator, control)
    return np.asarray([spellings[label] for label in text], dtype=object)


def canonical_spellings(labels: list[str], separator: str, control: str) -> dict[str, str]:
    """Return the canonical spelling of each label."""
    simple = {label: _without_control(label, separator, control) for label in labels}
    first: dict[frozenset[str], str] = {}
    for label in sorted(set(simple.values())):
        first.setdefault(frozenset(split_label(label, separator)), label)
    return {
        label: first[frozenset(split_label(spelled, separator))]
        for label, spelled in simple.items()
    }


def has_empty_part(label: str, separator: str) -> bool:
    """Whether a separator stands at an end of the label, or twice in a row."""
    return (
        bool(separator)
        and separator in label
        and not all(part.strip() for part in label.split(separator))
    )


def holds_fractions(column: pd.Series) -> bool:
    """Whether a column holds measurements such as 0.53, and no labels."""
    is_float = pd.api.types.is_float_dtype(column.dtype)
    return bool(is_float and (column.dropna() % 1 != 0).any())


def column_of(adata: AnnData, name: str) -> pd.Series | None:
    """Return an ``obs`` column; None if it is missing or there are several of that name."""
    if name not in adata.obs:
        return None
    column = adata.obs[name]
    return column if isinstance(column, pd.Series) else None


def _without_control(label: str, separator: str, control: str) -> str:
    if has_empty_part(label, separator):
        return label
    parts = dict.fromkeys(perturbing_parts(label, separator, control))
    return separator.join(parts) if parts else control


def _text(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
