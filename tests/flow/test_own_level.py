"""Slopes on the level in the controls: found through noise, and not made of it."""

import numpy as np
import pytest

from cfmvc.flow.own_level import slopes

N_GENES, N_STRATA = 400, 6
STRATA = np.arange(N_STRATA)


def levels(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(1.0, 1.0, (1, N_GENES)) + rng.normal(0.0, 0.5, (N_STRATA, N_GENES))


@pytest.mark.parametrize("slope", [-0.3, 0.0])
@pytest.mark.parametrize("error", [0.05, 0.3])
def test_found_where_the_controls_are_noisy(slope: float, error: float) -> None:
    rng = np.random.default_rng(0)
    true = levels(rng)
    noise = error * rng.normal(size=true.shape)
    shift = rng.normal(size=N_GENES) + slope * (true - true.mean(axis=0)) - noise
    p = np.tile([0.0, 1.0], (N_STRATA, 1))
    found = slopes(p, shift, true + noise, np.full(N_STRATA, N_GENES * error**2), STRATA)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(slope, abs=0.03)


@pytest.mark.parametrize("slope", [-0.3, 0.0])
@pytest.mark.parametrize("doses", [[0.25, 0.5, 1.0], [0.01, 0.1, 1.0]])
def test_small_doses_of_the_same_controls_do_not_make_it(slope: float, doses: list[float]) -> None:
    """A small dose shows next to nothing but the noise of the controls that all doses share."""
    rng = np.random.default_rng(0)
    true = levels(rng)
    noise = 0.3 * rng.normal(size=true.shape)
    response = rng.normal(size=N_GENES) + slope * (true - true.mean(axis=0))
    stratum, dose = np.repeat(STRATA, len(doses)), np.tile(doses, N_STRATA)
    shift = dose[:, None] * response[stratum] - noise[stratum]
    shift += 0.1 * rng.normal(size=shift.shape)
    of_noise = np.full(len(stratum), N_GENES * 0.3**2)
    found = slopes(dose[:, None], shift, (true + noise)[stratum], of_noise, stratum)
    assert found[0] == pytest.approx(slope, abs=0.06)


def test_a_dose_scales_it_and_one_stratum_alone_tells_none() -> None:
    rng = np.random.default_rng(0)
    true = levels(rng)
    dose = np.linspace(0.5, 1.0, N_STRATA)[:, None]
    shift = dose * (-0.2 * (true - true.mean(axis=0)))
    p = np.hstack([dose, np.zeros((N_STRATA, 1))])
    p[-1] = [0.0, 1.0]
    found = slopes(p, shift, true, np.zeros(N_STRATA), STRATA)
    assert found[0] == pytest.approx(-0.2, abs=0.03)
    assert found[1] == 0.0


def test_never_beyond_what_makes_sense() -> None:
    rng = np.random.default_rng(0)
    true = levels(rng)
    p = np.ones((N_STRATA, 1))
    none = np.zeros(N_STRATA)
    assert slopes(p, -5.0 * true, true, none, STRATA)[0] == -1.0
    assert slopes(p, 5.0 * true, true, none, STRATA)[0] == 0.0
    assert slopes(p, rng.normal(size=true.shape), np.ones_like(true), none, STRATA)[0] == 0.0


def test_where_all_conditions_are_combinations_nothing_is_found() -> None:
    rng = np.random.default_rng(0)
    true, p = levels(rng), np.ones((N_STRATA, 2))
    found = slopes(p, rng.normal(size=true.shape), true, np.ones(N_STRATA), STRATA)
    np.testing.assert_array_equal(found, 0.0)
