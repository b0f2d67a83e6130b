"""AdamW of one array does what torch's does, to the bit, vetoed steps included."""

import pytest
import torch

from cfmvc.training.adamw import FlatAdamW


@pytest.mark.parametrize("n_pieces", [1, 4])  # four: as on a GPU
def test_steps_are_those_of_torch_to_the_bit(n_pieces: int) -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.arange(64.0)) for _ in range(2))
    ours.grad = torch.zeros(64)
    flat = FlatAdamW(ours, weight_decay=0.01, at_a_time=64 // n_pieces)
    plain = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01, fused=True)
    for step in range(12):
        gradient, rate = torch.randn(64), 0.1 / (1 + step)
        vetoed, scale = torch.tensor(float(step in (0, 5))), torch.tensor(1.0 + step)
        if vetoed:
            gradient[3] = torch.nan
        ours.grad.copy_(gradient)
        theirs.grad = gradient.clone()
        flat.update(rate, scale, vetoed)
        plain.param_groups[0]["lr"] = rate
        plain.grad_scale, plain.found_inf = scale, vetoed
        plain.step()
        assert torch.equal(ours, theirs)
    assert torch.isfinite(ours).all()
    for name, value in plain.state[theirs].items():
        assert torch.equal(flat.moments[name], value)
    assert flat.moments["step"] == 10
