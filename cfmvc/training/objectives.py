"""What each stage minimises, with the values that tell where a non-finite number came from."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from cfmvc.data.dataset import Cells
from cfmvc.errors import ConfigError
from cfmvc.models.beside import beside
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.conditions import is_control
from cfmvc.shards import part_of_step, sum_over_cells


@dataclass(frozen=True)
class Loss:
    """Loss of one step.

    Parameters
    ----------
    total
        Scalar with a gradient.
    parts
        Scalars to report.
    probes
        One scalar a layer, in the order of computation, finite if and only if all of the layer's
        values are. They cost a sum each and no wait for the device.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    probes: dict[str, torch.Tensor]


class Objective(Protocol):
    """A module set to train, and its loss on some cells."""

    model: CFMVCModel

    def describe(self) -> dict[str, Any]:
        """Return ``kind``, ``settings`` (of the constructor) and ``moment`` (attributes now)."""

    def extras(self) -> dict[str, nn.Module]:
        """Return the modules with weights that are not the model's, by name."""

    def modules(self) -> list[nn.Module]:
        """Return the modules that learn."""

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return what changes with the steps and is no parameter, by name."""

    def start_epoch(self, progress: float) -> None:
        """Take note of the share of epochs that are done, 0 to 1."""

    def __call__(self, cells: Any) -> Loss:
        """Return the loss on some cells."""


def learning_parameters(objective: Objective) -> dict[str, nn.Parameter]:
    """Return everything that learns, by name: ``EncoderVAE.moments.weight``.

    Raises
    ------
    ConfigError
        If nothing does: a caller has frozen all of it.
    """
    found = {
        f"{type(module).__name__}.{name}": parameter
        for module in objective.modules()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    if not found:
        raise ConfigError("nothing to train: no parameter requires a gradient (requires_grad_())")
    return found


def copied_buffers(objective: Objective) -> dict[str, torch.Tensor]:
    """Return a copy of an objective's buffers as they are now."""
    return {name: buffer.clone() for name, buffer in objective.buffers().items()}


def set_buffers(objective: Objective, values: dict[str, torch.Tensor]) -> None:
    """Give an objective's buffers the values that they had."""
    for name, buffer in objective.buffers().items():
        buffer.copy_(values[name])


class BatchOffsets(nn.Module):
    """Pushes the controls of each batch, in ``z_int``, towards the centre of their cell type.

    The means are averages over many steps, so that few cells a step are enough; the push is linear
    in ``z_int`` and vanishes with the offsets. Controls alone, because batches may differ in their
    perturbations.
    """

    sums: torch.Tensor
    sizes: torch.Tensor
    strata: torch.Tensor

    def __init__(self, n_batch: int, n_ct: int, dim_int: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("sums", torch.zeros(n_ct, n_batch, dim_int))
        self.register_buffer("sizes", torch.zeros(n_ct, n_batch, 1))
        self.register_buffer("strata", torch.arange(n_ct * n_batch)[:, None], persistent=False)

    def forward(self, z_int: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return a scalar whose gradient is the push; its value means nothing."""
        unperturbed = is_control(cells.p)[:, None]
        stratum = cells.cell_type * self.sums.shape[1] + cells.batch
        # One absurd cell, whose update is vetoed, must not stay in the means for good.
        sane = (z_int.detach().abs() < 1e3).all(1, keepdim=True) & unperturbed
        seen = torch.where(sane, z_int.detach(), torch.zeros_like(z_int))
        # A product sums over strata; to add to rows by their numbers takes a GPU a sort.
        members = (stratum == self.strata).to(z_int.dtype)
        self._take_in(self.sums, members @ seen)
        self._take_in(self.sizes, members @ sane.to(z_int.dtype))
        means = self.sums / self.sizes.clamp_min(1e-6)
        known = (self.sizes > 1.0).to(z_int.dtype)
        centre = (means * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1.0)
        offsets = ((means - centre) * known).flatten(0, 1).index_select(0, stratum)
        return (z_int * offsets * unperturbed).sum(1).mean()

    def _take_in(self, running: torch.Tensor, present: torch.Tensor) -> None:
        decay = self.decay ** part_of_step()  # as much a step, in however many parts
        running.mul_(decay).add_(sum_over_cells(present).view_as(running))


class VaeObjective:
    """``-E log p(x|z) + beta (KL_int + tech_penalty KL_tech)``, beta rising linearly at first.

    A penalty above 1 leaves ``z_tech`` little more than what its batch's prior gives for free;
    otherwise it takes up part of the response, which the flow then cannot move.
    """

    def __init__(
        self,
        model: CFMVCModel,
        beta: float,
        kl_warmup: float = 0.0,
        lambda_adv: float = 0.0,
        tech_penalty: float = 1.0,
        lambda_batch: float = 0.0,
    ) -> None:
        self.settings = {
            "beta": beta,
            "kl_warmup": kl_warmup,
            "lambda_adv": lambda_adv,
            "tech_penalty": tech_penalty,
            "lambda_batch": lambda_batch,
        }
        self.model, self.beta, self.kl_warmup = model, beta, kl_warmup
        self.tech_penalty = tech_penalty
        # What beta is times, on the device: a recorded step reads it anew every time.
        self._ramp = torch.ones((), device=model.latent_mean.device)
        self.lambda_batch, self.lambda_adv = lambda_batch, lambda_adv
        sizes, device = model.sizes, model.latent_mean.device
        self.adversary = nn.Linear(sizes["dim_int"], sizes["n_perts"]).to(device)
        self.offsets = BatchOffsets(sizes["n_batch"], sizes["n_ct"], sizes["dim_int"]).to(device)

    def describe(self) -> dict[str, Any]:
        """Return what builds this objective anew."""
        return {"kind": "vae", "settings": self.settings, "moment": {"ramp": self.ramp}}

    @property
    def ramp(self) -> float:
        """Share of beta that counts by now."""
        return float(self._ramp)

    @ramp.setter
    def ramp(self, share: float) -> None:
        self._ramp.fill_(share)

    def extras(self) -> dict[str, nn.Module]:
        """Return the adversary."""
        return {"adversary": self.adversary}

    def modules(self) -> list[nn.Module]:
        """Return encoder and decoder, and the adversary where it has a weight."""
        learning: list[nn.Module] = [self.model.encoder, self.model.decoder]
        return [*learning, self.adversary] if self.lambda_adv > 0 else learning

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the running means of the batches."""
        return {"sums": self.offsets.sums, "sizes": self.offsets.sizes}

    def start_epoch(self, progress: float) -> None:
        """Raise beta from 0 over the first ``kl_warmup`` of the epochs."""
        self.ramp = min(1.0, progress / self.kl_warmup) if self.kl_warmup > 0 else 1.0

    def __call__(self, cells: Cells) -> Loss:
        """Return the negative ELBO a cell, in nats (validation always at full beta)."""
        model, encoder = self.model, self.model.encoder
        counted = model.counted(cells.x, cells.terms)
        q = encoder.posterior(cells.x, cells.batch, cells.cell_type)
        z_int, z_tech = encoder.latents(q)
        divergences = beside(lambda: encoder.divergences(q, cells.batch), z_int)
        is_pushed = self.lambda_batch > 0 and encoder.training
        push = beside(lambda: self.offsets(z_int, cells), z_int) if is_pushed else None
        reconstruction, logits = model.reconstruction(counted, z_int, z_tech)
        kl_int, kl_tech = divergences()
        beta = self.beta * self._ramp if encoder.training else self.beta
        total = reconstruction + beta * (kl_int + self.tech_penalty * kl_tech).mean()
        parts = {
            "reconstruction": reconstruction,
            "kl_int": kl_int.mean(),
            "kl_tech": kl_tech.mean(),
        }
        if self.lambda_adv > 0:
            parts["adversary"] = self._adversary_loss(z_int, cells.p)
            total = total + self.lambda_adv * parts["adversary"]
        if push is not None:
            total = total + self.lambda_batch * push()
        probes = {
            "input": counted.total.sum(),
            "encoder": _probe(z_int, z_tech, kl_int, kl_tech),
            "decoder": logits.detach().sum(1).sum(),
            "likelihood": reconstruction,
            "loss": total,
        }
        return Loss(total, parts, probes)

    def _adversary_loss(self, z_int: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the perturbation; its gradient reaches the encoder reversed."""
        logits = self.adversary(_Reversed.apply(z_int))
        return nn.functional.binary_cross_entropy_with_logits(logits, (p > 0).to(logits.dtype))


@dataclass(frozen=True)
class LatentCells:
    """Encoded cells of one step: targets, their sources (None: noise), their conditions."""

    z_int: torch.Tensor
    z_0: torch.Tensor | None
    p: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    spatial: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.batch)


class FlowObjective:
    """Conditional flow matching on encoded cells; the VAE is not touched."""

    def __init__(
        self, model: CFMVCModel, lambda_dist: float = 0.0, lambda_reg: float = 0.0
    ) -> None:
        self.model, self.lambda_dist, self.lambda_reg = model, lambda_dist, lambda_reg

    def describe(self) -> dict[str, Any]:
        """Return what builds this objective anew."""
        settings = {"lambda_dist": self.lambda_dist, "lambda_reg": self.lambda_reg}
        return {"kind": "flow", "settings": settings, "moment": {}}

    def extras(self) -> dict[str, nn.Module]:
        """Return nothing."""
        return {}

    def modules(self) -> list[nn.Module]:
        """Return the context encoder and the velocity field."""
        return [self.model.context, self.model.field]

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return nothing."""
        return {}

    def start_epoch(self, progress: float) -> None:
        """Nothing changes with the epochs."""

    def __call__(self, cells: LatentCells) -> Loss:
        """Return the flow-matching loss (mean over cells and dimensions, standardised latents)."""
        total, fm_loss, dist_loss = self.model.flow_step(
            cells.z_int,
            cells.p,
            cells.batch,
            cells.cell_type,
            cells.spatial,
            self.lambda_dist,
            z_0=cells.z_0,
            lambda_reg=self.lambda_reg,
        )
        probes = {
            "latents": cells.z_int.sum() if cells.z_0 is None else (cells.z_int + cells.z_0).sum(),
            "velocity": fm_loss,
            "distribution matching": dist_loss,
            "loss": total,
        }
        return Loss(total, {"fm": fm_loss, "dist": dist_loss}, probes)


class JointObjective:
    """ELBO and flow together; the flow's gradient reaches the encoder."""

    def __init__(
        self,
        model: CFMVCModel,
        beta: float,
        lambda_flow: float = 1.0,
        lambda_dist: float = 0.0,
        tech_penalty: float = 1.0,
        lambda_reg: float = 0.0,
    ) -> None:
        self.model, self.lambda_flow, self.lambda_dist = model, lambda_flow, lambda_dist
        self.beta, self.tech_penalty, self.lambda_reg = beta, tech_penalty, lambda_reg

    def describe(self) -> dict[str, Any]:
        """Return what builds this objective anew."""
        names = ("beta", "lambda_flow", "lambda_dist", "tech_penalty", "lambda_reg")
        settings = {name: getattr(self, name) for name in names}
        return {"kind": "joint", "settings": settings, "moment": {}}

    def extras(self) -> dict[str, nn.Module]:
        """Return nothing."""
        return {}

    def modules(self) -> list[nn.Module]:
        """Return all parts of the model."""
        return [self.model.encoder, self.model.decoder, self.model.context, self.model.field]

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return nothing."""
        return {}

    def start_epoch(self, progress: float) -> None:
        """Nothing changes with the epochs."""

    def __call__(self, cells: Cells) -> Loss:
        """Return ELBO plus ``lambda_flow`` times the flow-matching loss."""
        model = self.model
        counted = model.counted(cells.x, cells.terms)
        z_int, z_tech, kl_int, kl_tech = model.encoder(cells.x, cells.batch, cells.cell_type)
        reconstruction, logits = model.reconstruction(counted, z_int, z_tech)
        elbo = reconstruction + self.beta * (kl_int + self.tech_penalty * kl_tech).mean()
        flow, fm_loss, dist_loss = model.flow_step(
            z_int,
            cells.p,
            cells.batch,
            cells.cell_type,
            cells.spatial,
            self.lambda_dist,
            lambda_reg=self.lambda_reg,
            detach=False,
        )
        total = elbo + self.lambda_flow * flow
        parts = {"elbo": elbo, "fm": fm_loss, "dist": dist_loss}
        probes = {
            "input": counted.total.sum(),
            "encoder": _probe(z_int, z_tech, kl_int, kl_tech),
            "decoder": logits.detach().sum(1).sum(),
            "likelihood": reconstruction,
            "velocity": fm_loss,
            "distribution matching": dist_loss,
            "loss": total,
        }
        return Loss(total, parts, probes)


OBJECTIVES: dict[str, Any] = {"vae": VaeObjective, "flow": FlowObjective, "joint": JointObjective}


def _probe(*values: torch.Tensor) -> torch.Tensor:
    """Return one scalar of values of the same cells, finite if all of them are."""
    columns = [value.detach() if value.dim() == 2 else value.detach()[:, None] for value in values]
    return torch.cat(columns, dim=1).sum()


class _Reversed(torch.autograd.Function):
    """Identity whose gradient changes sign (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient
