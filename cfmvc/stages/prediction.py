"""What is made of generated cells: an AnnData, and what happened on the way."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from cfmvc.data.cell_ids import CONTROL_CELL
from cfmvc.flow.solvers import NonFiniteVelocity
from cfmvc.models.bundle import Bundle
from cfmvc.stages.beyond import (
    beyond_training,
    sentences,
    unlike_embeddings,
    unlike_training,
    without_dose,
)
from cfmvc.stages.conditions import LABELS, labels_of
from cfmvc.stages.expectation import Expectation

_ROWS = 256  # cells made sparse at a time
_MOST_CONDITIONS = 1000

Part = tuple[csr_matrix, list[NonFiniteVelocity]]


@dataclass
class Prediction:
    """Generated cells, and what happened on the way.

    Parameters
    ----------
    cells
        ``layers["counts"]`` (sampled, int32 CSR), ``layers["mean"]`` (expectation, float32),
        ``obs`` as asked, one row a cell; ``control_cell`` names the control that it is made of, if
        it is made of one. Cells made of the same one are not independent of each other.
        Where the model has a mean response (and there are not more than 1,000 conditions)
        ``varm["shift"]`` and ``varm["shift_sd"]``, genes x ``uns["shift_conditions"]``: the
        expected shift of log-normalised expression from the controls, and the standard deviation
        of the true one around what related conditions let expect.
    events
        Non-finite velocities, with the condition's label.
    warnings
        What was asked for beyond the training, a line each.
    """

    cells: AnnData
    events: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def asked_of(obs: pd.DataFrame) -> pd.DataFrame:
    """Return what of the cells' columns was asked for: all but the cell that they are made of."""
    return obs.drop(columns=CONTROL_CELL, errors="ignore")


def assembled(
    gene_names: list[str],
    asked: pd.DataFrame,
    row: torch.Tensor,
    parts: list[Part],
    means: np.ndarray | None,
) -> Prediction:
    """Put the parts of a generation together.

    Parameters
    ----------
    gene_names
        Of the columns.
    asked
        The conditions, clean.
    row
        Row of ``asked`` of each cell, ``(n_cells,)`` int64, on the host.
    parts
        Sampled counts and non-finite velocities of the cells, some at a time, in their order.
    means
        Expectations, ``(n_cells, n_genes)``, or None where they were not kept.
    """
    labels, events, start = labels_of(asked), list[dict[str, Any]](), 0
    for counts, seen in parts:
        here = row[start : start + counts.shape[0]]
        entries = _by_condition(seen, here)
        events += [{**event, "condition": labels[condition]} for condition, event in entries]
        start += counts.shape[0]
    counts = vstack([counts for counts, _ in parts], format="csr")
    return Prediction(_cells(gene_names, asked, row.numpy(), counts, means), events)


def with_expectation(
    made: Prediction,
    bundle: Bundle,
    asked: pd.DataFrame,
    p: torch.Tensor,
    expectation: Expectation | None,
) -> Prediction:
    """Say what is expected of each condition, how surely, and what is beyond the training."""
    labels, names = labels_of(asked), bundle.vocabulary.perturbations
    made.warnings += sentences(unlike_embeddings(bundle.model.context.embedding, names, p, labels))
    if bundle.model.reference is not None:
        made.warnings += sentences(beyond_training(bundle.model.reference, names, p, labels))
        if "dose" not in asked:
            made.warnings += sentences(without_dose(bundle.model.reference, p, labels))
    if expectation is None:
        return made
    made.warnings += sentences(unlike_training(expectation.state, labels))
    made.warnings += sentences(
        (label, "of more conditions than the mean response remembers; told by the flow alone")
        for label, is_alone in zip(labels, expectation.is_flow_alone, strict=True)
        if is_alone
    )
    if len(labels) <= _MOST_CONDITIONS:
        made.cells.varm["shift"] = np.ascontiguousarray(expectation.shift.T)
        made.cells.varm["shift_sd"] = np.ascontiguousarray(expectation.spread.T)
        made.cells.uns["shift_conditions"] = np.asarray(labels)
    return made


def sparse_counts(counts: np.ndarray) -> csr_matrix:
    """Return counts as int32 CSR; SciPy's own way by coordinates takes several times as long."""
    sizes, values, genes = [np.zeros(1, np.int64)], [], []
    for start in range(0, len(counts), _ROWS):
        some = counts[start : start + _ROWS]
        is_there = some != 0
        at, n = np.flatnonzero(is_there), np.count_nonzero(is_there, axis=1)
        first = np.repeat(np.arange(len(some)) * some.shape[1], n)
        sizes.append(n)
        values.append(some.reshape(-1)[at].astype(np.int32))
        genes.append((at - first).astype(np.int32))
    bounds = np.concatenate(sizes).cumsum()
    return csr_matrix((np.concatenate(values), np.concatenate(genes), bounds), shape=counts.shape)


def _cells(
    gene_names: list[str],
    asked: pd.DataFrame,
    rows: np.ndarray,
    counts: csr_matrix,
    means: np.ndarray | None,
) -> AnnData:
    obs = asked.drop(columns="n_cells").iloc[rows].reset_index(drop=True)
    obs.index = pd.Index([f"virtual-{number}" for number in range(len(obs))], dtype=object)
    for name in LABELS:
        obs[name] = obs[name].astype("category")
    cells = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(gene_names, dtype=object)))
    cells.layers["counts"] = counts
    if means is not None:
        cells.layers["mean"] = means
    return cells


def _by_condition(
    seen: list[NonFiniteVelocity], row: torch.Tensor
) -> list[tuple[int, dict[str, Any]]]:
    """Return one entry a step and condition: the condition's row, and the event's figures."""
    entries = []
    for event in seen:
        rows, n_cells = row[torch.tensor(event.cells)].unique(return_counts=True)
        for condition, n in zip(rows.tolist(), n_cells.tolist(), strict=True):
            figures = {
                "place": "velocity",
                "step": event.step,
                "t": event.t,
                "n_cells": n,
                "action": "velocity replaced by 0",
            }
            entries.append((condition, figures))
    return entries
