"""Stage 1 of the reference: a loop over a loader, with the dense likelihood."""

import torch

from benchmarks.reference.likelihood import dense_nb_log_likelihood
from benchmarks.reference.steps import Batch, Course, loader_of, optimise
from cfmvc.data import SingleCellDataset
from cfmvc.models import CFMVCModel


def negative_elbo(
    model: CFMVCModel, batch: Batch, beta: float, tech_penalty: float
) -> torch.Tensor:
    """Return ``-E log p(x|z) + beta (KL_int + tech_penalty KL_tech)``, in nats a cell."""
    x = batch["x"]
    z_int, z_tech, kl_int, kl_tech = model.encoder(x, batch["batch"], batch["cell_type"])
    mean, theta = model.decoder(z_int, z_tech, x.sum(1))
    reconstruction = -dense_nb_log_likelihood(x, mean, theta).sum(1)
    return (reconstruction + beta * (kl_int + tech_penalty * kl_tech)).mean()


def train_reference_vae(
    model: CFMVCModel,
    dataset: SingleCellDataset,
    n_steps: int,
    cells_per_step: int,
    beta: float,
    tech_penalty: float,
    max_norm: float = 1.0,
) -> Course:
    """Train encoder and decoder in place."""
    named = {
        f"{part}.{name}": parameter
        for part in ("encoder", "decoder")
        for name, parameter in getattr(model, part).named_parameters()
    }
    model.train()
    return optimise(
        named,
        lambda batch: negative_elbo(model, batch, beta, tech_penalty),
        loader_of(dataset, cells_per_step),
        n_steps,
        max_norm,
    )
