"""What a perturbation vector says."""

import torch

from cfmvc.flow.divergences import same_condition
from cfmvc.shards import uniform_like


def is_control(p: torch.Tensor) -> torch.Tensor:
    """Return which perturbation vectors ``(B, K)`` mean no perturbation; column 0 is ignored."""
    return ~(p[:, 1:] != 0).any(1)


def controls_among(
    z: torch.Tensor, p: torch.Tensor, batch_idx: torch.Tensor, ct_idx: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick a control cell of the same stratum for each row; weight 0 where there is none."""
    unperturbed = is_control(p)
    candidates = (same_condition(batch_idx, ct_idx) & unperturbed[None, :]).to(z.dtype)
    weight = (candidates.sum(1) > 0).to(z.dtype) * (~unperturbed).to(z.dtype)
    # One draw a cell, for all processes alike; the control of that place among its stratum's.
    n_candidates = candidates.sum(1, keepdim=True)
    wanted = torch.minimum((uniform_like(z[:, :1]) * n_candidates).floor() + 1.0, n_candidates)
    # whole numbers: sums of others are added up in any order on a GPU
    nth = candidates.int().cumsum(1, dtype=torch.int32)
    chosen = (nth >= wanted.int().clamp_min(1)).to(z.dtype).argmax(1)
    return z[chosen], weight
