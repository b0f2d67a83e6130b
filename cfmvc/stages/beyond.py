"""What is asked for beyond what was trained on: said, and not refused."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch

from cfmvc.models.bundle import Bundle
from cfmvc.models.reference import ReferenceCells

_A_LITTLE = 1.0 + 1e-4  # doses in single precision
_FAR = 1.5  # of the largest score of a stratum in training
_MOST_NAMED = 3  # conditions of which the same is said

Warned = tuple[str, str]
"""Name of a condition, and what is to be said of it."""


def sentences(warned: Iterable[Warned]) -> list[str]:
    """Return one warning for each thing that is said, with the conditions that it holds for."""
    by_text: dict[str, list[str]] = {}
    for label, text in warned:
        by_text.setdefault(text, []).append(label)
    return [f"{_named(labels)}: {text}" for text, labels in by_text.items()]


def _named(labels: list[str]) -> str:
    rest = f", ... ({len(labels)} conditions)" if len(labels) > _MOST_NAMED else ""
    return ", ".join(labels[:_MOST_NAMED]) + rest


def beyond_training(
    reference: ReferenceCells, names: tuple[str, ...], p: torch.Tensor, labels: list[str]
) -> Iterator[Warned]:
    """Yield a warning for each condition that is beyond the training cells.

    Parameters
    ----------
    reference
        Cells that the model keeps of every condition of its training.
    names
        Of the perturbation columns.
    p
        Conditions asked for, ``(n, K)``.
    labels
        Their names.
    """
    vectors = reference.vectors[reference.vector.unique()].to(p)
    seen, most = (vectors > 0).any(0), vectors.max(0).values
    measured = reference.measured
    rows, columns = (vectors > 0).nonzero(as_tuple=True)
    sizes = torch.bincount(rows, minlength=len(vectors)).tolist()
    patterns = {tuple(some.tolist()) for some in columns.split(sizes)}
    for row, label in zip(p, labels, strict=True):
        columns = row.nonzero().reshape(-1).tolist()
        unseen = [names[column] for column in columns if not seen[column]]
        high = [c for c in columns if seen[c] and row[c] > _A_LITTLE * most[c]]
        for name in unseen:
            yield label, f"no training cell was given '{name}'; its embedding alone tells of it"
        for column in columns:
            if seen[column] and not measured[column]:
                yield (
                    label,
                    f"no cell of '{names[column]}' in the training had controls of its own batch "
                    "and cell type beside it; its effect was never measured",
                )
        for column in high:
            yield (
                label,
                f"dose {float(row[column]):g} of '{names[column]}' is beyond the largest of the "
                f"training, {float(most[column]):g}",
            )
        if len(columns) > 1 and not unseen and tuple(columns) not in patterns:
            yield label, "never seen together; what is particular to these is not known"
        if len(columns) == 1 and not unseen and tuple(columns) not in patterns:
            yield (
                label,
                "never seen alone, only with others; what it does without these is not known",
            )


def without_dose(reference: ReferenceCells, p: torch.Tensor, labels: list[str]) -> Iterator[Warned]:
    """Yield a warning for each condition of which the training had other doses than 1 alone.

    Where no dose is given, 1 is taken. A perturbation that no training cell was given is measured
    by the doses of the others.

    Parameters
    ----------
    reference
        Cells that the model keeps of every condition of its training.
    p, labels
        As in :func:`beyond_training`.
    """
    vectors = reference.vectors[reference.vector.unique()].to(p)
    if not vectors.any():
        return
    most = vectors.amax(0)
    least = torch.where(vectors > 0, vectors, torch.inf).amin(0)
    is_unseen = most == 0
    most[is_unseen], least[is_unseen] = most.max(), least.min()
    for row, label in zip(p, labels, strict=True):
        columns = row.nonzero().reshape(-1).tolist()
        ranges = {(float(least[column]), float(most[column])) for column in columns}
        for low, high in sorted(ranges - {(1.0, 1.0)}):
            those = f"that of the training is {low:g}"
            if low < high:
                those = f"those of the training are {low:g} to {high:g}"
            yield label, f"no dose was asked for: 1 is taken, and {those}"


def unlike_embeddings(
    embedding: torch.Tensor, names: tuple[str, ...], p: torch.Tensor, labels: list[str]
) -> Iterator[Warned]:
    """Yield a warning for each condition with an embedding unlike those of the training.

    Parameters
    ----------
    embedding
        Of each perturbation column, ``(K, E)``; the largest of the training has norm 1.
    names, p, labels
        As in :func:`beyond_training`.
    """
    norms = embedding.norm(dim=1).tolist()
    for row, label in zip(p, labels, strict=True):
        for column in row.nonzero().reshape(-1).tolist():
            if norms[column] > _FAR:
                yield (
                    label,
                    f"the embedding of '{names[column]}' is {norms[column]:.1f} times as far from "
                    "the average one as any of the training; are the units the same?",
                )


def other_vectors(bundle: Bundle, embeddings: pd.DataFrame) -> list[str]:
    """Return the known perturbations of which a table has another vector than the training had.

    Parameters
    ----------
    bundle
        A model that was trained with embeddings.
    embeddings
        A row a label, as long as those of the training.
    """
    context, names = bundle.model.context, bundle.vocabulary.perturbations
    column = {name: number for number, name in enumerate(names) if number}  # not the control
    shared = [label for label in embeddings.index if label in column]
    given = torch.from_numpy(embeddings.loc[shared].to_numpy(dtype=np.float64))
    there = context.embedding[[column[label] for label in shared]]
    is_same = torch.isclose(context.in_own_units(given.to(bundle.device)), there, 1e-3, 1e-3)
    return [label for label, same in zip(shared, is_same.all(1).tolist(), strict=True) if not same]


def unlike_training(scores: np.ndarray, labels: list[str]) -> Iterator[Warned]:
    """Yield a warning for each condition whose controls are unlike those of the training.

    Parameters
    ----------
    scores
        States of the controls, ``(n, S)``; the largest of the training is 1.
    labels
        Names of the conditions.
    """
    for row, label in zip(scores, labels, strict=True):
        farthest = float(np.abs(row).max(initial=0.0))
        if farthest > _FAR:
            yield (
                label,
                f"the controls are {farthest:.1f} times as far from the average control as any of "
                "the training",
            )
