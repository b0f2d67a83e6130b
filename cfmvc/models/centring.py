"""Batches drawn together in ``z_int``, so that technical differences are left to ``z_tech``."""

import torch
from torch import nn

_ROUNDING = 1e-9  # of sums over all cells, relative to them


class BatchCentring(nn.Module):
    """Subtracts from ``z_int`` what all conditions of a batch have in common.

    Within each cell type a cell's latent is taken as the sum of what its perturbation does and what
    its batch does, by least squares; the second part is subtracted. The loss alone does not keep
    batch out: dimensions that the decoder hardly uses still tell it. Controls, from which every
    virtual cell starts, weigh as much as all other cells together. By the controls alone (and
    exactly, for these) the noise of their few means would be moved into all other cells, which
    then tell their batch by it. A batch that has no condition in common with others says nothing
    of itself, and takes its mean offset in other cell types.

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
        vector: torch.Tensor,
        is_control: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
    ) -> None:
        """Move the offsets by what is left between the batches of these cells.

        Parameters
        ----------
        z_int
            Means of all training cells as they are now, ``(n_cells, dim_int)``; cells that are not
            finite do not count.
        vector
            Number of each cell's perturbation vector, ``(n_cells,)`` int64.
        is_control
            Which cells are unperturbed, ``(n_cells,)`` bool.
        batch_idx, ct_idx
            Column numbers, ``(n_cells,)``.
        """
        counted = torch.isfinite(z_int).all(1)
        offset = torch.zeros_like(self.offset)
        known = torch.zeros_like(offset[..., :1])
        for cell_type in ct_idx[counted].unique().tolist():
            rows = (counted & (ct_idx == cell_type)).nonzero().reshape(-1)
            weight = _weights(is_control[rows]).to(z_int.device)
            found, is_known = _offsets(
                z_int[rows].double(), weight, vector[rows], batch_idx[rows], offset.shape[1]
            )
            offset[cell_type], known[cell_type, :, 0] = found.to(offset), is_known.to(known)
        of_batch = offset.sum(0, keepdim=True) / known.sum(0, keepdim=True).clamp_min(1.0)
        self.offset += torch.where(known > 0, offset, of_batch.expand_as(offset))


def _weights(is_control: torch.Tensor) -> torch.Tensor:
    """Return the cells' weights, ``(B,)`` float64: of controls together that of all others."""
    n_controls, n_others = int(is_control.sum()), int((~is_control).sum())
    ratio = n_others / n_controls if n_controls and n_others else 1.0
    return torch.where(is_control, ratio, 1.0).double()


def _offsets(
    z: torch.Tensor, weight: torch.Tensor, vector: torch.Tensor, batch: torch.Tensor, n_batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batches' parts of cells of one type, ``(n_batch, D)``, and which are known.

    The perturbations' parts are eliminated from the normal equations; what is left is a Laplacian
    of the batches, whose kernel (a constant that the perturbations' parts could take as well) the
    pseudo-inverse sets to 0.
    """
    _, kind = torch.unique(vector, return_inverse=True)
    n_kinds = int(kind.max()) + 1
    total = z.new_zeros(n_kinds * n_batch).index_add_(0, kind * n_batch + batch, weight)
    total = total.reshape(n_kinds, n_batch)
    weighted = weight[:, None] * z
    of_kind = z.new_zeros(n_kinds, z.shape[1]).index_add_(0, kind, weighted)
    of_batch = z.new_zeros(n_batch, z.shape[1]).index_add_(0, batch, weighted)
    share = total / total.sum(1, keepdim=True)
    laplacian = torch.diag(total.sum(0)) - total.T @ share
    # By default the cut is as small as the rounding of the kernel's eigenvalue, which is 0.
    cut = _ROUNDING * float(total.sum())
    inverse = torch.linalg.pinv(laplacian, atol=cut, rtol=0.0, hermitian=True)
    is_known = laplacian.diagonal() > 1e-6
    found = inverse @ (of_batch - share.T @ of_kind)
    return torch.where(is_known[:, None], found, 0.0), is_known
