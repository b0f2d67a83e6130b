r"""Counts that a real cell would have had with other means: the NB's counterfactual.

A negative binomial count is a Poisson count with a gamma rate,

.. math:: G \sim \mathrm{Gamma}(\theta, \theta), \qquad x \mid G \sim \mathrm{Poisson}(\mu G).

Keep what the cell has of its own (:math:`G`, and the molecules already seen) and change the mean
from :math:`\mu` to :math:`\mu'` (abduction, action, prediction: Pearl 2009, section 7.1):

.. math::
    \mu' \ge \mu:\quad & x' = x + \mathrm{Poisson}((\mu' - \mu)\, G), \quad
        G \mid x \sim \mathrm{Gamma}(\theta + x, \theta + \mu) \\
    \mu' < \mu:\quad & x' = \mathrm{Binomial}(x, \mu' / \mu)

If :math:`x \sim \mathrm{NB}(\mu, \theta)`, then :math:`x' \sim \mathrm{NB}(\mu', \theta)`; and
with :math:`\mu' = \mu` every count stays exactly what it was. What the model gets wrong about the
cell as it is, it therefore does not add to the prediction.
"""

import torch

_MEAN_FLOOR = 1e-12


def counterfactual_sample(
    x: torch.Tensor, mean: torch.Tensor, new_mean: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """Draw the counts that cells with counts ``x`` would have had with other means.

    Parameters
    ----------
    x
        Counts, ``(B, G)``.
    mean, new_mean
        Means that the model gives the cells as they are, and as they would be, ``(B, G)``.
    theta
        Inverse dispersions, ``(G,)`` or ``(B, G)``.

    Returns
    -------
    torch.Tensor
        Counts, ``(B, G)``; where the means agree, ``x`` itself.
    """
    rate = torch._standard_gamma(theta + x).div_(theta + mean)
    more = torch.poisson(rate.mul_((new_mean - mean).clamp_min_(0.0)))
    return torch.where(new_mean >= mean, more.add_(x), torch.binomial(x, _kept(mean, new_mean)))


def counterfactual_mean(
    x: torch.Tensor, mean: torch.Tensor, new_mean: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """Return the expectation of :func:`counterfactual_sample` given the counts, ``(B, G)``."""
    more = (new_mean - mean).clamp_min_(0.0).mul_(theta + x).div_(theta + mean)
    return torch.where(new_mean >= mean, more.add_(x), _kept(mean, new_mean).mul_(x))


def _kept(mean: torch.Tensor, new_mean: torch.Tensor) -> torch.Tensor:
    """Return the share of the molecules that stay, in [0, 1]."""
    return (new_mean / mean.clamp_min(_MEAN_FLOOR)).clamp_(0.0, 1.0)
