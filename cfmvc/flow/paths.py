"""The straight conditional path of flow matching, and how its times are drawn."""

from dataclasses import dataclass

import torch

from cfmvc.shards import normal_like, uniform_like


@dataclass(frozen=True)
class PathSample:
    """A point on the path between a source and a target, and the velocity there.

    Parameters
    ----------
    t
        Times in [0, 1], ``(B, 1)``.
    z_t
        ``(1 - t) z_0 + t z_1``, ``(B, D)``.
    velocity
        ``u_t = z_1 - z_0``, ``(B, D)``.
    """

    t: torch.Tensor
    z_t: torch.Tensor
    velocity: torch.Tensor


def straight_path(z_0: torch.Tensor, z_1: torch.Tensor, t: torch.Tensor) -> PathSample:
    """Sample the straight path at times ``t`` (Lipman et al. 2023, arXiv:2210.02747).

    Parameters
    ----------
    z_0, z_1
        Source and target, ``(B, D)``.
    t
        Times, ``(B, 1)``.
    """
    return PathSample(t, torch.lerp(z_0, z_1, t), z_1 - z_0)


def uniform_times(like: torch.Tensor) -> torch.Tensor:
    """Draw ``t ~ U[0, 1]``, shape ``(B, 1)``."""
    return uniform_like(like[:, :1])


def logit_normal_times(like: torch.Tensor) -> torch.Tensor:
    """Draw ``logit(t) ~ N(0, 1)``, shape ``(B, 1)`` (Esser et al. 2024, arXiv:2403.03206)."""
    return torch.sigmoid(normal_like(like[:, :1]))


TIMES = {"uniform": uniform_times, "logit_normal": logit_normal_times}
