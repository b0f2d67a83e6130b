"""The states of torch's generators, so that a step can be done again with the same draws."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """States of the generators that a training on one device draws from.

    Parameters
    ----------
    host
        Of the CPU's generator, uint8.
    device
        Of the GPU's generator, or None.
    """

    host: torch.Tensor
    device: torch.Tensor | None = None

    @classmethod
    def now(cls, device: torch.device) -> "RandomState":
        """Return the present states; nothing waits for the device."""
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), on_gpu)

    def restore(self, device: torch.device) -> None:
        """Draw from here on as from these states."""
        torch.set_rng_state(self.host)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """Return the states by name."""
        states = {"random.host": self.host, "random.device": self.device}
        return {name: state for name, state in states.items() if state is not None}

    @classmethod
    def of_tensors(cls, tensors: dict[str, torch.Tensor]) -> "RandomState":
        """Read what :meth:`as_tensors` returned."""
        return cls(tensors["random.host"], tensors.get("random.device"))
