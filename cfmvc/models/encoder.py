"""Encoder of the NB-VAE: counts and covariates to two diagonal Gaussians."""

from dataclasses import dataclass

import torch
from torch import nn

from cfmvc.models.centring import BatchCentring
from cfmvc.models.layers import mlp
from cfmvc.shards import normal_like

EMBEDDING = 8
LOGVAR_LIMIT = 10.0


@dataclass(frozen=True)
class Posterior:
    """Means and log-variances of ``q(z_int, z_tech | x, batch, cell_type)``.

    Parameters
    ----------
    int_mean, int_logvar
        ``(B, dim_int)``.
    tech_mean, tech_logvar
        ``(B, dim_tech)``.
    """

    int_mean: torch.Tensor
    int_logvar: torch.Tensor
    tech_mean: torch.Tensor
    tech_logvar: torch.Tensor


class EncoderVAE(nn.Module):
    """``q(z_int, z_tech | x, batch, cell_type)``.

    ``z_tech`` has a prior of its own for each batch, which costs nothing to follow, while
    ``z_int`` is centred batch by batch (:class:`~cfmvc.models.centring.BatchCentring`): that
    separates the two.

    Parameters
    ----------
    n_genes, n_batch, n_ct
        Sizes of the data.
    dim_int, dim_tech
        Widths of the latents: intrinsic state, technical noise.
    hidden_dim
        Width of the two hidden layers.
    dropout
        Share of hidden units dropped in training.
    """

    def __init__(
        self,
        n_genes: int,
        n_batch: int,
        n_ct: int,
        dim_int: int = 32,
        dim_tech: int = 8,
        hidden_dim: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = (dim_int, dim_int, dim_tech, dim_tech)
        self.batch_embedding = nn.Embedding(n_batch, EMBEDDING)
        self.cell_type_embedding = nn.Embedding(n_ct, EMBEDDING)
        # Two halves of one layer: no gradient is needed of the counts, only of the embeddings.
        self.of_counts = nn.Linear(n_genes, hidden_dim)
        self.of_covariates = nn.Linear(2 * EMBEDDING, hidden_dim, bias=False)
        limit = (6.0 / (n_genes + 2 * EMBEDDING + hidden_dim)) ** 0.5  # Xavier, of both together
        nn.init.uniform_(self.of_counts.weight, -limit, limit)
        nn.init.uniform_(self.of_covariates.weight, -limit, limit)
        nn.init.zeros_(self.of_counts.bias)
        self.hidden = mlp(None, hidden_dim, 2, dropout)
        self.moments = nn.Linear(hidden_dim, sum(self.dims))
        nn.init.xavier_uniform_(self.moments.weight)
        nn.init.zeros_(self.moments.bias)
        self.centring = BatchCentring(n_batch, n_ct, dim_int)
        self.tech_prior_mean = nn.Embedding(n_batch, dim_tech)
        self.tech_prior_logvar = nn.Embedding(n_batch, dim_tech)
        nn.init.normal_(self.tech_prior_mean.weight)
        nn.init.zeros_(self.tech_prior_logvar.weight)

    def posterior(
        self, x: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
    ) -> Posterior:
        """Return means and clamped log-variances; counts below 0 are read as 0.

        Parameters
        ----------
        x
            Counts, ``(B, n_genes)``.
        batch_idx, ct_idx
            Column numbers, ``(B,)``.
        """
        covariates = [self.batch_embedding(batch_idx), self.cell_type_embedding(ct_idx)]
        logged = x.to(covariates[0].dtype).clamp_min(0.0).log1p_()
        h = self.hidden(self.of_counts(logged) + self.of_covariates(torch.cat(covariates, dim=1)))
        moments = self.moments(h)
        # Under autocast a product has half the width; the divergences are no place for that.
        moments = moments.to(torch.promote_types(moments.dtype, torch.float32))
        int_mean, int_logvar, tech_mean, tech_logvar = moments.split(self.dims, dim=1)
        int_mean = self.centring(int_mean, batch_idx, ct_idx)
        return Posterior(int_mean, _clamped(int_logvar), tech_mean, _clamped(tech_logvar))

    def tech_prior(self, batch_idx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of ``p(z_tech | batch)``, each ``(B, dim_tech)``."""
        return self.tech_prior_mean(batch_idx), _clamped(self.tech_prior_logvar(batch_idx))

    def forward(
        self, x: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``(z_int, z_tech, kl_int, kl_tech)``; in ``eval()`` the latents are the means.

        Returns
        -------
        z_int, z_tech
            ``(B, dim_int)`` and ``(B, dim_tech)``.
        kl_int, kl_tech
            Divergence from the priors, in nats a cell, ``(B,)``.
        """
        q = self.posterior(x, batch_idx, ct_idx)
        return *self.latents(q), *self.divergences(q, batch_idx)

    def latents(self, q: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``(z_int, z_tech)``; in ``eval()`` they are the means."""
        if not self.training:
            return q.int_mean, q.tech_mean
        return draw(q.int_mean, q.int_logvar), draw(q.tech_mean, q.tech_logvar)

    def divergences(
        self, q: Posterior, batch_idx: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(kl_int, kl_tech)``: divergence from the priors, in nats a cell, ``(B,)``."""
        kl_int = standard_kl(q.int_mean, q.int_logvar)
        kl_tech = gaussian_kl(q.tech_mean, q.tech_logvar, *self.tech_prior(batch_idx))
        return kl_int, kl_tech


def draw(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Draw from a diagonal Gaussian (the reparametrisation of Kingma & Welling 2014)."""
    return mean + torch.exp(0.5 * logvar) * normal_like(mean)


def standard_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL divergence from N(0, 1), summed over dimensions: ``(B,)``, in nats."""
    return 0.5 * (torch.exp(logvar) - 1.0 - logvar + mean.square()).sum(1)


def gaussian_kl(
    mean: torch.Tensor, logvar: torch.Tensor, prior_mean: torch.Tensor, prior_logvar: torch.Tensor
) -> torch.Tensor:
    """KL divergence between diagonal Gaussians, summed over dimensions: ``(B,)``, in nats."""
    gap = logvar - prior_logvar
    distance = (mean - prior_mean).square() * torch.exp(-prior_logvar)
    return 0.5 * (torch.exp(gap) - 1.0 - gap + distance).sum(1)


def _clamped(logvar: torch.Tensor) -> torch.Tensor:
    return logvar.clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT)
