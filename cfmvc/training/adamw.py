"""torch's fused AdamW of one array."""

import torch


class FlatAdamW(torch.optim.AdamW):
    """AdamW of one array, whose step on small models is not mostly bookkeeping for many.

    State, schedule and arithmetic are torch's own.

    Parameters
    ----------
    values
        What is optimised, with its gradient.
    lr, weight_decay
        As in :class:`torch.optim.AdamW`.
    """

    def __init__(self, values: torch.nn.Parameter, lr: float, weight_decay: float) -> None:
        # The fused kernel obeys flags on the device, on CPU as on CUDA.
        super().__init__([values], lr=lr, weight_decay=weight_decay, fused=True)
        self.values = values

    def update(self, lr: float, grad_scale: torch.Tensor, found_inf: torch.Tensor) -> None:
        """Do a step.

        Parameters
        ----------
        lr
            Its learning rate.
        grad_scale
            What the gradient is divided by, a scalar.
        found_inf
            1.0 where nothing may change, else 0.0; a scalar.
        """
        group, state, gradient = self.param_groups[0], self.state[self.values], self.values.grad
        assert gradient is not None
        group["lr"] = lr
        if not state:  # torch makes it
            self.grad_scale, self.found_inf = grad_scale, found_inf
            self.step()
            return
        beta1, beta2 = group["betas"]
        state["step"] += 1
        torch._fused_adamw_(
            [self.values.detach()],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            amsgrad=False,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            grad_scale=grad_scale,
            found_inf=found_inf,
        )
        state["step"] -= found_inf
