"""The negative binomial: log-likelihood, samples, and a diagnosis of non-finite values.

Mean ``mu`` and inverse dispersion ``theta``: variance ``mu + mu^2 / theta``.
"""

from dataclasses import dataclass

import torch

_MEAN_FLOOR = 1e-12  # a mean of exactly 0 (an empty cell) must not give log(0)


def nb_log_likelihood(x: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Log-probability of counts under a negative binomial, element by element.

    Parameters
    ----------
    x
        Counts, ``(B, G)``.
    mean
        Means, ``(B, G)``.
    theta
        Inverse dispersions, ``(G,)`` or ``(B, G)``.

    Returns
    -------
    torch.Tensor
        ``(B, G)``. Non-finite inputs give non-finite values here; none is replaced.

    Notes
    -----
    For ``x = 0`` every term with ``x`` vanishes, ``lgamma(x + theta) - lgamma(theta)`` as well, so
    ``lgamma`` is evaluated on the non-zeros alone, which is exact.
    """
    value = -theta * torch.log1p(mean / theta)  # all there is where x = 0
    where = (x != 0).nonzero(as_tuple=True)  # NaN counts as non-zero, and stays visible
    return value.index_put(where, _counted(x, mean, theta, where).to(value.dtype))


def nb_sample(mean: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Draw counts: a Poisson whose rate is ``Gamma(theta, theta / mean)``; shape of ``mean``.

    Raises
    ------
    ValueError
        If a mean is not finite.
    """
    if not torch.isfinite(mean.sum()):
        raise ValueError("counts cannot be drawn: a mean is NaN or infinite")
    rate = torch._standard_gamma(theta.expand_as(mean))
    return torch.poisson(rate.mul_(mean).div_(theta))


@dataclass(frozen=True)
class NaNDiagnosis:
    """Ranges of the likelihood's inputs, and the causes they point at."""

    ranges: dict[str, tuple[float, float]]
    n_non_finite: dict[str, int]
    causes: list[str]

    def __str__(self) -> str:
        lines = [
            f"{name}: {low:.3g} to {high:.3g}, {self.n_non_finite[name]} not finite"
            for name, (low, high) in self.ranges.items()
        ]
        return "\n".join([*lines, *(f"cause: {cause}" for cause in self.causes or ["none found"])])


def diagnose_nan(x: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor) -> NaNDiagnosis:
    """Print and return where a non-finite likelihood may come from.

    Looks for bad input, ``log(0)``, overflow of ``exp`` and division by zero, in that order.

    Parameters
    ----------
    x, mean, theta
        As in :func:`nb_log_likelihood`.
    """
    named = {"x": x, "mean": mean, "theta": theta}
    diagnosis = NaNDiagnosis(
        {name: _finite_range(values) for name, values in named.items()},
        {name: _n_non_finite(values) for name, values in named.items()},
        nan_causes(x, mean, theta),
    )
    print(diagnosis)
    return diagnosis


def nan_causes(x: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor) -> list[str]:
    """Return the causes that :func:`diagnose_nan` points at; arguments as there."""
    causes = []
    if n_bad := _n_non_finite(x):
        causes.append(f"bad input: {n_bad} counts are NaN or infinite")
    if (x < 0).any():
        causes.append(f"bad input: {int((x < 0).sum())} counts are negative")
    if (mean <= 0).any():
        causes.append(f"log(0): {int((mean <= 0).sum())} means are zero or negative")
    if n_bad := _n_non_finite(mean):
        causes.append(f"overflow of exp: {n_bad} means are NaN or infinite")
    if n_bad := _n_non_finite(theta):
        causes.append(f"overflow of exp: {n_bad} thetas are NaN or infinite")
    if (theta <= 0).any():
        causes.append(f"division by zero: {int((theta <= 0).sum())} thetas are zero or negative")
    return causes


def _counted(
    x: torch.Tensor,
    mean: torch.Tensor,
    theta: torch.Tensor,
    where: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """Return the log-probabilities of the counts that are not 0, a flat list in double precision.

    In single precision ``lgamma(x + theta) - lgamma(theta)`` cancels six digits at large theta, and
    its sum with the other terms the rest. Of a theta a gene, ``lgamma`` is taken once a gene.
    """
    wide = theta.double()
    place = where[-theta.dim() :]
    size, log_gamma_size = wide[place], torch.lgamma(wide)[place]
    counts = x[where].double().clamp_min(0.0)
    floored = mean[where].double().clamp_min(_MEAN_FLOOR)
    rising = torch.lgamma(counts + size) - log_gamma_size - torch.lgamma(counts + 1.0)
    scaled = counts * torch.log1p(size / floored) + size * torch.log1p(floored / size)
    return rising - scaled


def _n_non_finite(values: torch.Tensor) -> int:
    return int((~torch.isfinite(values)).sum())


def _finite_range(values: torch.Tensor) -> tuple[float, float]:
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        return float("nan"), float("nan")
    return float(finite.min()), float(finite.max())
