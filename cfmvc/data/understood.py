"""What a data set was understood to be, in a line."""

import numpy as np
from anndata import AnnData

from cfmvc.data.checks import read_dose
from cfmvc.data.config import DataConfig
from cfmvc.data.labels import canonical_labels, column_of, read_labels
from cfmvc.data.vocabulary import split_label


def understood(adata: AnnData, config: DataConfig) -> str:
    """Return the numbers of cells, genes, perturbations, combinations, doses, batches and types.

    Parameters
    ----------
    adata
        Cells, as read; what they lack is left out.
    config
        Names of their columns.
    """
    numbers = [f"{adata.n_obs:,} cells x {adata.n_vars:,} genes"]
    numbers += _perturbations(adata, config)
    numbers += _doses(adata, config)
    for key, one, many in (("batch", "batch", "batches"), ("cell_type", "cell type", "cell types")):
        column = column_of(adata, getattr(config, key))
        if column is not None:
            numbers.append(_number(len(set(read_labels(column).text) - {""}), one, many))
    return ", ".join(numbers)


def _perturbations(adata: AnnData, config: DataConfig) -> list[str]:
    column = column_of(adata, config.perturbation)
    if column is None:
        return []
    text = read_labels(column).text
    labels = set(canonical_labels(text[text != ""], config.separator, config.control))
    parts = [split_label(label, config.separator) for label in labels - {config.control}]
    n_pairs = sum(len(some) > 1 for some in parts)
    numbers = [_number(len(parts) - n_pairs, "perturbation", "perturbations")]
    if n_pairs:
        joined = f"joined by '{config.separator}'"
        numbers.append(f"{_number(n_pairs, 'combination', 'combinations')} {joined}")
    return numbers


def _doses(adata: AnnData, config: DataConfig) -> list[str]:
    column = column_of(adata, config.dose)
    if column is None:
        return []
    dose = read_dose(column)
    doses = np.unique(dose[np.isfinite(dose) & (dose > 0)])
    if not len(doses):
        return []
    span = f" ({doses[0]:g} to {doses[-1]:g})" if len(doses) > 1 else f" ({doses[0]:g})"
    return [_number(len(doses), "dose", "doses") + span]


def _number(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
