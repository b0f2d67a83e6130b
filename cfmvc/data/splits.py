"""Which cells test, which validate, which train: declared, stratified, deterministic, hashed.

Only perturbed cells are ever held out: the controls of a held-out condition's strata stay in the
training file, as they would be at hand in practice. What becomes of a cell depends on its name,
its labels and the seed, and not on the order of the cells.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cfmvc.data.config import SplitConfig
from cfmvc.data.held_out import CONTEXT, choose_held_out, resolve_kind, validate_held_out
from cfmvc.errors import DataError

_CONDITION = ["perturbation", "batch", "cell_type"]
_SMALLEST_TO_VALIDATE = 5


@dataclass(frozen=True)
class Split:
    """The part that each cell plays.

    Parameters
    ----------
    labels
        ``train``, ``val`` or ``test``, one a cell, ``(n_cells,)`` of ``str``.
    kind
        The kind of split, ``auto`` resolved.
    held_out
        The held-out conditions, as ``split.held_out`` of ``params.yaml`` would list them.
    seed
        Seed of the cells' order.
    sha256
        Hash over the sorted pairs of cell name and part.
    """

    labels: np.ndarray
    kind: str
    held_out: list[dict[str, str]]
    seed: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``split.json``."""
        return {
            "kind": self.kind,
            "held_out": self.held_out,
            "seed": self.seed,
            "n_cells": {
                part: int((self.labels == part).sum()) for part in ("train", "val", "test")
            },
            "sha256": self.sha256,
        }


def assign_split(obs: pd.DataFrame, config: SplitConfig, separator: str, control: str) -> Split:
    """Split the cells of a canonical data set.

    Parameters
    ----------
    obs
        Columns ``perturbation, batch, cell_type``; unique names of cells as index.
    config
        The section ``split`` of ``params.yaml``.
    separator
        What joins the parts of a combination.
    control
        Label of the unperturbed cells.

    Raises
    ------
    ConfigError
        If ``held_out`` has a wrong key for the kind, or names what the data do not hold.
    DataError
        If nothing can be held out, or a perturbation would not be seen in training.
    """
    labels = obs[_CONDITION].astype(str)
    names = obs.index.astype(str).to_numpy(dtype=object)
    if len(set(names)) != len(names):
        raise DataError("obs_names: a split needs unique names; call adata.obs_names_make_unique()")
    perturbed = labels[(labels["perturbation"] != control).to_numpy()]
    if perturbed.empty:
        raise DataError(f"split: every cell is a control ('{control}'); nothing can be held out")

    kind = resolve_kind(labels, config, separator, control)
    held_out: list[dict[str, str]] = []
    rank = _random_rank(names, config.seed)
    is_test = np.zeros(len(obs), dtype=bool)
    if kind == "random":
        is_test = _share_of_each(labels, rank, config.test_fraction, perturbed.index, 2)
    else:
        if config.held_out is None:
            held_out = choose_held_out(labels, kind, config.test_fraction, separator, control)
        else:
            held_out = validate_held_out(labels, kind, config.held_out, separator, control)
        is_test = is_held_out(labels, kind, held_out)
    is_val = np.zeros(len(obs), dtype=bool)
    rest = ~is_test
    is_val[rest] = _share_of_each(
        labels[rest], rank[rest], config.val_fraction, labels.index, _SMALLEST_TO_VALIDATE
    )
    parts = np.where(is_test, "test", np.where(is_val, "val", "train"))
    return Split(parts, kind, held_out, config.seed, hash_of_split(names, parts))


def validation_cells(obs: pd.DataFrame, config: SplitConfig) -> np.ndarray:
    """Return a boolean array: the cells that validate where nothing is held out for a test."""
    labels = obs[_CONDITION].astype(str)
    rank = _random_rank(obs.index.astype(str).to_numpy(dtype=object), config.seed)
    return _share_of_each(labels, rank, config.val_fraction, labels.index, _SMALLEST_TO_VALIDATE)


def is_held_out(labels: pd.DataFrame, kind: str, held_out: list[dict[str, str]]) -> np.ndarray:
    """Return a boolean array: which cells belong to a held-out condition."""
    keys = CONTEXT[kind]
    wanted = pd.MultiIndex.from_tuples([tuple(entry[key] for key in keys) for entry in held_out])
    if len(keys) == 1:
        return labels[keys[0]].isin([entry[keys[0]] for entry in held_out]).to_numpy()
    return np.asarray(pd.MultiIndex.from_frame(labels[list(keys)]).isin(wanted))


def hash_of_split(names: np.ndarray, parts: np.ndarray) -> str:
    """Return the sha256 over the sorted pairs of cell name and part."""
    digest = hashlib.sha256()
    for name, part in sorted(zip(map(str, names), map(str, parts), strict=True)):
        digest.update(f"{name}\t{part}\n".encode())
    return digest.hexdigest()


def _random_rank(names: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order of the cells that hangs on name and seed alone."""
    key = str(seed).encode()
    digests = [hashlib.blake2b(name.encode(), digest_size=16, key=key).digest() for name in names]
    order = sorted(range(len(names)), key=lambda row: (digests[row], names[row]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank


def _share_of_each(
    labels: pd.DataFrame, rank: np.ndarray, share: float, among: pd.Index, smallest: int
) -> np.ndarray:
    """Take a share of each condition's cells, at least one where it has ``smallest`` of them."""
    chosen = np.zeros(len(labels), dtype=bool)
    is_candidate = labels.index.isin(among)
    for members in labels.groupby(_CONDITION, sort=False).indices.values():
        rows = np.asarray(members)[is_candidate[members]]
        n_taken = round(share * len(rows))
        if len(rows) >= smallest:
            n_taken = max(1, n_taken)
        # a condition keeps at least one cell for training
        n_taken = min(n_taken, max(len(rows) - 1, 0))
        chosen[rows[np.argsort(rank[rows])[:n_taken]]] = True
    return chosen
