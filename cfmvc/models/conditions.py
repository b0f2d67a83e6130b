"""What a perturbation vector says."""

import torch

from cfmvc.flow.divergences import same_condition


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
    # The largest of weights over exponential draws, as torch.multinomial does it, which waits for
    # the device to check its input.
    chosen = ((candidates + 1e-9) / torch.empty_like(candidates).exponential_()).argmax(1)
    return z[chosen], weight
