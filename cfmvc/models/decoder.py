"""Decoder of the NB-VAE: latents and library size to means and inverse dispersions."""

import numpy as np
import torch
from torch import nn

from cfmvc.models.layers import mlp, run_in_place
from cfmvc.models.nb_loss import LOG_THETA_LIMIT, LOGIT_LIMIT

_CACHED = 512 * 1024  # means that stay in a core's cache
_LEAST = 16  # cells at a time


class DecoderVAE(nn.Module):
    """``p(x | z_int, z_tech, library)``: negative binomial with a dispersion per gene.

    The mean is ``library * softmax(logits)``: the library size is observed, so that the latents
    need not encode sequencing depth (as in scVI, Lopez et al. 2018).

    Parameters
    ----------
    n_genes
        Number of genes.
    dim_int, dim_tech
        Widths of the latents.
    hidden_dim
        Width of the two hidden layers.
    dropout
        Share of hidden units dropped in training.
    """

    reference_library: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        dim_int: int = 32,
        dim_tech: int = 8,
        hidden_dim: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = mlp(dim_int + dim_tech, hidden_dim, 2, dropout)
        self.logits = nn.Linear(hidden_dim, n_genes)
        nn.init.xavier_uniform_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.log_theta = nn.Parameter(torch.zeros(n_genes))
        self.register_buffer("reference_library", torch.tensor(float(n_genes)))

    @torch.no_grad()
    def calibrate(self, mean_counts: torch.Tensor, median_library: float) -> None:
        """Start from the data's own average profile instead of a flat one.

        Parameters
        ----------
        mean_counts
            Mean counts of each gene, ``(n_genes,)``.
        median_library
            Library size that stands for a cell whose own is not given, in counts.
        """
        share = mean_counts / mean_counts.sum().clamp_min(1.0)
        self.logits.bias.copy_(torch.log(share.clamp_min(1e-7)).clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
        self.reference_library.fill_(max(median_library, 1.0))

    def forward(
        self, z_int: torch.Tensor, z_tech: torch.Tensor, library: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(mean, theta)``.

        Parameters
        ----------
        z_int, z_tech
            Latents, ``(B, dim_int)`` and ``(B, dim_tech)``.
        library
            Total counts of each cell, ``(B,)``; the training data's median where not given.
            Cells with no counts are read as one count.

        Returns
        -------
        mean
            ``(B, n_genes)``, in counts.
        theta
            Inverse dispersion, ``(n_genes,)``.
        """
        logits = self.gene_logits(z_int, z_tech).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        share = torch.softmax(logits, dim=1)
        size = self.reference_library if library is None else library.clamp_min(1.0)[:, None]
        return share * size, self.theta

    @torch.no_grad()
    def means(
        self,
        z_int: torch.Tensor,
        z_tech: torch.Tensor,
        library: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the means of :meth:`forward` without a gradient, ``(B, n_genes)``.

        On a CPU some cells are finished before the next begin, so that what lies between logits and
        means stays in the cache.

        Parameters
        ----------
        z_int, z_tech, library
            As there; the decoder is in ``eval()``.
        out
            Where to write them.
        """
        is_on_host = z_int.device.type == "cpu"
        n_cells, n_genes = len(z_int), self.logits.out_features
        if out is None:
            out = _empty(n_cells, n_genes, z_int)
        size = self.reference_library if library is None else library.clamp_min(1.0)
        size = size.expand(n_cells)
        at_a_time = max(_LEAST, _CACHED // n_genes) if is_on_host else max(n_cells, 1)
        for start in range(0, n_cells, at_a_time):
            rows = slice(start, start + at_a_time)
            h = run_in_place(self.hidden, torch.cat([z_int[rows], z_tech[rows]], dim=1))
            shares = torch.addmm(self.logits.bias, h, self.logits.weight.t(), out=out[rows])
            shares.clamp_(-LOGIT_LIMIT, LOGIT_LIMIT).exp_()  # within the limits no sum overflows
            shares.mul_((size[rows] / shares.sum(1))[:, None])
        return out

    def gene_logits(self, z_int: torch.Tensor, z_tech: torch.Tensor) -> torch.Tensor:
        """Return the logits of the genes' shares, ``(B, n_genes)``, not yet limited."""
        logits: torch.Tensor = self.logits(self.hidden(torch.cat([z_int, z_tech], dim=1)))
        return logits

    @property
    def theta(self) -> torch.Tensor:
        """Inverse dispersion of each gene, ``(n_genes,)``."""
        return torch.exp(self.log_theta.clamp(-LOG_THETA_LIMIT, LOG_THETA_LIMIT))


def _empty(n_cells: int, n_genes: int, like: torch.Tensor) -> torch.Tensor:
    """Return memory for the means; on a CPU NumPy's, which asks for large pages.

    To touch 80 MB for the first time takes torch's own memory longer than all of the exponentials.
    """
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty((n_cells, n_genes), np.float32))
    return like.new_empty(n_cells, n_genes)
