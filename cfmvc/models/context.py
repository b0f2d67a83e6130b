"""What the velocity field is told besides the state: covariates, place, and perturbation."""

import torch
from torch import nn

from cfmvc.errors import DataError
from cfmvc.models.layers import LabelEmbedding

EMBEDDING = 8
SPATIAL = 16


class ContextEncoder(nn.Module):
    """Covariates to ``context``; perturbation and covariates to ``pert_alpha``.

    ``pert_alpha`` is a product with a bias-free function of ``p``, so that ``p = 0`` gives exactly
    zero for every covariate, to the bit and on every device: nothing has to cancel.

    Doses and coordinates come in the user's units; :meth:`calibrate` takes theirs from the training
    cells, for a network is trained in vain on numbers in the thousands.

    Parameters
    ----------
    n_batch, n_ct
        Numbers of batches and cell types.
    p_dim
        Perturbation columns, the control's (the first, which is ignored) included.
    spatial_dim
        Number of coordinates, or None.
    hidden_dim
        Width of ``context`` and of ``pert_alpha``.
    label_dropout
        Share of cells whose covariate labels are hidden in training.
    """

    largest_dose: torch.Tensor
    centre: torch.Tensor
    extent: torch.Tensor

    def __init__(
        self,
        n_batch: int,
        n_ct: int,
        p_dim: int,
        spatial_dim: int | None = None,
        hidden_dim: int = 64,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context_dim = self.alpha_dim = hidden_dim
        self.batch_embedding = LabelEmbedding(n_batch, EMBEDDING, label_dropout)
        self.cell_type_embedding = LabelEmbedding(n_ct, EMBEDDING, label_dropout)
        self.place = None
        n_covariates = 2 * EMBEDDING
        if spatial_dim is not None:
            self.place = nn.Sequential(
                nn.Linear(spatial_dim, SPATIAL), nn.SiLU(), nn.Linear(SPATIAL, SPATIAL)
            )
            n_covariates += SPATIAL
        self.register_buffer("largest_dose", torch.ones(()))
        self.register_buffer("centre", torch.zeros(spatial_dim or 0))
        self.register_buffer("extent", torch.ones(spatial_dim or 0))
        self.context = nn.Linear(n_covariates, hidden_dim)
        self.perturbation = nn.Linear(p_dim, hidden_dim, bias=False)
        self.interaction = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(2 * hidden_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )

    @torch.no_grad()
    def calibrate(self, vectors: torch.Tensor, spatial: torch.Tensor | None) -> None:
        """Take the units of doses and coordinates from the training cells.

        Parameters
        ----------
        vectors
            Perturbation vectors, ``(n, p_dim)``; the largest entry becomes 1 (without doses it is).
        spatial
            Coordinates, ``(n_cells, spatial_dim)``: centred, the largest deviation becomes 1.
        """
        largest = vectors.max() if vectors.numel() else torch.zeros(())
        self.largest_dose.copy_(largest if largest > 0 else torch.ones(()))
        if spatial is not None and len(spatial):
            self.centre.copy_(spatial.mean(0))
            self.extent.copy_((spatial - self.centre).abs().max().clamp_min(1e-6))

    def forward(
        self,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
        spatial: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(context, pert_alpha)``, each ``(B, hidden_dim)``.

        Parameters
        ----------
        p
            Perturbation vectors, ``(B, p_dim)``; the control column is ignored.
        batch_idx, ct_idx
            Column numbers, ``(B,)``.
        spatial
            Coordinates, ``(B, spatial_dim)``; needed where the encoder was built with them.
        """
        covariates = [self.batch_embedding(batch_idx), self.cell_type_embedding(ct_idx)]
        if self.place is not None:
            if spatial is None:
                raise DataError(
                    "this model was trained with coordinates: the cells need them too "
                    "(obsm['spatial'] of the control cells)"
                )
            covariates.append(self.place((spatial - self.centre) / self.extent))
        context = self.context(torch.cat(covariates, dim=1))
        return context, self._alpha(p, context)

    def _alpha(self, p: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        weight = self.perturbation.weight
        effect = nn.functional.linear(p[:, 1:].to(weight.dtype) / self.largest_dose, weight[:, 1:])
        # SiLU(0) = 0: combinations may depart from the sum of their parts, zero stays zero.
        effect = effect + nn.functional.silu(self.interaction(effect))
        return effect * (1.0 + self.gate(torch.cat([effect, context], dim=1)))
