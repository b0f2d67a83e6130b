"""The training's reconstruction term: a negative binomial over softmax shares, in one operation.

The same number as ``-nb_log_likelihood(x, library * softmax(logits), theta).sum(1).mean()``, with a
gradient by hand. Autograd would keep and walk a dozen ``(B, n_genes)`` arrays; here one pass makes
value and gradient together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cfmvc.data.count_terms import SMALL, CountTerms
from cfmvc.models.beside import beside

LOGIT_LIMIT = 20.0
LOG_THETA_LIMIT = 10.0

TermsOfCounts = Callable[[], tuple[torch.Tensor, torch.Tensor]]
"""Waits for the sum over cells of ``log[(theta)_x / theta^x] - log x!``, and d/d ``log theta``."""


@dataclass(frozen=True)
class Counted:
    """Counts of some cells, not below 0, and what the likelihood needs of them alone.

    Parameters
    ----------
    x
        ``(B, n_genes)``.
    total
        ``(B,)``.
    terms
        From :func:`count_terms`.
    """

    x: torch.Tensor
    total: torch.Tensor
    terms: TermsOfCounts


def nb_reconstruction(
    logits: torch.Tensor,
    log_theta: torch.Tensor,
    x: torch.Tensor,
    total: torch.Tensor,
    terms: TermsOfCounts,
) -> torch.Tensor:
    """Mean over cells of ``-log p(x | mean, theta)``, in nats a cell: a scalar.

    Parameters
    ----------
    logits
        ``(B, n_genes)``; limited to ``+-LOGIT_LIMIT``, ``mean = library * softmax(logits)``.
    log_theta
        Log inverse dispersions, ``(n_genes,)``; limited to ``+-LOG_THETA_LIMIT``.
    x
        Counts, ``(B, n_genes)``, not below 0.
    total
        Total counts of each cell, ``(B,)``; the library is at least 1.
    terms
        From :func:`count_terms` of the same counts and dispersions.

    Notes
    -----
    With ``r = mean / theta``::

        log p = log[(theta)_x / theta^x] - log x! + x log(mean) - (x + theta) log(1 + r)

    where ``(theta)_x / theta^x = product over k < x of (1 + k / theta)``. Nothing cancels at large
    theta, so that single precision is enough; numbers are summed in it as they come. Non-finite
    inputs give a non-finite loss.
    """
    single = torch.promote_types(logits.dtype, torch.float32)  # of autocast's half precision
    return _Reconstruction.apply(
        logits.to(single), log_theta.to(single), x.to(single), total.to(single), terms
    )


class _Reconstruction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        log_theta: torch.Tensor,
        x: torch.Tensor,
        total: torch.Tensor,
        terms: TermsOfCounts,
    ) -> torch.Tensor:
        limited = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        theta = _limited_theta(log_theta)
        library = total.clamp_min(1.0)[:, None]
        peak = limited.amax(1, keepdim=True)
        share = (limited - peak).exp_()
        norm = share.sum(1, keepdim=True)
        share /= norm
        ratio = share * library / theta
        spread = ratio.log1p()
        weight = x + theta
        of_cell = total[:, None] * (library.log() - peak - norm.log())
        value = (x * limited).sum(1) + of_cell[:, 0] - (weight * spread).sum(1)
        of_counts, of_counts_gradient = terms()
        loss = -(value.mean() + of_counts / len(x))
        # Of the weight of 1 + r that lies on r: d/d log(mean) of -(x + theta) log(1 + r).
        pull = weight.mul_(ratio.div_(ratio + 1.0))
        of_theta = of_counts_gradient - theta * spread.sum(0) + pull.sum(0)
        of_logits = pull.neg_().add_(x)
        of_logits -= share.mul_(of_logits.sum(1, keepdim=True))
        of_logits *= limited == logits  # NaN stays NaN
        of_theta = of_theta.masked_fill(log_theta.abs() > LOG_THETA_LIMIT, 0.0)
        ctx.save_for_backward(of_logits, of_theta)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        of_logits, of_theta = ctx.saved_tensors
        scale = -gradients[0] / len(of_logits)
        return of_logits * scale, of_theta * scale, None, None, None


def count_terms(
    x: torch.Tensor, log_theta: torch.Tensor, tally: CountTerms | None = None
) -> TermsOfCounts:
    """Begin with what the counts add to the likelihood whatever the means are.

    Parameters
    ----------
    x
        Counts, ``(B, n_genes)``, not below 0.
    log_theta
        As in :func:`nb_reconstruction`.
    tally
        Of ``x``; None: each count for itself, in double precision. That is a dozen kernels instead
        of several dozen small ones, and what a GPU does faster.
    """

    @torch.no_grad()
    def made() -> tuple[torch.Tensor, torch.Tensor]:
        theta = _limited_theta(log_theta)
        return _terms_of_each(x, theta) if tally is None else _terms_of_tally(tally, theta)

    return beside(made, x)


def _limited_theta(log_theta: torch.Tensor) -> torch.Tensor:
    single = torch.promote_types(log_theta.dtype, torch.float32)
    return log_theta.to(single).clamp(-LOG_THETA_LIMIT, LOG_THETA_LIMIT).exp()


def _terms_of_each(x: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what :func:`_terms_of_tally` does, from the counts themselves."""
    count, size = x.double(), theta.double()
    beyond = count + size
    of_gene = count.sum(0)
    value = (torch.lgamma(beyond) - torch.lgamma(count + 1.0)).sum(0).sum()
    value -= (len(x) * torch.lgamma(size) + of_gene * size.log()).sum()
    slope = size * (torch.digamma(beyond).sum(0) - len(x) * torch.digamma(size)) - of_gene
    return value.to(theta.dtype), slope.to(theta.dtype)


def _terms_of_tally(terms: CountTerms, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of ``log[(theta)_x / theta^x] - log x!``, and d/d ``log theta`` of it."""
    below = torch.arange(1, SMALL, dtype=theta.dtype, device=theta.device)  # k of count k + 1
    factor = below / theta[:, None]
    at_least = terms.at_least.to(theta.dtype)
    value = (at_least * (factor.log1p() - (below + 1.0).log())).sum()
    gradient = -(at_least * (factor / (factor + 1.0))).sum(1)
    if terms.value.numel() == 0:
        return value, gradient
    size = theta.double()[terms.gene]
    upper, lower = terms.value + size, terms.base + size
    beyond = torch.lgamma(upper) - torch.lgamma(lower) - (terms.value - terms.base) * size.log()
    beyond -= torch.lgamma(terms.value + 1.0) - torch.lgamma(terms.base + 1.0)
    slope = size * (torch.digamma(upper) - torch.digamma(lower)) - (terms.value - terms.base)
    slope = torch.zeros_like(theta, dtype=torch.float64).index_add_(0, terms.gene, slope)
    return value + beyond.sum().to(theta.dtype), gradient + slope.to(theta.dtype)
