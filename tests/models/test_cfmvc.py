"""The model: shapes, guards, zero effect, isolation of gradients, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from cfmvc.errors import ConfigError, DataError
from cfmvc.flow.doses import DoseCurves
from cfmvc.models import CFMVCModel, ContextEncoder, DecoderVAE, EncoderVAE, FlowField
from cfmvc.models.encoder import gaussian_kl

Conditions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def test_users_signatures_hold() -> None:
    model = CFMVCModel(
        n_genes=20,
        n_batch=2,
        n_ct=2,
        n_perts=3,
        dim_int=32,
        dim_tech=8,
        hidden_vae=256,
        hidden_ctx=64,
        hidden_flow=128,
        n_basis=16,
        spatial_dim=None,
    )
    x, codes = torch.poisson(torch.ones(7, 20)), torch.zeros(7, dtype=torch.int64)
    p = torch.zeros(7, 3)
    p[:4, 1] = 1.0
    loss, z_int, z_tech = model.vae_forward(x, codes, codes, beta=0.5)
    assert loss.shape == ()
    assert (z_int.shape, z_tech.shape) == ((7, 32), (7, 8))
    for value in model.flow_step(z_int, p, codes, codes, spatial=None, lambda_dist=0.1):
        assert value.shape == ()
    assert model.sample_z1_from_flow(p, codes, codes, n_steps=3).shape == (7, 32)
    expression = model.generate_expression(p, codes, codes, spatial=None, n_steps=3, use_mean=True)
    assert expression.shape == (7, 20)

    encoder = EncoderVAE(20, 2, 2, 32, 8, 16)
    assert [tuple(v.shape) for v in encoder(x, codes, codes)] == [(7, 32), (7, 8), (7,), (7,)]
    mean, theta = DecoderVAE(20, 32, 8, 16)(z_int, z_tech)
    assert (mean.shape, theta.shape) == ((7, 20), (20,))
    context_encoder = ContextEncoder(2, 2, 3, spatial_dim=None, hidden_dim=64)
    context, alpha = context_encoder(p, codes, codes)
    field = FlowField(32, context_encoder.context_dim, context_encoder.alpha_dim, 128, 16)
    assert field(z_int, torch.rand(7), context, alpha).shape == (7, 32)
    assert field(z_int, torch.rand(7, 1), context, alpha).shape == (7, 32)


def test_no_perturbation_gives_alpha_of_exactly_zero(
    model: CFMVCModel, conditions: Conditions
) -> None:
    p, batch, cell_type = conditions
    _, alpha = model.context(torch.zeros_like(p), batch, cell_type)
    assert (alpha == 0).all()
    one_hot_control = torch.zeros_like(p)
    one_hot_control[:, 0] = 1.0  # the control's own column means nothing
    _, alpha = model.context(one_hot_control, batch, cell_type)
    assert (alpha == 0).all()
    _, alpha = model.context(p, batch, cell_type)
    assert (alpha != 0).any(1).all()


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4", "dopri5"])
def test_no_perturbation_is_the_identity_to_the_bit_from_controls(
    conditions: Conditions, method: str
) -> None:
    torch.manual_seed(0)
    model = CFMVCModel(30, 3, 4, 5, 6, 3, 16, 8, 16, 4, source="control").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.latent_mean.normal_()
    p, batch, cell_type = conditions
    z_0 = torch.randn(len(p), 6) * 3
    moved = model.sample_z1_from_flow(torch.zeros_like(p), batch, cell_type, z_0=z_0, method=method)
    assert torch.equal(moved, z_0)
    assert not torch.equal(model.sample_z1_from_flow(p, batch, cell_type, z_0=z_0), z_0)


def test_no_perturbation_has_no_effect_to_the_bit_from_noise(conditions: Conditions) -> None:
    torch.manual_seed(0)
    model = CFMVCModel(30, 3, 4, 5, 6, 3, 16, 8, 16, 4, source="noise").eval()
    p, batch, cell_type = conditions
    z_0 = torch.randn(len(p), 6)
    zero = torch.zeros_like(p)
    base = model.sample_z1_from_flow(zero, batch, cell_type, z_0=z_0)
    context, _ = model.context(zero, batch, cell_type)
    field = model.field(z_0, torch.tensor(0.3), context, torch.zeros(len(p), 8))
    _, alpha = model.context(zero, batch, cell_type)
    assert torch.equal(model.field(z_0, torch.tensor(0.3), context, alpha), field)
    assert torch.equal(model.sample_z1_from_flow(zero, batch, cell_type, z_0=z_0), base)


def test_dose_scales_from_no_effect_and_combinations_differ(
    model: CFMVCModel, conditions: Conditions
) -> None:
    p, batch, cell_type = conditions
    _, none = model.context(0.0 * p, batch, cell_type)
    _, little = model.context(1e-4 * p, batch, cell_type)
    _, full = model.context(p, batch, cell_type)
    assert (none == 0).all()
    assert little.abs().max() < 1e-2 * full.abs().max()
    pair = torch.zeros_like(p)
    pair[:, 1:3] = 1.0
    _, both = model.context(pair, batch, cell_type)
    assert not torch.allclose(both, full)


def test_units_of_doses_and_coordinates_do_not_matter() -> None:
    torch.manual_seed(0)
    encoder = ContextEncoder(2, 2, 3, spatial_dim=2, hidden_dim=8)
    codes, place = torch.zeros(6, dtype=torch.int64), torch.rand(6, 2)
    p = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]).repeat(2, 1)
    encoder.calibrate(p, place)
    expected = encoder(p, codes, codes, place)
    encoder.calibrate(1e4 * p, 3e4 * place + 7e4)
    found = encoder(1e4 * p, codes, codes, 3e4 * place + 7e4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert (found[1][2] == 0).all()


def test_doses_act_as_their_curve_says_also_of_a_model_from_a_file() -> None:
    torch.manual_seed(0)
    ones, p = torch.ones(1, dtype=torch.int64), torch.tensor([[0.0, 10.0, 0.0]])
    curved, straight = (ContextEncoder(2, 2, 3, hidden_dim=8) for _ in range(2))
    straight.load_state_dict(curved.state_dict())
    largest = np.asarray([1.0, 1000.0, 1.0])
    half = DoseCurves(largest, np.asarray([0.0, 99.0, 0.0]), np.ones(3))  # half of it at 10
    curved.calibrate(p, None, half)
    straight.calibrate(p, None, DoseCurves.straight(largest))
    assert half.strength(p.double().numpy())[0, 1] == pytest.approx(0.5, abs=0.01)
    as_strong = straight(1000.0 * torch.from_numpy(half.strength(p.numpy())).float(), ones, ones)
    torch.testing.assert_close(curved(p, ones, ones), as_strong)
    read = ContextEncoder(2, 2, 3, hidden_dim=8)
    read.load_state_dict(curved.state_dict())
    torch.testing.assert_close(read(p, ones, ones), as_strong, rtol=0, atol=1e-6)
    assert (curved(0.0 * p, ones, ones)[1] == 0).all()
    curved.calibrate(10.0 * p, None)  # to learn more is no reason to forget it
    torch.testing.assert_close(curved(p, ones, ones), as_strong)


def test_encoder_draws_in_training_and_returns_means_in_evaluation() -> None:
    encoder = EncoderVAE(10, 2, 2, 4, 2, 8)
    x, codes = torch.ones(5, 10), torch.zeros(5, dtype=torch.int64)
    assert not torch.equal(encoder(x, codes, codes)[0], encoder(x, codes, codes)[0])
    encoder.eval()
    assert torch.equal(encoder(x, codes, codes)[0], encoder(x, codes, codes)[0])
    state = torch.random.get_rng_state()
    encoder(x, codes, codes)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("scale", [-1e6, -1.0, 0.0, 1.0, 1e6, 1e30])
def test_modules_stay_finite_for_any_real_input(model: CFMVCModel, scale: float) -> None:
    x, codes = torch.full((4, 30), scale), torch.zeros(4, dtype=torch.int64)
    loss, z_int, z_tech = model.vae_forward(x, codes, codes)
    assert torch.isfinite(z_int).all()
    assert torch.isfinite(z_tech).all()
    if scale < 1e30:  # counts of 1e30 are beyond any likelihood in single precision
        assert torch.isfinite(loss)


def test_logvar_and_theta_are_clamped_before_exp() -> None:
    encoder, decoder = EncoderVAE(10, 2, 2, 4, 2, 8), DecoderVAE(10, 4, 2, 8)
    with torch.no_grad():
        encoder.moments.bias.fill_(1e9)
        decoder.log_theta.fill_(1e9)
        decoder.logits.bias[0] = 1e9
    codes = torch.zeros(3, dtype=torch.int64)
    q = encoder.posterior(torch.ones(3, 10), codes, codes)
    assert (q.int_logvar == 10).all()
    mean, theta = decoder(torch.zeros(3, 4), torch.zeros(3, 2), torch.tensor([0.0, 1.0, 1e6]))
    assert torch.isfinite(mean).all()
    assert theta.max().item() == pytest.approx(math.exp(10))
    assert (mean[0] >= 0).all()


def test_kl_agrees_with_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, logvar, prior_mean, prior_logvar = torch.randn(4, 6, 3)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * logvar).exp()),
        torch.distributions.Normal(prior_mean, (0.5 * prior_logvar).exp()),
    ).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, logvar, prior_mean, prior_logvar), expected)


def test_flow_step_cuts_the_gradient_to_the_vae_unless_asked(
    model: CFMVCModel, conditions: Conditions
) -> None:
    p, batch, cell_type = conditions
    p = p.clone()
    p[::2] = 0.0
    batch, cell_type = batch * 0, cell_type * 0
    x = torch.poisson(torch.ones(len(p), 30))
    for detach, reaches in ((True, False), (False, True)):
        model.zero_grad()
        _, z_int, _ = model.vae_forward(x, batch, cell_type)
        total, _, _ = model.flow_step(z_int, p, batch, cell_type, detach=detach)
        total.backward()
        gradients = [w.grad for w in model.encoder.parameters() if w.grad is not None]
        assert bool(gradients and any(g.abs().sum() > 0 for g in gradients)) is reaches


def test_lambda_dist_has_a_gradient_and_is_never_negative(
    model: CFMVCModel, conditions: Conditions
) -> None:
    p, batch, cell_type = conditions
    z = torch.randn(len(p), 6)
    z_0 = torch.randn(len(p), 6)
    for divergence in ("energy", "mmd"):
        model.divergence = divergence
        torch.manual_seed(0)
        _, _, dist = model.flow_step(z, p, batch, cell_type, lambda_dist=1.0, z_0=z_0)
        model.zero_grad()
        dist.backward()
        assert dist >= 0
        assert model.field.basis.weight.grad.abs().sum() > 0


def test_samples_are_counts_and_means_are_not(model: CFMVCModel, conditions: Conditions) -> None:
    p, batch, cell_type = conditions
    z_0 = torch.randn(len(p), 6)
    arguments = {"n_steps": 2, "z_0": z_0, "library": torch.full((len(p),), 100.0)}
    mean = model.generate_expression(p, batch, cell_type, use_mean=True, **arguments)
    counts = model.generate_expression(p, batch, cell_type, use_mean=False, **arguments)
    torch.testing.assert_close(mean.sum(1), torch.full((len(p),), 100.0))
    assert torch.equal(counts, counts.round())
    assert not torch.equal(mean, mean.round())


def test_control_flow_without_controls_says_what_to_do(conditions: Conditions) -> None:
    model = CFMVCModel(30, 3, 4, 5, source="control")
    with pytest.raises(DataError, match="starts from control cells, and none are known"):
        model.generate_expression(*conditions)


def test_non_finite_velocities_are_reported(model: CFMVCModel, conditions: Conditions) -> None:
    p, batch, cell_type = conditions
    with torch.no_grad():
        model.field.basis.bias.fill_(float("inf"))
    events: list = []
    z_0 = torch.zeros(len(p), 6)
    moved = model.sample_z1_from_flow(p, batch, cell_type, n_steps=4, z_0=z_0, events=events)
    assert torch.isfinite(moved).all()
    assert events[0].step == 0
    assert events[0].n_cells == len(p)
    with pytest.warns(UserWarning, match="non-finite velocities in 40 cells were replaced by 0"):
        model.sample_z1_from_flow(p, batch, cell_type, n_steps=4, z_0=z_0)


def test_unknown_choices_list_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="divergence 'wasserstein': unknown; valid: 'energy'"):
        CFMVCModel(3, 1, 1, 2, divergence="wasserstein")
    with pytest.raises(ConfigError, match="source 'cells': unknown"):
        CFMVCModel(3, 1, 1, 2, source="cells")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["noise", "control"])
def test_generation_is_the_same_in_training_mode_and_leaves_it(
    conditions: Conditions, source: str
) -> None:
    model = CFMVCModel(
        *(30, 3, 4, 5, 6, 3, 16, 8, 16, 4),
        source=source,  # type: ignore[arg-type]
        dropout_vae=0.5,
        dropout_flow=0.5,
        label_dropout=0.5,
    )
    latents = {"z_0": torch.randn(40, 6), "z_tech": torch.zeros(40, 3)}
    one, two = (model.generate_expression(*conditions, **latents) for _ in range(2))
    assert torch.equal(one, two)
    assert model.field.training
    assert model.decoder.training
