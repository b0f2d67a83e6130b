"""Batches drawn together in ``z_int``, so that technical differences are left to ``z_tech``."""

import torch
from torch import nn


class BatchCentring(nn.Module):
    """Subtracts from ``z_int`` what the controls of a batch have of their own.

    Within each cell type the mean of a batch's controls is moved to the mean over batches. The
    loss alone does not keep batch out: dimensions that the decoder hardly uses still tell it.
    Controls alone are looked at, because batches may differ in their perturbations. In a stratum
    without controls the mean offset of its batch is taken.

    Parameters
    ----------
    n_batch, n_ct
        Numbers of batches and cell types.
    dim_int
        Width of ``z_int``.
    """

    offset: torch.Tensor

    def __init__(self, n_batch: int, n_ct: int, dim_int: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(n_ct, n_batch, dim_int))

    def forward(
        self, means: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
    ) -> torch.Tensor:
        """Return the centred means, ``(B, dim_int)``."""
        return means - self.offset[ct_idx, batch_idx]

    @torch.no_grad()
    def settle(
        self,
        z_int: torch.Tensor,
        unperturbed: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
    ) -> None:
        """Move the offsets by what is left between the batches of these cells.

        Parameters
        ----------
        z_int
            Means of all training cells as they are now, ``(n_cells, dim_int)``; cells that are not
            finite do not count.
        unperturbed
            Which of them are controls, ``(n_cells,)`` bool.
        batch_idx, ct_idx
            Column numbers, ``(n_cells,)``.
        """
        counted = torch.isfinite(z_int).all(1) & unperturbed
        where = (ct_idx[counted], batch_idx[counted])
        sums = torch.zeros_like(self.offset).index_put_(where, z_int[counted], accumulate=True)
        ones = torch.ones_like(z_int[counted, :1])
        sizes = torch.zeros_like(sums[..., :1]).index_put_(where, ones, accumulate=True)
        known = (sizes > 0).to(sums.dtype)
        means = sums / sizes.clamp_min(1.0)
        centre = (means * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1.0)
        offset = (means - centre) * known
        of_batch = offset.sum(0, keepdim=True) / known.sum(0, keepdim=True).clamp_min(1.0)
        self.offset += torch.where(known > 0, offset, of_batch.expand_as(offset))
