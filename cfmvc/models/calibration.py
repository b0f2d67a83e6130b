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
_MOST_STEPS = 5
_STILL = 1e-3  # log expression: no gene's mean moves by more any longer
_LARGEST_STEP, _LARGEST = 2.0, 12.0  # of the logarithms of the factors
_SMALLEST_SLOPE = 1e-4
_ALMOST_ONE = 1.0 - 1e-6
_GENES_AT_ONCE = 256  # on a CPU: what is computed of so many stays in its cache


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the factors that bring the cells' mean to its target.

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

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        Logarithms of the factors, and the mean log expression of the cells with them, ``(G,)``
        each. Where a target is out of reach, the mean is as near as the factors bring it.
    """
    found = torch.zeros_like(target)
    mean, slope = _expectation(cells, cells.after, library)
    goal = mean + share * (target.clamp_min(0.0) - mean)
    for _ in range(_MOST_STEPS):
        step = (goal - mean) / slope.clamp_min(_SMALLEST_SLOPE)
        found = (found + step.clamp(-_LARGEST_STEP, _LARGEST_STEP)).clamp(-_LARGEST, _LARGEST)
        before = mean
        mean, slope = _expectation(cells, scaled(cells.after, found), library)
        if (mean - before).abs().max() < _STILL:
            break
    return found, mean


def _expectation(
    cells: Virtual, after: torch.Tensor, library: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over cells of the expected log expression, and its slope, ``(G,)`` each."""
    x = torch.zeros_like(after) if cells.counts is None else cells.counts
    before = torch.zeros_like(after) if cells.before is None else cells.before
    shape = cells.theta + x
    per_unit = shape / (cells.theta + before)
    kept = (after / before.clamp_min(1e-12)).clamp_max_(1.0)
    kept = torch.where(before > 0, kept, 1.0)
    ratio = (after - before).clamp_min_(0.0).mul_(per_unit)
    size = library / torch.addcmul(ratio, kept, x).sum(1, keepdim=True).clamp_min(1.0)
    ratio /= shape
    rises = torch.where(after >= before, after * per_unit, 0.0)
    falls = torch.where(after < before, kept * x, 0.0)
    width = _GENES_AT_ONCE if after.device.type == "cpu" else after.shape[1]
    blocks = zip(
        *(table.split(width, dim=1) for table in (x, shape, kept, ratio, rises, falls)),
        strict=True,
    )
    means, slopes = zip(*(_transformed(size, *block) for block in blocks), strict=True)
    return torch.cat(means), torch.cat(slopes)


def _transformed(
    size: torch.Tensor,
    x: torch.Tensor,
    shape: torch.Tensor,
    kept: torch.Tensor,
    ratio: torch.Tensor,
    rises: torch.Tensor,
    falls: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the integral of some genes, whose tables are ``(B, g)``, in place where it can be."""
    mean, slope = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        e = (-torch.expm1(-node * size)).clamp_max_(_ALMOST_ONE)
        left, grown = (kept * -e).add_(1.0), (ratio * e).add_(1.0)
        power = torch.log(left).mul_(x).addcmul_(torch.log(grown), shape, value=-1.0)
        transform = power.exp_()
        mean += weight * (1.0 - transform.mean(0))
        steepness = torch.div(rises, grown).addcdiv_(falls, left)
        slope += weight * steepness.mul_(transform).mul_(e).mean(0)
    return mean, slope
