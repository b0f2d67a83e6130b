"""What can be read from the latents: batch from ``z_tech``, biology from ``z_int``."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_FOLDS = 3
_MOST_CELLS = 4000


def readable_labels(
    latents: dict[str, np.ndarray], labels: dict[str, np.ndarray], seed: int = 0
) -> pd.DataFrame:
    """Return the balanced accuracy with which a linear classifier reads labels from latents.

    Parameters
    ----------
    latents
        ``(n_cells, width)`` by name, e.g. ``z_int`` and ``z_tech``.
    labels
        ``(n_cells,)`` by name, e.g. ``batch`` and ``cell type``; those with one value are left out.
    seed
        Of the folds, and of the cells where there are more than 4,000.

    Returns
    -------
    pandas.DataFrame
        Index: labels. Columns: the latents, and ``chance`` (one over the number of values).
        Cross-validated on 3 stratified folds.
    """
    n_cells = len(next(iter(labels.values())))
    kept = np.random.default_rng(seed).permutation(n_cells)[:_MOST_CELLS]
    rows = {}
    for name, values in labels.items():
        kinds, sizes = np.unique(values[kept], return_counts=True)
        usable = kept[np.isin(values[kept], kinds[sizes >= _FOLDS])]
        n_kinds = len(np.unique(values[usable]))
        if n_kinds < 2:
            continue
        scores = {key: _score(z[usable], values[usable], seed) for key, z in latents.items()}
        rows[name] = {**scores, "chance": 1.0 / n_kinds}
    return pd.DataFrame.from_dict(rows, orient="index")


def _score(z: np.ndarray, values: np.ndarray, seed: int) -> float:
    reader = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=300, class_weight="balanced")
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(reader, z, values, cv=folds, scoring="balanced_accuracy").mean())
