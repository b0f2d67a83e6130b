r"""The velocity field during one integration: what does not depend on the state, computed once.

Of the trunk's first layer that is the context's share, a bias of each condition; of the output it
is the mixture of the basis fields, which are linear in the trunk's activations :math:`h`:

.. math::
    v = W_0 h + b_0 + \sum_j \alpha_j (W_j h + b_j)
      = \Big(W_0 + \sum_j \alpha_j W_j\Big) h + b_0 + \sum_j \alpha_j b_j

so that cells of one condition share one matrix, and a step evaluates no basis field. Without a
perturbation the mixture is exactly zero, and so is all of the velocity that is not the base's.
"""

import torch
from torch import nn

from cfmvc.models.cell_groups import AT_A_TIME, CellGroups
from cfmvc.models.context import ContextEncoder
from cfmvc.models.layers import run_in_place
from cfmvc.models.velocity_field import FlowField, time_features


class PreparedField:
    """``velocity(t, z)`` of cells with given conditions; without a gradient.

    Parameters
    ----------
    encoder, field
        Parts of the model, in ``eval()``.
    p, batch_idx, ct_idx, spatial
        Conditions, one row a cell; see :class:`~cfmvc.models.ContextEncoder`.
    """

    @torch.no_grad()
    def __init__(
        self,
        encoder: ContextEncoder,
        field: FlowField,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
        spatial: torch.Tensor | None = None,
    ) -> None:
        self.field, self.is_on_host = field, p.device.type == "cpu"
        # Each cell has a place of its own; and a GPU has no trouble with the basis fields.
        is_shared = self.is_on_host and encoder.place is None
        self.groups = CellGroups.by_condition(p, batch_idx, ct_idx) if is_shared else None
        if self.groups is not None:
            first = self.groups.first
            p, batch_idx, ct_idx = p[first], batch_idx[first], ct_idx[first]
        context, pert_alpha = encoder(p, batch_idx, ct_idx, spatial)
        alpha = field.mix(pert_alpha)
        first_layer, later_layers = field.trunk[0], field.trunk[1:]
        assert isinstance(first_layer, nn.Linear)
        assert isinstance(later_layers, nn.Sequential)
        self.later_layers = later_layers
        n_state = field.shape[1]
        n_fixed = first_layer.in_features - context.shape[1]
        self.of_state = first_layer.weight[:, :n_state].t().contiguous()
        self.of_time = first_layer.weight[:, n_state:n_fixed].t()
        self.of_context = nn.functional.linear(
            context, first_layer.weight[:, n_fixed:], first_layer.bias
        )
        self.alpha = alpha[:, None, :]
        if self.groups is not None:
            self.weights, self.biases = _mixed(field, alpha)

    @torch.no_grad()
    def __call__(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the velocity, ``(B, dim_int)``, at time ``t`` (a scalar) and state ``z``."""
        shift = time_features(t.to(z).reshape(1, 1), self.field.frequencies) @ self.of_time
        if self.groups is None:
            return self._cell_by_cell(z, shift)
        return self.groups.in_given_order(
            self._by_condition(self.groups.sorted(z), self.of_context + shift, self.groups)
        )

    def _by_condition(
        self, z: torch.Tensor, first_biases: torch.Tensor, groups: CellGroups
    ) -> torch.Tensor:
        velocity = torch.empty_like(z)
        for block in groups.blocks:
            rows = slice(block[0].start, block[-1].stop)
            h = self._trunk(z[rows], first_biases.index_select(0, groups.member[rows]))
            for part in block:
                torch.addmm(
                    self.biases[part.group],
                    h[part.start - rows.start : part.stop - rows.start],
                    self.weights[part.group],
                    out=velocity[part.start : part.stop],
                )
        return velocity

    def _cell_by_cell(self, z: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        field, velocity = self.field, torch.empty_like(z)
        size = AT_A_TIME if self.is_on_host else max(len(z), 1)
        for start in range(0, len(z), size):
            rows = slice(start, start + size)
            h = self._trunk(z[rows], self.of_context[rows] + shift)
            fields = field.basis(h).view(-1, *field.shape)
            mixed = torch.bmm(self.alpha[rows], fields)[:, 0]
            velocity[rows] = mixed if field.base is None else mixed + field.base(h)
        return velocity

    def _trunk(self, z: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Return the trunk's activations; ``first``, which is overwritten, is not the state's."""
        return run_in_place(self.later_layers, first.addmm_(z, self.of_state))


def _mixed(field: FlowField, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each condition's matrix, ``(C, hidden, D)``, and bias, ``(C, D)``."""
    n_basis, n_state = field.shape
    weights = (alpha @ field.basis.weight.reshape(n_basis, -1)).reshape(len(alpha), n_state, -1)
    biases = alpha @ field.basis.bias.reshape(n_basis, n_state)
    if field.base is not None:
        weights, biases = weights + field.base.weight, biases + field.base.bias
    return weights.transpose(1, 2).contiguous(), biases
