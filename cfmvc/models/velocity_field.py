"""The velocity field: a shared trunk, a base field, and basis fields that perturbations mix."""

import math

import torch
from torch import nn

from cfmvc.models.layers import mlp

TIME_FEATURES = 16


class FlowField(nn.Module):
    """``v = v_base(h) + sum_j alpha_j b_j(h)`` with ``h = MLP([z_t, gamma(t), context])``.

    ``alpha`` is a bias-free map of ``pert_alpha``: zero stays exactly zero.

    Parameters
    ----------
    dim_int
        Width of the state.
    context_dim, alpha_dim
        Widths of ``context`` and ``pert_alpha``.
    hidden_dim
        Width of the trunk.
    n_basis
        Number of basis fields.
    has_base
        Whether there is a base field; without one, no perturbation means no velocity.
    dropout
        Share of hidden units dropped in training.
    """

    frequencies: torch.Tensor

    def __init__(
        self,
        dim_int: int,
        context_dim: int,
        alpha_dim: int,
        hidden_dim: int = 128,
        n_basis: int = 16,
        has_base: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = (n_basis, dim_int)
        self.trunk = mlp(dim_int + TIME_FEATURES + context_dim, hidden_dim, 3, dropout)
        self.base = nn.Linear(hidden_dim, dim_int) if has_base else None
        self.basis = nn.Linear(hidden_dim, n_basis * dim_int)
        self.mix = nn.Linear(alpha_dim, n_basis, bias=False)
        for layer in (self.base, self.basis, self.mix):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
        waves = math.pi * torch.arange(1, TIME_FEATURES // 2 + 1, dtype=torch.float32)
        self.register_buffer("frequencies", waves, persistent=False)

    def forward(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor | float,
        context: torch.Tensor,
        pert_alpha: torch.Tensor,
    ) -> torch.Tensor:
        """Return the velocity, ``(B, dim_int)``.

        Parameters
        ----------
        z_t
            State, ``(B, dim_int)``.
        t
            Time in [0, 1]: a number, ``(B,)`` or ``(B, 1)``.
        context, pert_alpha
            From :class:`~cfmvc.models.ContextEncoder`.
        """
        return self.mixed(self.hidden(z_t, t, context), pert_alpha)

    def hidden(
        self, z_t: torch.Tensor, t: torch.Tensor | float, context: torch.Tensor
    ) -> torch.Tensor:
        """Return the trunk's activations ``h``, ``(B, hidden_dim)``; no perturbation is in them."""
        times = torch.as_tensor(t, dtype=z_t.dtype, device=z_t.device).reshape(-1, 1)
        gamma = time_features(times, self.frequencies).expand(len(z_t), -1)
        h: torch.Tensor = self.trunk(torch.cat([z_t, gamma, context], dim=1))
        return h

    def mixed(self, h: torch.Tensor, pert_alpha: torch.Tensor) -> torch.Tensor:
        """Return the velocity that a perturbation makes of the trunk's activations."""
        fields = self.basis(h).view(-1, *self.shape)
        velocity = torch.bmm(self.mix(pert_alpha)[:, None, :], fields)[:, 0]
        return velocity if self.base is None else velocity + self.base(h)


def time_features(times: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of times ``(B, 1)``, ``(B, TIME_FEATURES)``."""
    angle = times * frequencies.to(times.dtype)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
