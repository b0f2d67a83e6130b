"""Stage 2 of the reference: the VAE is frozen, and every batch is encoded from its counts."""

import torch

from benchmarks.reference.steps import Batch, Course, loader_of, optimise
from cfmvc.data import SingleCellDataset
from cfmvc.models import CFMVCModel


@torch.no_grad()
def encoded(model: CFMVCModel, batch: Batch) -> torch.Tensor:
    """Draw ``z_int`` from the posterior, ``(B, dim_int)``."""
    posterior = model.encoder.posterior(batch["x"], batch["batch"], batch["cell_type"])
    std = torch.exp(0.5 * posterior.int_logvar)
    return posterior.int_mean + std * torch.randn_like(std)


def flow_loss(model: CFMVCModel, batch: Batch) -> torch.Tensor:
    """Return the flow-matching loss of a batch."""
    total, _, _ = model.flow_step(
        encoded(model, batch), batch["p"], batch["batch"], batch["cell_type"], batch["spatial"]
    )
    return total


def train_reference_flow(
    model: CFMVCModel,
    dataset: SingleCellDataset,
    n_steps: int,
    cells_per_step: int,
    max_norm: float = 1.0,
) -> Course:
    """Train context encoder and velocity field in place."""
    named = {
        f"{part}.{name}": parameter
        for part in ("context", "field")
        for name, parameter in getattr(model, part).named_parameters()
    }
    model.eval()
    model.context.train()
    model.field.train()
    return optimise(
        named,
        lambda batch: flow_loss(model, batch),
        loader_of(dataset, cells_per_step),
        n_steps,
        max_norm,
    )
