"""Which cells test, which validate, which train: declared, stratified, deterministic, hashed.

Only perturbed cells are ever held out: the controls of a held-out condition's strata stay in the
training file, as they would be at hand in practice. What becomes of a cell depends on its name,
its labels and the seed, and not on the order of the cells.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cfmvc.data.config import SplitConfig
from cfmvc.data.held_out import (
    CONTEXT,
    ENOUGH_TO_SCORE,
    choose_held_out,
    resolve_kind,
    validate_held_out,
)
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
        Columns ``perturbation, batch, cell_type`` and, where the data have it, ``dose``; unique
        names of cells as index.
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
        If nothing can be held out or scored, or a perturbation would not be seen in training.
    """
    labels = obs[_CONDITION].astype(str)
    names = obs.index.astype(str).to_numpy(dtype=object)
    if len(set(names)) != len(names):
        raise DataError("obs_names: a split needs unique names; call adata.obs_names_make_unique()")
    perturbed = labels[(labels["perturbation"] != control).to_numpy()]
    if perturbed.empty:
        raise DataError(f"split: every cell is a control ('{control}'); nothing can be held out")

    # doses are scored apart
    conditions = labels.assign(dose=obs["dose"].to_numpy()) if "dose" in obs else labels
    kind = resolve_kind(conditions, config, separator, control)
    held_out: list[dict[str, str]] = []
    rank = _random_rank(names, config.seed)
    is_test = np.zeros(len(obs), dtype=bool)
    if kind == "random":
        is_test = _random_test(conditions, rank, config.test_fraction, control)
    else:
        if config.held_out is None:
            held_out = choose_held_out(conditions, kind, config.test_fraction, separator, control)
        else:
            held_out = validate_held_out(labels, kind, config.held_out, separator, control)
        is_test = is_held_out(labels, kind, held_out)
    is_val = np.zeros(len(obs), dtype=bool)
    rest = ~is_test
    is_val[rest] = _validating(labels[rest], rank[rest], config.val_fraction)
    parts = np.where(is_test, "test", np.where(is_val, "val", "train"))
    return Split(parts, kind, held_out, config.seed, hash_of_split(names, parts))


def validation_cells(obs: pd.DataFrame, config: SplitConfig) -> np.ndarray:
    """Return a boolean array: the cells that validate where nothing is held out for a test."""
    labels = obs[_CONDITION].astype(str)
    rank = _random_rank(obs.index.astype(str).to_numpy(dtype=object), config.seed)
    return _validating(labels, rank, config.val_fraction)


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


def _validating(labels: pd.DataFrame, rank: np.ndarray, share: float) -> np.ndarray:
    """Take a share of each condition's cells, one at least where it has a few."""

    def n_taken(n_cells: int) -> int:
        least = 1 if n_cells >= _SMALLEST_TO_VALIDATE else 0
        return max(least, round(share * n_cells))

    return _taken_of_each(labels, rank, n_taken)


def _random_test(
    conditions: pd.DataFrame, rank: np.ndarray, share: float, control: str
) -> np.ndarray:
    """Take a share of each perturbed condition's cells, and enough to score where it has them.

    A condition gives up to half of its cells to have enough. Strata without controls give none:
    an effect cannot be measured there.
    """
    is_control = (conditions["perturbation"] == control).to_numpy()
    strata = pd.MultiIndex.from_frame(conditions[["batch", "cell_type"]])
    can_be_scored = np.asarray(strata.isin(strata[is_control])) & ~is_control
    if not can_be_scored.any():
        raise DataError(
            "split: no stratum (batch and cell type) has both perturbed cells and controls, so no "
            "effect can be measured; `cfmvc fit` trains on all cells without a test"
        )

    def n_taken(n_cells: int) -> int:
        least = ENOUGH_TO_SCORE if n_cells >= 2 * ENOUGH_TO_SCORE else min(1, n_cells // 2)
        return max(least, round(share * n_cells))

    is_test = np.zeros(len(conditions), dtype=bool)
    is_test[can_be_scored] = _taken_of_each(conditions[can_be_scored], rank[can_be_scored], n_taken)
    n_test = max(conditions[is_test].groupby(list(conditions.columns)).size(), default=0)
    if n_test < ENOUGH_TO_SCORE:
        n_most = conditions[can_be_scored].groupby(list(conditions.columns)).size().max()
        raise DataError(
            f"split.test_fraction: {share:g} gives no condition {ENOUGH_TO_SCORE} test cells, "
            f"which a score needs (the largest one has {n_most} cells, of which {n_test} would "
            "test); raise it, or hold whole conditions out with split.kind"
        )
    return is_test


def _taken_of_each(
    conditions: pd.DataFrame, rank: np.ndarray, n_taken: Callable[[int], int]
) -> np.ndarray:
    """Take the first cells by rank of each condition; one at least is left for training."""
    chosen = np.zeros(len(conditions), dtype=bool)
    for members in conditions.groupby(list(conditions.columns), sort=False).indices.values():
        rows = np.asarray(members)
        n = max(0, min(n_taken(len(rows)), len(rows) - 1))
        chosen[rows[np.argsort(rank[rows])[:n]]] = True
    return chosen
