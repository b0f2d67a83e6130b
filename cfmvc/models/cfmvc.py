"""CFM-VC: the NB-VAE and the conditional flow in its latent space, as one module."""

import warnings
from typing import Any, Literal, get_args

import torch
from torch import nn

from cfmvc.data.count_terms import CountTerms
from cfmvc.errors import ConfigError, DataError, listed
from cfmvc.flow.divergences import DIVERGENCES, same_condition
from cfmvc.flow.paths import TIMES, straight_path
from cfmvc.flow.solvers import NonFiniteVelocity, integrate
from cfmvc.models.beside import beside
from cfmvc.models.conditions import controls_among
from cfmvc.models.context import ContextEncoder
from cfmvc.models.decoder import DecoderVAE
from cfmvc.models.encoder import EncoderVAE, draw
from cfmvc.models.layers import evaluating
from cfmvc.models.likelihoods import nb_sample
from cfmvc.models.nb_loss import Counted, count_terms, nb_reconstruction
from cfmvc.models.prepared_field import PreparedField
from cfmvc.models.reference import ReferenceCells
from cfmvc.models.velocity_field import FlowField
from cfmvc.shards import normal_like

Source = Literal["noise", "control"]


class CFMVCModel(nn.Module):
    """Two-stage model of perturbation response.

    Parameters
    ----------
    n_genes, n_batch, n_ct
        Sizes of the data.
    n_perts
        Perturbation columns, the control's (column 0, never set) included.
    dim_int, dim_tech
        Widths of the latents.
    hidden_vae, hidden_ctx, hidden_flow
        Widths of the hidden layers of VAE, context encoder and velocity field.
    n_basis
        Number of basis fields.
    spatial_dim
        Number of coordinates, or None.
    source
        Where the flow starts: ``noise`` (N(0, I)) or ``control`` (encoded control cells of the
        same stratum; then there is no base field, and no perturbation is the identity).
    divergence
        Distance of ``lambda_dist``: ``energy`` or ``mmd``.
    times
        How training times are drawn: ``uniform`` or ``logit_normal``.
    dropout_vae, dropout_flow, label_dropout
        Shares dropped in training.
    embedding_dim
        Width of the perturbations' embeddings, or None where they are told apart by label alone.
    n_neighbours
        Neighbours in the tissue whose mean latent is a part of the context; 0 without coordinates.
    """

    latent_mean: torch.Tensor
    latent_std: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        n_batch: int,
        n_ct: int,
        n_perts: int,
        dim_int: int = 32,
        dim_tech: int = 8,
        hidden_vae: int = 256,
        hidden_ctx: int = 64,
        hidden_flow: int = 128,
        n_basis: int = 16,
        spatial_dim: int | None = None,
        *,
        source: Source = "noise",
        divergence: str = "energy",
        times: str = "uniform",
        dropout_vae: float = 0.0,
        dropout_flow: float = 0.0,
        label_dropout: float = 0.0,
        embedding_dim: int | None = None,
        n_neighbours: int = 0,
    ) -> None:
        _check_choices(source, divergence, times)
        super().__init__()
        self.sizes = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.source, self.divergence, self.times = source, divergence, times
        self.encoder = EncoderVAE(
            n_genes, n_batch, n_ct, dim_int, dim_tech, hidden_vae, dropout_vae
        )
        self.decoder = DecoderVAE(n_genes, dim_int, dim_tech, hidden_vae, dropout_vae)
        self.n_neighbours = 0 if spatial_dim is None else n_neighbours
        around = dim_int if self.n_neighbours else 0
        self.context = ContextEncoder(
            n_batch, n_ct, n_perts, spatial_dim, hidden_ctx, label_dropout, embedding_dim, around
        )
        self.field = FlowField(
            dim_int,
            self.context.context_dim,
            self.context.alpha_dim,
            hidden_flow,
            n_basis,
            has_base=source == "noise",
            dropout=dropout_flow,
        )
        # The flow sees standardised latents: a VAE may leave some dimensions almost unused.
        self.register_buffer("latent_mean", torch.zeros(dim_int))
        self.register_buffer("latent_std", torch.ones(dim_int))
        self.reference: ReferenceCells | None = None

    # -- stage 1 ----------------------------------------------------------------------------

    def vae_forward(
        self, x: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor, beta: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``(loss, z_int, z_tech)`` with ``loss = -E log p(x|z) + beta (KL_int + KL_tech)``.

        Parameters
        ----------
        x
            Counts, ``(B, n_genes)``.
        batch_idx, ct_idx
            Column numbers, ``(B,)``.
        beta
            Weight of the KL terms.

        Returns
        -------
        loss
            Scalar, in nats a cell.
        z_int, z_tech
            Latents, ``(B, dim_int)`` and ``(B, dim_tech)``.
        """
        z_int, z_tech, kl_int, kl_tech = self.encoder(x, batch_idx, ct_idx)
        reconstruction, _ = self.reconstruction(self.counted(x), z_int, z_tech)
        return reconstruction + beta * (kl_int + kl_tech).mean(), z_int, z_tech

    def counted(self, x: torch.Tensor, tally: CountTerms | None = None) -> Counted:
        """Return counts ``(B, n_genes)`` with what the likelihood needs of them alone.

        On a GPU this is made beside what follows (:mod:`cfmvc.models.beside`).

        Parameters
        ----------
        x
            The counts.
        tally
            Theirs, where it is known already.
        """
        counts = x.to(self.latent_mean.dtype)
        if tally is None:  # from a caller whose counts nobody has checked, or on a GPU
            counts = counts.clamp_min(0.0)
            tally = None if counts.is_cuda else CountTerms.of_dense(counts)
        terms = count_terms(counts, self.decoder.log_theta, tally)
        return Counted(counts, counts.sum(1), terms)

    def reconstruction(
        self, cells: Counted, z_int: torch.Tensor, z_tech: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``-log p(x | z)``, mean over cells in nats a cell, and the logits ``(B, G)``.

        Parameters
        ----------
        cells
            From :meth:`counted`.
        z_int, z_tech
            Latents, ``(B, dim_int)`` and ``(B, dim_tech)``.
        """
        logits, log_theta = self.decoder.gene_logits(z_int, z_tech), self.decoder.log_theta
        return nb_reconstruction(logits, log_theta, cells.x, cells.total, cells.terms), logits

    # -- stage 2 ----------------------------------------------------------------------------

    def flow_step(
        self,
        z_int: torch.Tensor,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
        spatial: torch.Tensor | None = None,
        lambda_dist: float = 0.0,
        *,
        z_0: torch.Tensor | None = None,
        lambda_reg: float = 0.0,
        detach: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``(total, fm_loss, dist_loss)`` of conditional flow matching, scalars.

        Parameters
        ----------
        z_int
            Encoded cells, ``(B, dim_int)``: the targets.
        p, batch_idx, ct_idx, spatial
            Their conditions.
        lambda_dist
            Weight of the distance between generated and encoded populations, per condition.
        z_0
            Sources, ``(B, dim_int)``: noise, or latents of control cells. Not given: drawn noise,
            or controls of the same stratum among the rows (rows without one are left out).
        lambda_reg
            Weight of ``E|alpha|^2``.
        detach
            Cut the gradient to the encoder (off in joint training alone).
        """
        z_1 = self.standardise((z_int.detach() if detach else z_int).to(self.latent_mean.dtype))
        weight: torch.Tensor | None = None  # of each row; all count alike
        if self.source == "noise":
            start = normal_like(z_1) if z_0 is None else z_0
        elif z_0 is not None:
            start = self.standardise(z_0.detach() if detach else z_0)
        else:
            start, weight = controls_among(z_1, p, batch_idx, ct_idx)
        path = straight_path(start, z_1, TIMES[self.times](z_1))
        context = self.context.covariates(batch_idx, ct_idx, spatial)
        perturbation = beside(lambda: self.context.alpha(p, context), context)
        hidden = self.field.hidden(path.z_t, path.t, context)
        alpha = perturbation()
        velocity = self.field.mixed(hidden, alpha)
        squared = (velocity - path.velocity).square().mean(1)
        if weight is None:
            fm_loss = squared.mean()
        else:
            fm_loss = (weight * squared).sum() / weight.sum().clamp_min(1.0)
        total, dist_loss = fm_loss, torch.zeros_like(fm_loss)
        if lambda_dist > 0:
            arrived = path.z_t + (1.0 - path.t) * velocity
            conditions = [p, batch_idx, ct_idx]
            if weight is not None:
                # Rows without a source are in no population; those with one keep their place.
                present = (weight > 0)[:, None]
                conditions.append(present)
                arrived = torch.where(present, arrived, z_1)
            same = same_condition(*conditions)
            counts = None if weight is None else weight > 0
            dist_loss = DIVERGENCES[self.divergence](arrived, z_1, same, counts)
            total = total + lambda_dist * dist_loss
        if lambda_reg > 0:
            total = total + lambda_reg * self.field.mix(alpha).square().mean()
        return total, fm_loss, dist_loss

    @torch.no_grad()
    def sample_z1_from_flow(
        self,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
        spatial: torch.Tensor | None = None,
        n_steps: int = 20,
        *,
        z_0: torch.Tensor | None = None,
        method: str = "euler",
        events: list[NonFiniteVelocity] | None = None,
    ) -> torch.Tensor:
        """Carry sources along the flow, the context computed once; returns ``(B, dim_int)``.

        Parameters
        ----------
        p, batch_idx, ct_idx, spatial
            Conditions, one row a cell.
        n_steps, method
            Of the integration, see :func:`cfmvc.flow.solvers.integrate`.
        z_0
            Sources, ``(B, dim_int)``: noise, or latents of control cells. Not given: drawn noise,
            or encoded training controls of the stratum.
        events
            Non-finite velocities are appended here; without a list they raise a warning.
        """
        if self.source == "noise":
            origin, start = None, z_0
            if start is None:
                start = torch.randn(len(p), len(self.latent_mean), device=p.device)
        else:
            origin = self._reference_controls(p, batch_idx, ct_idx) if z_0 is None else z_0
            start = self.standardise(origin)
        with evaluating(self.context, self.field):
            velocity = PreparedField(self.context, self.field, p, batch_idx, ct_idx, spatial)
            end, seen = integrate(velocity, start, n_steps, method)
        if events is not None:
            events.extend(seen)
        elif seen:
            n_cells = len({cell for event in seen for cell in event.cells})
            warnings.warn(
                f"{len(seen)} non-finite velocities in {n_cells} cells were replaced by 0, "
                f"first at integration step {seen[0].step}",
                stacklevel=2,
            )
        if origin is None:
            return self.restore(end)
        # The displacement is added to the cell itself: no displacement returns it bit for bit.
        return origin + (end - start) * self.latent_std

    @torch.no_grad()
    def generate_expression(
        self,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
        spatial: torch.Tensor | None = None,
        n_steps: int = 20,
        use_mean: bool = True,
        *,
        library: torch.Tensor | None = None,
        z_0: torch.Tensor | None = None,
        z_tech: torch.Tensor | None = None,
        method: str = "euler",
        events: list[NonFiniteVelocity] | None = None,
    ) -> torch.Tensor:
        """Return expression of virtual cells, ``(B, n_genes)``.

        Parameters
        ----------
        p, batch_idx, ct_idx, spatial
            Conditions, one row a cell.
        n_steps, method, z_0, events
            As in :meth:`sample_z1_from_flow`.
        use_mean
            Return the negative binomial's mean; otherwise counts drawn from it.
        library
            Total counts, ``(B,)``; not given: drawn from training cells of the condition.
        z_tech
            Technical latents; not given: drawn from the batch's prior.
        """
        z_1 = self.sample_z1_from_flow(
            p, batch_idx, ct_idx, spatial, n_steps, z_0=z_0, method=method, events=events
        )
        if z_tech is None:
            z_tech = draw(*self.encoder.tech_prior(batch_idx))
        if library is None and self.reference is not None:
            library = self.reference.library[self.reference.nearest(p, batch_idx, ct_idx)]
        with evaluating(self.decoder):
            mean = self.decoder.means(z_1, z_tech, library)
        return mean if use_mean else nb_sample(mean, self.decoder.theta)

    # -- latents ----------------------------------------------------------------------------

    def standardise(self, z_int: torch.Tensor) -> torch.Tensor:
        """Latents in units of the training cells' spread."""
        return (z_int - self.latent_mean) / self.latent_std

    def restore(self, standardised: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`standardise`."""
        return standardised * self.latent_std + self.latent_mean

    @torch.no_grad()
    def fit_standardisation(self, cells: ReferenceCells) -> None:
        """Take centre and spread of the training cells' posteriors; those not finite do not count.

        The spread is that of draws, between and within cells: a dimension that the VAE does not
        use has means that hardly differ, and would be blown up if they alone counted.

        Raises
        ------
        DataError
            If no cell was encoded to finite numbers.
        """
        finite = cells.select(cells.is_finite)
        if len(finite) == 0:
            raise DataError("no cell could be encoded: all latents are NaN or infinite")
        self.latent_mean.copy_(finite.int_mean.mean(0))
        spread = finite.int_mean.var(0, unbiased=False) + finite.int_std.square().mean(0)
        self.latent_std.copy_(spread.sqrt().clamp_min(1e-6))

    def _apply(self, fn: Any, recurse: bool = True) -> "CFMVCModel":
        """Let the reference cells follow the module to its device."""
        super()._apply(fn, recurse)
        if self.reference is not None:
            self.reference = self.reference.to(self.latent_mean.device)
        return self

    def _reference_controls(
        self, p: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
    ) -> torch.Tensor:
        if self.reference is None or not self.reference.is_control.any():
            raise DataError(
                "this flow starts from control cells, and none are known: give z_0, or train or "
                "load a model that keeps its training controls"
            )
        controls = self.reference.select(self.reference.is_control)
        rows = controls.nearest(torch.zeros_like(p), batch_idx, ct_idx)
        means = controls.int_mean[rows]  # as the flow has learnt from them: draws, and no means
        return means + controls.int_std[rows] * torch.randn_like(means)


def _check_choices(source: str, divergence: str, times: str) -> None:
    choices: list[tuple[str, str, Any]] = [
        ("source", source, get_args(Source)),
        ("divergence", divergence, DIVERGENCES),
        ("times", times, TIMES),
    ]
    for name, value, valid in choices:
        if value not in valid:
            raise ConfigError(f"{name} '{value}': unknown; valid: {listed(valid)}")
