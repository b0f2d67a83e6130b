"""What the velocity field is told besides the state: covariates, place, and perturbation."""

import math
from typing import Any

import torch
from torch import nn

from cfmvc.errors import DataError
from cfmvc.flow.doses import DoseCurves, largest_doses
from cfmvc.models.layers import LabelEmbedding

EMBEDDING = 8
SPATIAL = 16
_SAME = 1e-6  # relative to their size, embeddings that differ by no more are alike


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
    neighbour_dim
        Width of what is told of a cell's neighbours, beside its coordinates; 0 for nothing.
    hidden_dim
        Width of ``context`` and of ``pert_alpha``.
    label_dropout
        Share of cells whose covariate labels are hidden in training.
    embedding_dim
        Width of the perturbations' embeddings, which then stand for the labels: what was never seen
        is told by the same numbers as what was. A 1 stands beside them, for what all perturbations
        do: the average embedding is no less a perturbation than the others.
    """

    embedding: torch.Tensor
    embedding_centre: torch.Tensor
    embedding_extent: torch.Tensor
    largest_dose: torch.Tensor
    dose_saturation: torch.Tensor
    dose_steepness: torch.Tensor
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
        embedding_dim: int | None = None,
        neighbour_dim: int = 0,
    ) -> None:
        super().__init__()
        self.context_dim = self.alpha_dim = hidden_dim
        self.batch_embedding = LabelEmbedding(n_batch, EMBEDDING, label_dropout)
        self.cell_type_embedding = LabelEmbedding(n_ct, EMBEDDING, label_dropout)
        self.place = None
        n_covariates, n_place = 2 * EMBEDDING, 0
        if spatial_dim is not None:
            n_place = spatial_dim + neighbour_dim
            self.place = nn.Sequential(
                nn.Linear(n_place, SPATIAL), nn.SiLU(), nn.Linear(SPATIAL, SPATIAL)
            )
            n_covariates += SPATIAL
        self.n_coordinates = spatial_dim or 0
        self.register_buffer("largest_dose", torch.ones(p_dim))
        self.register_buffer("dose_saturation", torch.zeros(p_dim))
        self.register_buffer("dose_steepness", torch.ones(p_dim))
        self._in_proportion = True  # whether doses act so; to ask a GPU at each step would be slow
        self.register_buffer("centre", torch.zeros(n_place))
        self.register_buffer("extent", torch.ones(n_place))
        self.context = nn.Linear(n_covariates, hidden_dim)
        self.has_embedding = embedding_dim is not None
        n_embedding = embedding_dim or 0
        self.register_buffer("embedding", torch.zeros(p_dim, n_embedding))
        self.register_buffer("embedding_centre", torch.zeros(n_embedding))
        self.register_buffer("embedding_extent", torch.ones(()))
        n_told = p_dim if embedding_dim is None else 1 + embedding_dim
        self.perturbation = nn.Linear(n_told, hidden_dim, bias=False)
        self.interaction = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(2 * hidden_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )

    @torch.no_grad()
    def calibrate(
        self,
        vectors: torch.Tensor,
        spatial: torch.Tensor | None,
        doses: DoseCurves | None = None,
    ) -> None:
        """Take the units of doses and coordinates from the training cells.

        Parameters
        ----------
        vectors
            Perturbation vectors, ``(n, p_dim)``; the largest entry of each column becomes 1
            (without doses it is).
        spatial
            Coordinates and neighbours, ``(n_cells, spatial_dim + neighbour_dim)``: centred, the
            largest deviation of a coordinate becomes 1, the standard deviation of neighbours too.
        doses
            How strongly doses act; not given: as they do already, or else in proportion.
        """
        if doses is not None or self._in_proportion:
            doses = doses or DoseCurves.straight(largest_doses(vectors.cpu().numpy()))
            self.largest_dose.copy_(torch.from_numpy(doses.largest))
            self.dose_saturation.copy_(torch.from_numpy(doses.saturation))
            self.dose_steepness.copy_(torch.from_numpy(doses.steepness))
            self._in_proportion = doses.is_straight
        if spatial is not None and len(spatial):
            self.centre.copy_(spatial.mean(0))
            n, rest = self.n_coordinates, spatial - self.centre
            self.extent[:n] = rest[:, :n].abs().max().clamp_min(1e-6)
            if spatial.shape[1] > n:
                self.extent[n:] = rest[:, n:].square().mean().sqrt().clamp_min(1e-6)

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        super()._load_from_state_dict(*given, **named)
        self._in_proportion = self._doses.is_straight

    @property
    def _doses(self) -> DoseCurves:
        return DoseCurves(self.largest_dose[1:], self.dose_saturation[1:], self.dose_steepness[1:])

    @torch.no_grad()
    def embed(self, vectors: torch.Tensor) -> None:
        """Take the perturbations' embeddings, and centre and extent of them for later ones.

        All of them count, those without cells as well: with few perturbations in the training the
        middle of these says little of where the others are.

        Parameters
        ----------
        vectors
            In the user's units, ``(p_dim, embedding_dim)``; the control's (the first) is ignored.
        """
        centre = vectors[1:].mean(0)
        extent = (vectors[1:] - centre).norm(dim=1).max()
        if extent <= _SAME * centre.norm():  # a single one, or all alike: no measure of others
            extent = centre.norm()
        self.embedding_centre.copy_(centre)
        self.embedding_extent.copy_(extent if extent > 0 else torch.ones(()))
        self.embedding[1:] = self.in_own_units(vectors[1:])

    @property
    def zero(self) -> torch.Tensor:
        """The embedding that is zero to the user, in own units, ``(embedding_dim,)``."""
        return self.in_own_units(torch.zeros_like(self.embedding[0]))

    def in_own_units(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return embeddings relative to those of the training, ``(n, embedding_dim)``."""
        return (vectors.to(self.embedding) - self.embedding_centre) / self.embedding_extent

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
            Coordinates and neighbours, ``(B, spatial_dim + neighbour_dim)``; needed where the
            encoder was built with them.
        """
        context = self.covariates(batch_idx, ct_idx, spatial)
        return context, self.alpha(p, context)

    def covariates(
        self, batch_idx: torch.Tensor, ct_idx: torch.Tensor, spatial: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return ``context`` alone."""
        covariates = [self.batch_embedding(batch_idx), self.cell_type_embedding(ct_idx)]
        if self.place is not None:
            if spatial is None:
                raise DataError(
                    "this model was trained with coordinates: the cells need them too "
                    "(obsm['spatial'] of the control cells)"
                )
            covariates.append(self.place((spatial - self.centre) / self.extent))
        context: torch.Tensor = self.context(torch.cat(covariates, dim=1))
        return context

    def alpha(self, p: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return ``pert_alpha`` of perturbations in their contexts.

        Above the largest dose of the training it goes on in proportion: interaction and gate, which
        have seen no more, would multiply what they make of it.
        """
        dose = p[:, 1:].to(self.perturbation.weight.dtype)
        dose = dose / self.largest_dose[1:] if self._in_proportion else self._doses.curved(dose)
        if self.training:  # there is no stronger one, and a step's time counts
            return self._alpha_within(dose, context)
        strongest = nn.functional.pad(dose, (1, 0), value=1.0).amax(1, keepdim=True)
        return self._alpha_within(dose / strongest, context) * strongest

    def _alpha_within(self, dose: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return ``pert_alpha`` of perturbations as strong as the training's, at most."""
        weight = self.perturbation.weight
        if self.has_embedding:
            # Their largest norm is 1, and a network wants entries of about that size.
            entries = self.embedding[1:] * math.sqrt(self.embedding.shape[1])
            told = torch.cat([entries.new_ones(len(entries), 1), entries], dim=1)
            effect = nn.functional.linear(dose @ told, weight)
        else:
            effect = nn.functional.linear(dose, weight[:, 1:])
        # SiLU(0) = 0: combinations may depart from the sum of their parts, zero stays zero.
        effect = effect + nn.functional.silu(self.interaction(effect))
        return effect * (1.0 + self.gate(torch.cat([effect, context], dim=1)))
