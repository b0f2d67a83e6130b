"""Distances between populations, condition by condition, with a gradient to the first one.

Both are V-statistics (diagonals included), which cannot be negative. Cells are grouped by a mask
instead of by indexing, so that nothing in a training step waits for the device.
"""

from collections.abc import Callable, Sequence

import torch

MOST_COMPARED = 1 << 27  # entries of pairs of vectors that are compared at once
_TINY = 1e-12

Divergence = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def same_condition(*columns: torch.Tensor) -> torch.Tensor:
    """Return which pairs of cells agree in every column, ``(B, B)`` bool.

    Parameters
    ----------
    columns
        ``(B,)`` codes or ``(B, K)`` vectors.
    """
    agree = None
    for column in columns:
        for values in _comparable(column):
            equal = (values[:, None, :] == values[None, :, :]).all(-1)
            agree = equal if agree is None else agree & equal
    assert agree is not None
    return agree


def _comparable(column: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return tables, ``(B, few)``, that agree where the column does.

    Pairs of wide vectors would be billions of entries: on the host the vectors are numbered. A GPU
    would wait for how many there are, and compares some entries at a time.
    """
    if column.dim() == 1:
        return [column[:, None]]
    if _on_host(column) and column.shape[1] > 1:
        return [torch.unique(column, dim=0, return_inverse=True)[1][:, None]]
    return column.split(max(MOST_COMPARED // max(len(column), 1) ** 2, 1), dim=1)


def _on_host(column: torch.Tensor) -> bool:
    return column.device.type == "cpu"


def energy(
    generated: torch.Tensor,
    target: torch.Tensor,
    same: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over conditions of ``2 E|a-b| - E|a-a'| - E|b-b'|`` (Székely & Rizzo 2013).

    Parameters
    ----------
    generated, target
        ``(B, D)``; row ``i`` of both belongs to the same condition. The target gets no gradient.
    same
        Pairs of the same condition, ``(B, B)`` bool.
    counts
        Rows whose conditions count in the mean, ``(B,)`` bool; all, if not given. Both sides of the
        others are the same, so that they add nothing.
    """
    return _per_condition(
        generated, target.detach(), same, counts, lambda square: -_distance(square)
    )


def mmd(
    generated: torch.Tensor,
    target: torch.Tensor,
    same: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over conditions of the squared MMD, Gaussian kernel (Gretton et al. 2012).

    The bandwidth is the median heuristic on the targets, clamped at 1e-6, without a gradient.
    Parameters as in :func:`energy`.
    """
    fixed = target.detach()
    median = _distance(_squares(fixed, fixed)).median().clamp_min(1e-6)
    return _per_condition(
        generated, fixed, same, counts, lambda square: torch.exp(-square / (2.0 * median**2))
    )


DIVERGENCES: dict[str, Divergence] = {"energy": energy, "mmd": mmd}


def _per_condition(
    a: torch.Tensor,
    b: torch.Tensor,
    same: torch.Tensor,
    counts: torch.Tensor | None,
    kernel: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Mean over conditions of ``E k(a,a') + E k(b,b') - 2 E k(a,b)``, never below zero."""
    share = same / same.sum(1, keepdim=True)  # row i: 1/n of its condition
    weight = share / same.sum(1)  # pairs of one condition sum to 1
    shares = 1.0 / same.sum(1)
    n_conditions = (shares if counts is None else shares * counts).sum()
    gram = kernel(_squares(a, a)) + kernel(_squares(b, b)) - 2.0 * kernel(_squares(a, b))
    # of no condition that counts the sum is 0; of any, the number is 1 or more
    return ((weight * gram).sum() / n_conditions.clamp_min(0.5)).clamp_min(0.0)


def _squares(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, None, :] - b[None, :, :]).square().sum(-1)


def _distance(square: torch.Tensor) -> torch.Tensor:
    # The root has no gradient at 0 (the diagonal); the tiny number keeps it finite.
    return (square + _TINY).sqrt()
