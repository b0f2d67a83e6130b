"""Paths, couplings, solvers and divergences against analytic answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.profiler import profile
from torchdiffeq import odeint

from cfmvc.errors import ConfigError
from cfmvc.flow import divergences
from cfmvc.flow.couplings import independent, optimal_transport
from cfmvc.flow.divergences import DIVERGENCES, energy, mmd, same_condition
from cfmvc.flow.paths import TIMES, straight_path
from cfmvc.flow.solvers import SOLVERS, integrate


def test_path_starts_at_the_source_and_ends_at_the_target() -> None:
    z_0, z_1 = torch.randn(2, 5, 3)
    assert torch.equal(straight_path(z_0, z_1, torch.zeros(5, 1)).z_t, z_0)
    torch.testing.assert_close(straight_path(z_0, z_1, torch.ones(5, 1)).z_t, z_1)
    torch.testing.assert_close(straight_path(z_0, z_1, torch.rand(5, 1)).velocity, z_1 - z_0)


@pytest.mark.parametrize("name", sorted(TIMES))
def test_times_lie_between_zero_and_one(name: str) -> None:
    times = TIMES[name](torch.zeros(1000, 2))
    assert times.shape == (1000, 1)
    assert ((times >= 0) & (times <= 1)).all()
    assert times.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("method", SOLVERS)
def test_constant_velocity_is_integrated_exactly(method: str) -> None:
    z_0, v = torch.randn(2, 4, 3, dtype=torch.float64)
    end, events = integrate(lambda t, z: v, z_0, 7, method)
    torch.testing.assert_close(end, z_0 + v)
    assert events == []


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_fixed_steps_converge_at_their_order(method: str, order: int) -> None:
    z_0 = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(integrate(lambda t, z: z, z_0, n, method)[0].item() - math.e) for n in (8, 16)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("n_steps", [1, 7, 20])
def test_euler_takes_the_steps_of_torchdiffeq(n_steps: int) -> None:
    z_0 = torch.randn(5, 3)
    times = torch.linspace(0.0, 1.0, n_steps + 1)
    moved = odeint(lambda t, d: torch.sin(3 * (z_0 + d)) * (1 + t), 0 * z_0, times, method="euler")
    end, _ = integrate(lambda t, z: torch.sin(3 * z) * (1 + t), z_0, n_steps)
    assert torch.equal(end, z_0 + moved[-1])


def test_adaptive_solver_meets_its_tolerance() -> None:
    end, _ = integrate(lambda t, z: z, torch.ones(1, 1, dtype=torch.float64), 1, "dopri5")
    assert end.item() == pytest.approx(math.e, rel=1e-4)


def test_non_finite_velocity_is_an_event_with_step_and_cells() -> None:
    def velocity(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        v = torch.ones_like(z)
        if 0.35 < float(t) < 0.45:
            v[2] = float("nan")
        return v

    end, events = integrate(velocity, torch.zeros(4, 2), 10)
    assert [(event.step, event.cells) for event in events] == [(4, [2])]
    torch.testing.assert_close(end[2], torch.full((2,), 0.9))
    torch.testing.assert_close(end[0], torch.ones(2))


@pytest.mark.parametrize("step", [0, 7, 13, 19])
def test_event_names_the_very_step(step: int) -> None:
    def velocity(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.full_like(z, float("nan") if abs(float(t) - step / 20) < 1e-6 else 1.0)

    _, events = integrate(velocity, torch.zeros(1, 2), 20)
    assert [event.step for event in events] == [step]


def test_unknown_solver_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="solver 'heun': unknown; valid: 'euler', 'midpoint'"):
        integrate(lambda t, z: z, torch.zeros(1, 1), 5, "heun")


def test_optimal_transport_finds_the_pairs_it_was_made_of() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(50, 3)) * 10
    shuffle = rng.permutation(50)
    paired = optimal_transport(source, source[shuffle] + 0.1, rng)
    np.testing.assert_array_equal(paired, shuffle)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_assignment_costs_less(dtype: type, offset: float) -> None:
    rng = np.random.default_rng(1)
    source, target = (rng.normal(size=(2, 200, 8)) * [[[1.0]], [[3.0]]] + offset).astype(dtype)
    cost = cdist(source, target, "sqeuclidean")
    paired = optimal_transport(source, target, rng)
    assert sorted(paired) == list(range(200))
    least = cost[linear_sum_assignment(cost)].sum()
    assert cost[paired, np.arange(200)].sum() == pytest.approx(least, rel=1e-9)


def test_each_block_costs_the_least_that_its_sources_allow() -> None:
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(90, 4)), 2.0 * rng.normal(size=(230, 4))
    paired = optimal_transport(source, target, np.random.default_rng(5), block=64)
    draws = np.random.default_rng(5)
    drawn, order = independent(source, target, draws), draws.permutation(230)
    for start in range(0, 230, 64):
        rows = order[start : start + 64]
        cost = cdist(source[drawn[rows]], target[rows], "sqeuclidean")
        least = cost[linear_sum_assignment(cost)].sum()
        found = ((source[paired[rows]] - target[rows]) ** 2).sum()
        assert found == pytest.approx(least, rel=1e-12)
        assert sorted(paired[rows]) == sorted(drawn[rows])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 100))
def test_couplings_use_every_source_about_equally(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    for coupling in (optimal_transport, independent):
        paired = coupling(source, target, np.random.default_rng(seed))
        assert paired.shape == (m,)
        uses = np.bincount(paired, minlength=n)
        assert uses.max() <= -(-m // n)


def tables() -> st.SearchStrategy[list[list[float]]]:
    doses = st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e-30, 1.0 + 2.0**-23])
    return st.integers(1, 4).flatmap(
        lambda k: st.lists(st.lists(doses, min_size=k, max_size=k), min_size=1, max_size=12)
    )


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from([1, 100, 1 << 27]), st.booleans())
def test_conditions_are_the_same_where_every_entry_is(
    rows: list[list[float]], most: int, on_gpu: bool
) -> None:
    p = torch.tensor(rows)
    stratum = torch.arange(len(p)) % 2
    expected = (p[:, None] == p[None]).all(-1) & (stratum[:, None] == stratum[None])
    with pytest.MonkeyPatch.context() as patch:
        if on_gpu:  # the way that a GPU goes
            patch.setattr(divergences, "MOST_COMPARED", most)
            patch.setattr(divergences, "_on_host", lambda column: False)
        assert torch.equal(same_condition(p, stratum), expected)


def test_conditions_of_thousands_of_perturbations_take_little_memory() -> None:
    p = torch.zeros(512, 4000)
    p[torch.arange(512), torch.arange(512) % 100] = 1.0
    with profile(profile_memory=True) as seen:
        same = same_condition(p, torch.zeros(512, dtype=torch.int64))
    assert same.sum() == sum(n * n for n in np.bincount(np.arange(512) % 100).tolist())
    most = max(event.cpu_memory_usage for event in seen.key_averages())
    assert most < 50e6, "all pairs of entries are a gigabyte"


def brute_force_energy(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_energy_is_the_mean_over_conditions_of_the_v_statistic() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 12, 3, dtype=torch.float64)
    condition = torch.tensor([0, 1, 2] * 4)
    expected = np.mean([brute_force_energy(a[condition == c], b[condition == c]) for c in range(3)])
    found = energy(a, b, same_condition(condition))
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_conditions_that_do_not_count_change_no_divergence(name: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 12, 3, dtype=torch.float64)
    condition = torch.tensor([0, 1, 2] * 4)
    there = condition < 2
    a = torch.where(there[:, None], a, b)
    whole = DIVERGENCES[name](a, b, same_condition(condition), there)
    # the width of the kernel is that of all targets, so the others stay where they are
    mean_of_all = DIVERGENCES[name](a, b, same_condition(condition))
    assert whole.item() == pytest.approx(1.5 * mean_of_all.item())
    assert DIVERGENCES[name](b, b, same_condition(condition), condition > 5).item() == 0.0


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_divergences_vanish_for_equal_populations_and_move_towards_the_target(name: str) -> None:
    torch.manual_seed(0)
    target = torch.randn(64, 2)
    same = same_condition(torch.zeros(64, dtype=torch.int64))
    assert DIVERGENCES[name](target, target, same).item() == pytest.approx(0.0, abs=1e-5)
    moved = (target + 1.0).requires_grad_()
    DIVERGENCES[name](moved, target, same).backward()
    assert (moved.grad.mean(0) > 0).all()


def test_target_gets_no_gradient() -> None:
    a, b = torch.randn(8, 2, requires_grad=True), torch.randn(8, 2, requires_grad=True)
    (energy(a, b, torch.ones(8, 8, dtype=torch.bool)) + mmd(a, b, torch.ones(8, 8) > 0)).backward()
    assert a.grad is not None
    assert b.grad is None
