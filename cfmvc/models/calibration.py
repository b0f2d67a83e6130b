r"""Factors on the means of virtual cells that bring their mean log expression to a target.

For a count with the Laplace transform :math:`L`, Frullani's integral gives

.. math:: E \log(1 + s x) = \int_0^\infty \frac{1 - L(w)}{w} e^{-w / s} dw,

and the counts of :mod:`cfmvc.models.counterfactual` have one in closed form. Of the ``x`` molecules
that were seen a binomial share ``q`` stays where the mean falls, and where it rises a negative
binomial number of new ones, of mean ``m`` and shape ``a``, is added:

.. math:: L(w) = (1 - q e)^x \quad\text{or}\quad e^{-w x} (1 + m e / a)^{-a}, \qquad
    e = 1 - \exp(-w).

So nothing is drawn, and Newton's method finds the factors, all genes at once. The integral is taken
over :math:`\log w` by the trapezoidal rule, from where the integrand is the count's mean, times
``w``, and its rest a geometric series.

How the log expression of a single cell is expected to change comes by the same way:
:func:`log_change`.
"""

import math
from dataclasses import dataclass

import torch

_STEP = 1.2
_LINEAR = 0.1  # 1 - L(w) is the mean times w for a count of 1 / w times this
_LAST = 9.0  # exp(-w / s) is 0 beyond that many s
_MOST_STEPS = 5
_STILL = 1e-2  # log expression: the next step of Newton's would move no gene by a fifth of that
_LARGEST_STEP, _LARGEST = 2.0, 12.0  # of the logarithms of the factors
_SMALLEST_SLOPE = 1e-4
_ALMOST_ONE = 1.0 - 1e-6
_AT_A_TIME = 256  # cells whose change is found at once


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

    def split(self, n_cells: list[int]) -> "list[Virtual]":
        """Return the first cells, those after them, and so on."""
        after = self.after.split(n_cells)
        if self.counts is None or self.before is None:
            return [Virtual(None, None, some, self.theta) for some in after]
        tables = zip(self.counts.split(n_cells), self.before.split(n_cells), after, strict=True)
        return [Virtual(*some, self.theta) for some in tables]


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
    cells: Virtual,
    target: torch.Tensor,
    library: float,
    share: float = 1.0,
    sd: torch.Tensor | float = 0.0,
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
    sd
        Standard deviations of the target, ``(G,)``. The likeliest log factors are found, where
        those of standard deviation 1 are expected: of a gene that hardly a cell shows, a target
        that is a little wrong would else ask for a factor of hundreds.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        Logarithms of the factors, and the mean log expression of the cells with them, ``(G,)``
        each. Where a target is out of reach, the mean is as near as the factors bring it.
    """
    found = torch.zeros_like(target)
    mean, slope = _expectation(cells, cells.after, library)
    goal = mean + share * (target.clamp_min(0.0) - mean)
    doubt = torch.as_tensor(sd, dtype=mean.dtype, device=mean.device).square()
    for _ in range(_MOST_STEPS):
        slope = slope.clamp_min(_SMALLEST_SLOPE)
        step = (slope * (goal - mean) - doubt * found) / (slope.square() + doubt)
        found = (found + step.clamp(-_LARGEST_STEP, _LARGEST_STEP)).clamp(-_LARGEST, _LARGEST)
        before = mean
        mean, slope = _expectation(cells, scaled(cells.after, found), library)
        if (mean - before).abs().max() < _STILL:
            break
    return found, mean


def log_change(cells: Virtual, library: float) -> torch.Tensor:
    r"""Return how the log-normalised expression of real cells is expected to change, ``(B, G)``.

    The logarithm of the expected count is above what is expected of the logarithm. Their gap is
    Frullani's integral of :math:`L(w) - \exp(-w E x)`, so that it is nothing, to the bit, where a
    count stays what it is.

    Parameters
    ----------
    cells
        With the counts of the real cells.
    library
        Total counts to which cells are normalised: the present ones by the total that they have,
        the later ones by the one that is expected.
    """
    assert cells.counts is not None
    sizes = [len(some) for some in cells.after.split(_AT_A_TIME)]
    changes = [_log_change(some, library) for some in cells.split(sizes)]
    return torch.cat(changes)


def _log_change(cells: Virtual, library: float) -> torch.Tensor:
    assert cells.counts is not None
    counts = _Counts.of(cells, cells.after)
    size, now = counts.size(library), library / cells.counts.sum(1, keepdim=True).clamp_min(1.0)
    change = torch.log1p(counts.expected * size) - torch.log1p(cells.counts * now)
    grown, transform = torch.empty_like(change), torch.empty_like(change)
    for node in counts.nodes(library, cells.theta).tolist():
        counts.transform(node, grown, transform)
        of_expected = torch.mul(counts.expected, -node, out=grown).exp_()
        change -= transform.sub_(of_expected).mul_(_STEP * torch.exp(-node / size))
    return change


@dataclass(frozen=True)
class _Counts:
    """Distributions of counts by their transforms ``exp(-w stay) (1 + base e)^exponent``.

    Parameters
    ----------
    base, exponent
        ``(B, G)``.
    stay
        Molecules that stay for certain, ``(B, G)``; None for none.
    expected
        Means, ``(B, G)``.
    moved
        How far they move with the logarithms of the factors, ``(B, G)``.
    """

    base: torch.Tensor
    exponent: torch.Tensor
    stay: torch.Tensor | None
    expected: torch.Tensor
    moved: torch.Tensor

    @classmethod
    def of(cls, cells: Virtual, after: torch.Tensor) -> "_Counts":
        """Describe the counts of cells whose perturbed means are ``after``."""
        x, before, theta = cells.counts, cells.before, cells.theta
        if x is None or before is None:
            return cls(after / theta, -theta.expand_as(after), None, after, after)
        rises = after >= before
        shape = theta + x
        rate = 1.0 / (theta + before)
        stay = torch.where(rises, x, 0.0)
        kept = after / before.clamp_min(1e-12)
        base = torch.where(rises, (after - before).mul_(rate), -kept)
        exponent = torch.where(rises, -shape, x)
        expected = torch.addcmul(stay, base, exponent, value=-1.0)
        moved = torch.where(rises, rate.mul_(shape).mul_(after), expected)
        return cls(base, exponent, stay, expected, moved)

    def size(self, library: float) -> torch.Tensor:
        """Return by how much each cell is scaled to its expected total, ``(B, 1)``."""
        return library / self.expected.sum(1, keepdim=True).clamp_min(1.0)

    def nodes(self, library: float, theta: torch.Tensor) -> torch.Tensor:
        """Return the places of the integrals of these cells, ``(nodes,)``."""
        largest = self.expected.amax(0)
        largest = (largest + largest.square() * (1.0 + 1.0 / theta)).sqrt().max()
        return _nodes(self.size(library), largest)

    def transform(self, node: float, grown: torch.Tensor, transform: torch.Tensor) -> float:
        """Write ``1 + base e`` and the transform at ``w = node``, and return ``e``."""
        e = min(-math.expm1(-node), _ALMOST_ONE)
        torch.mul(self.base, e, out=grown).add_(1.0)
        torch.log(grown, out=transform).mul_(self.exponent)
        if self.stay is not None:
            transform.add_(self.stay, alpha=-node)
        transform.exp_()
        return e


def _expectation(
    cells: Virtual, after: torch.Tensor, library: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over cells of the expected log expression, and its slope, ``(G,)`` each."""
    counts = _Counts.of(cells, after)
    size, nodes = counts.size(library), counts.nodes(library, cells.theta)
    weights = torch.exp(-nodes / size).mul_(_STEP / len(size))  # (B, nodes)
    rest = _STEP * float(nodes[0]) / math.expm1(_STEP)
    mean, slope = rest * counts.expected.mean(0), rest * counts.moved.mean(0)
    grown, transform = torch.empty_like(after), torch.empty_like(after)
    for weight, node in zip(weights.T.contiguous(), nodes.tolist(), strict=True):
        e = counts.transform(node, grown, transform)
        mean += weight.sum() - weight @ transform
        slope += e * (weight @ transform.div_(grown).mul_(counts.moved))
    return mean, slope


def _nodes(size: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Return the places of an integral for cells of these sizes and counts, ``(nodes,)``.

    Where something is not finite any places do: the result is not finite wherever they are.
    """
    sizes = size.nan_to_num(1.0).clamp(1e-6, 1e6).aminmax()
    smallest_size, largest_size = (float(value) for value in sizes)
    largest_count = float(largest.nan_to_num(1.0, posinf=1.0))
    first = math.log(_LINEAR / max(largest_count, 1.0 / smallest_size)) / _STEP
    last = math.log(_LAST * largest_size) / _STEP
    steps = torch.arange(math.floor(first), math.ceil(last) + 1, device=largest.device)
    return torch.exp(_STEP * steps)
