"""torch's fused AdamW of one array."""

import torch
from torch.optim.adamw import adamw

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


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

    Attributes
    ----------
    moments : dict
        ``step`` (updates done), ``exp_avg`` and ``exp_avg_sq``; what a checkpoint holds.
    """

    def __init__(self, values: torch.nn.Parameter, weight_decay: float) -> None:
        self._values, self._weight_decay = values, weight_decay
        zeros = torch.zeros_like(values, requires_grad=False)
        step = torch.zeros((), dtype=torch.float32, device=values.device)
        self.moments = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}

    @torch.no_grad()
    def update(self, lr: float, grad_scale: torch.Tensor, found_inf: torch.Tensor) -> None:
        """Do a step.

        Parameters
        ----------
        lr
            Its learning rate.
        grad_scale
            What the gradient is divided by, a scalar.
        found_inf
            1.0 where nothing may change, else 0.0; a scalar. The fused kernel obeys it on the
            device, on CPU as on CUDA.
        """
        assert self._values.grad is not None
        adamw(
            [self._values],
            [self._values.grad],
            [self.moments["exp_avg"]],
            [self.moments["exp_avg_sq"]],
            [],
            [self.moments["step"]],
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
