"""All parameters of a training in one piece of memory.

Optimiser, average, norm, checkpoint and the sum over processes then work on one array each instead
of on dozens; the modules keep their own parameters, which are views of it.
"""

import torch

_ALIGNMENT = 16  # numbers; what vector instructions and matrix products like


class FlatParameters:
    """Parameters of some modules as one array, and their gradients as another.

    Parameters
    ----------
    named
        Parameters by name, on one device and of one type.

    Attributes
    ----------
    values : torch.nn.Parameter
        All values, ``(n,)``, with a gradient of the same shape; what an optimiser takes.
    places : list of slice
        Where in it each parameter is, in the order of their names; what lies between is 0.
    """

    def __init__(self, named: dict[str, torch.nn.Parameter]) -> None:
        self.named = named
        self.parameters = list(named.values())
        starts, n = [], 0
        for parameter in self.parameters:
            starts.append(n)
            n += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        like = self.parameters[0]
        flat = torch.zeros(n, dtype=like.dtype, device=like.device)
        gradient = torch.zeros_like(flat)
        self._gradients, self.places = list[torch.Tensor](), list[slice]()
        for parameter, start in zip(self.parameters, starts, strict=True):
            own = slice(start, start + parameter.numel())
            self.places.append(own)
            flat[own] = parameter.detach().reshape(-1)
            parameter.data = flat[own].view(parameter.shape)
            self._gradients.append(gradient[own].view(parameter.shape))
        self.values = torch.nn.Parameter(flat)
        self.values.grad = gradient

    @property
    def gradient(self) -> torch.Tensor:
        """All gradients, ``(n,)``."""
        assert self.values.grad is not None
        return self.values.grad

    def differentiate(self, loss: torch.Tensor, weight: float, is_first: bool) -> None:
        """Take the gradient of a scalar, times ``weight``; added to what is there unless first."""
        if is_first and weight == 1.0 and not loss.is_cuda:
            self._written_by_autograd(loss)
            return
        # On a GPU one kernel for all parameters is less than one for each.
        # What is made beside other work must not be given back while it may still be read.
        keep = loss.is_cuda
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True, retain_graph=keep)
        present = [(g, f) for g, f in zip(self._gradients, found, strict=True) if f is not None]
        mine, theirs = [g for g, _ in present], [f for _, f in present]
        if is_first:
            if len(mine) < len(found):
                self.gradient.zero_()
            torch._foreach_copy_(mine, theirs)
            if weight != 1.0:
                self.gradient.mul_(weight)
        else:
            torch._foreach_add_(mine, theirs, alpha=weight)

    def _written_by_autograd(self, loss: torch.Tensor) -> None:
        """Let autograd add each gradient in its place: nothing is collected and copied."""
        self.gradient.zero_()
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        try:
            torch.autograd.backward(loss)
        finally:
            for parameter in self.parameters:
                parameter.grad = None

    def norms(self, order: float = 2.0) -> torch.Tensor:
        """Return the norm of each parameter's gradient, in the order of their names."""
        return torch.stack(torch._foreach_norm(self._gradients, ord=order))

    def release(self) -> None:
        """Give each parameter a memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
