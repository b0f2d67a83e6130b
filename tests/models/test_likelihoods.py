"""The negative binomial against scipy, numerical gradients, and its extremes."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc.models import diagnose_nan, nb_log_likelihood, nb_sample


def reference(x: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return scipy.stats.nbinom.logpmf(x, theta, theta / (theta + mean))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(1e-6, 1e4),
    st.floats(1e-3, 1e4),
)
def test_agrees_with_scipy_in_double_precision(x: int, mean: float, theta: float) -> None:
    found = nb_log_likelihood(
        torch.tensor([[float(x)]], dtype=torch.float64),
        torch.tensor([[mean]], dtype=torch.float64),
        torch.tensor([theta], dtype=torch.float64),
    )
    expected = reference(np.array([[x]]), np.array([[mean]]), np.array([theta]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-7)


def test_single_precision_keeps_six_digits_where_lgamma_cancels() -> None:
    x, mean = torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.5]])
    theta = torch.full((3,), float(np.exp(10.0)))
    expected = reference(x.numpy(), mean.double().numpy(), theta.double().numpy())
    np.testing.assert_allclose(nb_log_likelihood(x, mean, theta).numpy(), expected, rtol=2e-5)


def test_gradients_agree_with_numerical_ones() -> None:
    x = torch.tensor([[0.0, 1.0, 7.0], [3.0, 0.0, 100.0]], dtype=torch.float64)
    mean = (torch.rand(2, 3, dtype=torch.float64) + 0.1).requires_grad_()
    theta = (torch.rand(3, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, t: nb_log_likelihood(x, m, t), (mean, theta))


@pytest.mark.parametrize("x", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("mean", [0.0, 1e-8, 1.0, 1e6])
@pytest.mark.parametrize("theta", [1e-4, 1.0, float(np.exp(10))])
def test_is_finite_at_the_extremes_with_its_gradients(x: float, mean: float, theta: float) -> None:
    means = torch.tensor([[mean]], requires_grad=True)
    thetas = torch.tensor([theta], requires_grad=True)
    value = nb_log_likelihood(torch.tensor([[x]]), means, thetas)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(means.grad).all()
    assert torch.isfinite(thetas.grad).all()


def test_non_finite_input_is_not_hidden() -> None:
    x = torch.tensor([[1.0, float("nan")]])
    found = nb_log_likelihood(x, torch.ones(1, 2), torch.ones(2))
    assert torch.isfinite(found[0, 0])
    assert torch.isnan(found[0, 1])


def test_samples_have_the_mean_and_the_variance() -> None:
    torch.manual_seed(0)
    mean, theta = torch.full((200_000, 1), 3.0), torch.tensor([2.0])
    drawn = nb_sample(mean, theta)
    assert drawn.mean().item() == pytest.approx(3.0, rel=0.02)
    assert drawn.var().item() == pytest.approx(3.0 + 9.0 / 2.0, rel=0.05)
    assert (drawn == drawn.round()).all()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"x": float("nan")}, "bad input: 1 counts are NaN or infinite"),
        ({"x": -1.0}, "bad input: 1 counts are negative"),
        ({"mean": 0.0}, "log(0): 1 means are zero or negative"),
        ({"mean": float("inf")}, "overflow of exp: 1 means are NaN or infinite"),
        ({"theta": 0.0}, "division by zero: 1 thetas are zero or negative"),
    ],
)
def test_diagnosis_names_the_cause(
    changes: dict[str, float], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"x": 1.0, "mean": 1.0, "theta": 1.0} | changes
    diagnosis = diagnose_nan(
        torch.tensor([[values["x"]]]),
        torch.tensor([[values["mean"]]]),
        torch.tensor([values["theta"]]),
    )
    assert cause in diagnosis.causes
    assert cause in capsys.readouterr().out
