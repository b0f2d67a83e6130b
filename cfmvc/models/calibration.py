r"""Factors on the means of virtual cells that bring their mean log expression to a target.

For a count with the Laplace transform :math:`L`, Frullani's integral gives

.. math:: E \log(1 + s x) = \int_0^\infty \frac{1 - L(u s)}{u} e^{-u} du,

and the counts of :mod:`cfmvc.models.counterfactual` have one in closed form: a binomial share ``q``
of the ``x`` molecules that were seen, and a negative binomial number of new ones of mean ``m`` and
shape ``a``,

.. math:: L(v) = (1 - q e)^x\, (1 + m e / a)^{-a}, \qquad e = 1 - \exp(-v).

So nothing is drawn, and Newton's method finds the factors, all genes at once. The integral is taken
over :math:`\log u` by the trapezoidal rule.
"""

from dataclasses import dataclass

import torch

_STEP = 1.2
_NODES = torch.exp(torch.arange(-12.0, 1.7, _STEP))
_WEIGHTS = _STEP * torch.exp(-_NODES)
_N_STEPS = 5
_LARGEST_STEP, _LARGEST = 2.0, 12.0  # of the logarithms of the factors
_SMALLEST_SLOPE = 1e-4
_ALMOST_ONE = 1.0 - 1e-6


@dataclass(frozen=True)
class Virtual:
    """Cells whose means are to be scaled.

    Parameters
    ----------
    counts
        Of the real cells that they were, ``(B, G)``; None where they are drawn anew.
    before, after
        Means that the model gives them unperturbed and perturbed, ``(B, G)``; ``before`` is None
        as well.
    theta
        Inverse dispersions, ``(G,)``.
    """

    counts: torch.Tensor | None
    before: torch.Tensor | None
    after: torch.Tensor
    theta: torch.Tensor


def scaled(means: torch.Tensor, log_factors: torch.Tensor) -> torch.Tensor:
    """Return means whose genes are scaled, each cell's total being what it was, ``(B, G)``.

    ``log_factors`` are ``(G,)``, or ``(B, G)``; means of cells with factors 1 stay as they are, to
    the bit.
    """
    changed = means * log_factors.exp()
    total = means.sum(1, keepdim=True) / changed.sum(1, keepdim=True).clamp_min(1e-30)
    is_scaled = (log_factors != 0).any(-1, keepdim=True)
    return torch.where(is_scaled, changed * total, means)


def log_factors(
    cells: Virtual, target: torch.Tensor, library: float, share: float = 1.0
) -> torch.Tensor:
    """Return the logarithms of the factors that bring the cells' mean to its target, ``(G,)``.

    Parameters
    ----------
    cells
        Virtual cells.
    target
        Mean log-normalised expression, ``(G,)``; what is below 0 is read as 0.
    library
        Total counts to which cells are normalised.
    share
        Of the way from the mean that the cells have to the target, in [0, 1].
    """
    found = torch.zeros_like(target)
    goal = None
    for _ in range(_N_STEPS):
        mean, slope = _expectation(cells, scaled(cells.after, found), library)
        if goal is None:
            goal = mean + share * (target.clamp_min(0.0) - mean)
        step = (goal - mean) / slope.clamp_min(_SMALLEST_SLOPE)
        found = (found + step.clamp(-_LARGEST_STEP, _LARGEST_STEP)).clamp(-_LARGEST, _LARGEST)
    return found


def _expectation(
    cells: Virtual, after: torch.Tensor, library: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over cells of the expected log expression, and its slope, ``(G,)`` each."""
    theta = cells.theta
    x = torch.zeros_like(after) if cells.counts is None else cells.counts
    before = torch.zeros_like(after) if cells.before is None else cells.before
    shape = theta + x
    kept = (after / before.clamp_min(1e-12)).clamp_max(1.0)
    kept = torch.where(before > 0, kept, torch.ones_like(kept))
    per_unit = shape / (theta + before)
    more = (after - before).clamp_min(0.0) * per_unit
    rises, falls = torch.where(after >= before, after * per_unit, 0.0), kept * x
    falls = torch.where(after < before, falls, 0.0)
    size = library / (kept * x + more).sum(1, keepdim=True).clamp_min(1.0)
    mean, slope = torch.zeros_like(theta), torch.zeros_like(theta)
    ratio = more / shape
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        e = (-torch.expm1(-node * size)).clamp_max(_ALMOST_ONE)
        left, grown = 1.0 - kept * e, 1.0 + ratio * e
        transform = torch.exp(x * torch.log(left) - shape * torch.log(grown))
        mean += weight * (1.0 - transform).mean(0)
        slope += weight * (transform * e * (rises / grown + falls / left)).mean(0)
    return mean, slope
