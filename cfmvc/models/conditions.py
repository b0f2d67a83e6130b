"""What a perturbation vector says."""

import torch


def is_control(p: torch.Tensor) -> torch.Tensor:
    """Return which perturbation vectors ``(B, K)`` mean no perturbation; column 0 is ignored."""
    return ~(p[:, 1:] != 0).any(1)
