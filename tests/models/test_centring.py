"""Batches are drawn together by their controls, and by nothing else."""

import torch

from cfmvc.models import EncoderVAE
from cfmvc.models.centring import BatchCentring


def cells(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 3, generator=generator)
    p = (torch.rand(n, 2, generator=generator) < 0.5).float() * torch.tensor([0.0, 1.0])
    batch = torch.randint(2, (n,), generator=generator)
    cell_type = torch.randint(2, (n,), generator=generator)
    return z, p, batch, cell_type


def test_means_of_the_controls_agree_afterwards() -> None:
    z, p, batch, cell_type = cells(400)
    z = z + 5.0 * batch[:, None] + 3.0 * cell_type[:, None] + 10.0 * p[:, 1:]
    centring = BatchCentring(2, 2, 3)
    centring.settle(z, p[:, 1] == 0, batch, cell_type)
    centred = centring(z, batch, cell_type)
    control = p[:, 1] == 0
    for kind in range(2):
        means = [centred[control & (batch == b) & (cell_type == kind)].mean(0) for b in range(2)]
        torch.testing.assert_close(means[0], means[1], atol=1e-5, rtol=0)
    # cell types and the effect of the perturbation stay
    effect = centred[~control].mean(0) - centred[control].mean(0)
    assert (effect > 9.0).all()


def test_settling_again_changes_nothing() -> None:
    z, p, batch, cell_type = cells(200)
    centring = BatchCentring(2, 2, 3)
    centring.settle(z + batch[:, None], p[:, 1] == 0, batch, cell_type)
    before = centring.offset.clone()
    centring.settle(centring(z + batch[:, None], batch, cell_type), p[:, 1] == 0, batch, cell_type)
    torch.testing.assert_close(centring.offset, before, atol=1e-6, rtol=0)


def test_a_stratum_without_controls_takes_its_batches_offset() -> None:
    z, p, batch, cell_type = cells(400)
    p[(batch == 1) & (cell_type == 1), 1] = 1.0
    z[3] = float("nan")
    centring = BatchCentring(2, 2, 3)
    centring.settle(z + 4.0 * batch[:, None], p[:, 1] == 0, batch, cell_type)
    torch.testing.assert_close(centring.offset[1, 1], centring.offset[0, 1])
    assert torch.isfinite(centring.offset).all()


def test_a_new_encoder_centres_nothing() -> None:
    encoder = EncoderVAE(5, 2, 2, 3, 2, 8)
    assert not encoder.centring.offset.any()
