"""torch's fused AdamW of one array."""

import torch
from torch.optim.adamw import adamw

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_AT_A_TIME = 16_384  # on a GPU


class FlatAdamW:
    """AdamW of one array.

    :class:`torch.optim.AdamW` keeps books for many arrays at every step, which on a small model
    takes as long as the update, and loads torch's compiler when it is made (seconds, and tens of
    megabytes); its functional form does the update alone.

    Parameters
    ----------
    values
        What is optimised, with its gradient.
    weight_decay
        As in :class:`torch.optim.AdamW`.
    at_a_time
        Numbers that are taken as an array of their own. The kernel of a GPU has a block of threads
        for some ten thousand numbers of an array, so that one array keeps but a few busy.

    Attributes
    ----------
    moments : dict
        ``step`` (updates done), ``exp_avg`` and ``exp_avg_sq``; what a checkpoint holds.
    """

    def __init__(
        self, values: torch.nn.Parameter, weight_decay: float, at_a_time: int | None = None
    ) -> None:
        self._weight_decay = weight_decay
        assert values.grad is not None
        zeros = torch.zeros_like(values, requires_grad=False)
        arrays = (values.detach(), values.grad, zeros, zeros.clone())
        size = at_a_time or (_AT_A_TIME if values.is_cuda else values.numel())
        self._pieces = [list(array.split(size)) for array in arrays]
        # Each piece wants a count of its own; all count alike.
        n_pieces = len(self._pieces[0])
        self._steps = torch.zeros(n_pieces, dtype=torch.float32, device=values.device)
        self.moments = {"step": self._steps[0], "exp_avg": arrays[2], "exp_avg_sq": arrays[3]}

    def set(self, moments: dict[str, torch.Tensor]) -> None:
        """Go on from moments that were kept."""
        for name, value in moments.items():
            (self._steps if name == "step" else self.moments[name]).copy_(value)

    @torch.no_grad()
    def update(
        self, lr: float | torch.Tensor, grad_scale: torch.Tensor, found_inf: torch.Tensor
    ) -> None:
        """Do a step.

        Parameters
        ----------
        lr
            Its learning rate; a scalar on the device where it is told there.
        grad_scale
            What the gradient is divided by, a scalar.
        found_inf
            1.0 where nothing may change, else 0.0; a scalar. The fused kernel obeys it on the
            device, on CPU as on CUDA.
        """
        values, gradients, averages, squares = self._pieces
        adamw(
            values,
            gradients,
            averages,
            squares,
            [],
            list(self._steps.unbind()),
            fused=True,
            grad_scale=grad_scale,
            found_inf=found_inf,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=lr,
            weight_decay=self._weight_decay,
            eps=_EPSILON,
            maximize=False,
        )
