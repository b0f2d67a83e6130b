"""Generation of the reference: 64 cells at a time, the context computed at each Euler step."""

import torch

from cfmvc.models import CFMVCModel

CELLS_AT_A_TIME = 64


@torch.no_grad()
def reference_means(
    model: CFMVCModel,
    p: torch.Tensor,
    batch: torch.Tensor,
    cell_type: torch.Tensor,
    n_steps: int,
    z_0: torch.Tensor,
    z_tech: torch.Tensor,
    library: torch.Tensor,
) -> torch.Tensor:
    """Return the means of virtual cells, ``(n_cells, n_genes)``, on the CPU.

    Parameters
    ----------
    model
        In ``eval()``.
    p, batch, cell_type
        Conditions, one row a cell.
    n_steps
        Euler steps.
    z_0, z_tech, library
        Sources (encoded control cells), technical latents, total counts.
    """
    parts = []
    for start in range(0, len(p), CELLS_AT_A_TIME):
        rows = slice(start, start + CELLS_AT_A_TIME)
        z = model.standardise(z_0[rows])
        for step in range(n_steps):
            context, alpha = model.context(p[rows], batch[rows], cell_type[rows])
            t = torch.full((len(z), 1), step / n_steps)
            z = z + model.field(z, t.to(z), context, alpha) / n_steps
        mean, _ = model.decoder(model.restore(z), z_tech[rows], library[rows])
        parts.append(mean.cpu())
    return torch.cat(parts)


def reference_counts(mean: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Draw counts from the negative binomial, by torch's distributions; the shape of ``mean``."""
    shape = theta.expand_as(mean)
    rate = torch.distributions.Gamma(shape, shape / mean.clamp_min(1e-12)).sample()
    return torch.poisson(rate)
