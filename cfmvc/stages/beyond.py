"""What is asked for beyond what was trained on: said, and not refused."""

from collections.abc import Iterator

import torch

from cfmvc.models.reference import ReferenceCells

_A_LITTLE = 1.0 + 1e-4  # doses in single precision
_FAR = 1.5  # of the largest score of a stratum in training


def beyond_training(
    reference: ReferenceCells, names: tuple[str, ...], p: torch.Tensor, labels: list[str]
) -> Iterator[str]:
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
    patterns = {tuple(row.tolist()) for row in vectors > 0}
    for row, label in zip(p, labels, strict=True):
        columns = row.nonzero().reshape(-1).tolist()
        unseen = [names[column] for column in columns if not seen[column]]
        high = [c for c in columns if seen[c] and row[c] > _A_LITTLE * most[c]]
        for name in unseen:
            yield f"{label}: no training cell was given '{name}'; its embedding alone tells of it"
        for column in high:
            yield (
                f"{label}: dose {float(row[column]):g} of '{names[column]}' is beyond the largest "
                f"of the training, {float(most[column]):g}"
            )
        if len(columns) > 1 and not unseen and tuple((row > 0).tolist()) not in patterns:
            yield f"{label}: never seen together; what they do beyond their sum is not known"


def unlike_training(scores: torch.Tensor, labels: list[str]) -> Iterator[str]:
    """Yield a warning for each condition whose controls are unlike those of the training.

    Parameters
    ----------
    scores
        States of the controls, ``(n, S)``; the largest of the training is 1.
    labels
        Names of the conditions.
    """
    for row, label in zip(scores, labels, strict=True):
        farthest = float(row.abs().max()) if len(row) else 0.0
        if farthest > _FAR:
            yield (
                f"{label}: the controls are {farthest:.1f} times as far from the average control "
                "as any of the training"
            )
