"""Controls as sources among the cells of a step."""

import torch

from cfmvc.models.conditions import controls_among


def test_each_control_of_the_stratum_serves_about_equally_often() -> None:
    torch.manual_seed(0)
    n = 3000
    p = torch.zeros(n, 2)
    p[4:, 1] = 1.0  # four controls, of which one is of another stratum
    batch = torch.zeros(n, dtype=torch.int64)
    batch[3], batch[-1] = 1, 2
    z = torch.arange(n, dtype=torch.float32)[:, None]
    start, weight = controls_among(z, p, batch, torch.zeros_like(batch))
    often = torch.bincount(start[4:-1, 0].long(), minlength=4)
    assert often[3] == 0
    assert often[:3].sum() == n - 5
    assert (often[:3] - (n - 5) / 3).abs().max() < 150
    assert weight[:4].tolist() == [0.0] * 4, "a control has nowhere to go"
    assert weight[-1] == 0.0, "and who has no control starts nowhere"
    assert (weight[4:-1] == 1.0).all()
