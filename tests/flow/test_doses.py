"""How strongly doses act: the curve is found, and a line is left a line."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cfmvc.flow.doses import DoseCurves, learnt_curves, several_doses

N_GENES = 300
DOSES = np.asarray([10.0, 100.0, 1000.0, 10_000.0])


def hill(dose: np.ndarray, half: float, steepness: float = 1.0) -> np.ndarray:
    return np.asarray(dose**steepness / (dose**steepness + half**steepness))


def screen(
    strengths: np.ndarray,
    doses: np.ndarray = DOSES,
    n_cells: int = 100,
    effect: float = 1.0,
    alike: float = 0.0,
    uneven: bool = False,
) -> tuple[np.ndarray, ...]:
    """Two strata, in which a drug a row of strengths has all doses, with noise of all means.

    ``alike`` is what all treated cells of a stratum differ in from its controls.
    """
    rng, n_drugs = np.random.default_rng(0), len(strengths)
    drug, dose, stratum = (
        v.ravel() for v in np.meshgrid(range(n_drugs), range(len(doses)), range(2), indexing="ij")
    )
    truth = effect * rng.normal(size=(n_drugs, 2, N_GENES))
    shift = strengths[drug, dose][:, None] * truth[drug, stratum]
    sizes = np.full(len(drug), n_cells)
    if uneven:
        sizes = np.where(rng.random(len(drug)) < 0.5, n_cells, max(n_cells // 50, 1))
    shift = shift + rng.normal(size=shift.shape) / np.sqrt(sizes)[:, None]
    shift -= ((1.0 / np.sqrt(n_cells) + alike) * rng.normal(size=(2, N_GENES)))[stratum]
    p = np.zeros((len(drug), n_drugs + 1))
    p[np.arange(len(drug)), 1 + drug] = doses[dose]
    controls = np.full(len(drug), n_cells)
    return p, p.max(axis=0, initial=1.0), shift, stratum, sizes, controls


def test_the_curve_of_each_drug_is_found_through_noise() -> None:
    halves = [30.0, 300.0, 3000.0, 300.0]
    strengths = np.stack([hill(DOSES, half) for half in halves])
    curves = learnt_curves(*screen(strengths))
    p = np.zeros((4, 4, 5))
    for drug in range(4):
        p[drug, :, 1 + drug] = DOSES
    found = np.stack([curves.strength(p[drug])[:, 1 + drug] for drug in range(4)])
    np.testing.assert_allclose(found, strengths / strengths[:, -1:], atol=0.06)


@pytest.mark.parametrize("half", [300.0, np.inf])
def test_what_all_treated_cells_have_in_common_is_no_response_to_a_dose(half: float) -> None:
    true = DOSES / DOSES[-1] if np.isinf(half) else hill(DOSES, half) / hill(DOSES[-1:], half)
    p, largest, *rest = screen(np.repeat(true[None], 6, axis=0), effect=0.5, alike=0.3)
    found = learnt_curves(p, largest, *rest).strength(p)
    rows, columns = p.nonzero()
    expected = true[np.searchsorted(DOSES, p[rows, columns])]
    np.testing.assert_allclose(found[rows, columns], expected, atol=0.12)


def test_means_of_few_cells_count_little_and_all_strata_count() -> None:
    true = np.repeat(hill(DOSES, 300.0)[None], 4, axis=0)
    p, largest, *rest = screen(true, n_cells=200, effect=0.6, uneven=True)
    found = learnt_curves(p, largest, *rest).strength(p)
    rows, columns = p.nonzero()
    expected = (true[0] / true[0, -1])[np.searchsorted(DOSES, p[rows, columns])]
    np.testing.assert_allclose(found[rows, columns], expected, atol=0.12)


def test_each_drug_is_told_by_the_strata_it_is_in() -> None:
    """One drug in the first stratum alone, another in the second."""
    true = np.stack([hill(DOSES, 30.0), hill(DOSES, 3000.0), hill(DOSES, 300.0)])
    p, largest, shift, stratum, *sizes = screen(true)
    kept = ~((p[:, 1] > 0) & (stratum == 1)) & ~((p[:, 2] > 0) & (stratum == 0))
    some = (values[kept] for values in (shift, stratum, *sizes))
    curves = learnt_curves(p[kept], largest, *some)
    for drug in (0, 1):
        at = np.zeros((4, 4))
        at[:, 1 + drug] = DOSES
        found = curves.strength(at)[:, 1 + drug]
        np.testing.assert_allclose(found, true[drug] / true[drug, -1], atol=0.1)


def test_above_the_largest_dose_no_curve_goes_beyond_proportion() -> None:
    steep = DoseCurves(np.ones(1), np.asarray([1e-3]), np.asarray([2.8]))
    np.testing.assert_allclose(steep.strength(np.asarray([[2.0], [10.0]])), [[2.0], [10.0]])
    bent = DoseCurves(np.ones(1), np.asarray([9.0]), np.asarray([1.0]))
    assert bent.strength(np.asarray([[10.0]]))[0, 0] == pytest.approx(100.0 / 91.0)


def test_a_dose_of_any_size_is_finite_in_single_precision_too() -> None:
    curves = DoseCurves(np.ones(3), np.asarray([2e11, 0.0, 9.0]), np.asarray([2.83, 2.83, 1.0]))
    single = DoseCurves(*(torch.from_numpy(part).float() for part in vars(curves).values()))
    doses = np.asarray([[0.0] * 3, [1.0] * 3, [1e10] * 3])
    found = [curves.curved(doses), single.curved(torch.from_numpy(doses).float()).numpy()]
    expected = [[0, 0, 0], [1, 1, 1], [1.0, 1e10, 10 / 9]]
    for some in found:
        np.testing.assert_allclose(some, expected, rtol=1e-5)


def test_of_the_usual_curve_a_drug_is_told_that_was_given_at_one_dose() -> None:
    p, largest, *rest = screen(np.repeat(hill(DOSES, 100.0)[None], 4, axis=0))
    kept = (p[:, 4] == 0) | (p[:, 4] == DOSES[-1])
    curves = learnt_curves(p[kept], largest, *(values[kept] for values in rest))
    assert curves.saturation[4] == curves.saturation[0] > 10.0
    assert curves.strength(np.asarray([[0, 0, 0, 0, 1000.0]]))[0, 4] == pytest.approx(
        0.92, abs=0.05
    )


@pytest.mark.parametrize("doses", [[0.25, 0.5, 1.0, 2.0], [1.0, 10.0, 100.0, 1000.0]])
@pytest.mark.parametrize("n_cells", [10, 1000])
def test_a_line_is_left_a_line(doses: list[float], n_cells: int) -> None:
    x = np.asarray(doses) / doses[-1]
    given_doses = np.asarray(doses)
    p, largest, *rest = screen(np.repeat(x[None], 4, axis=0), given_doses, n_cells)
    curves = learnt_curves(p, largest, *rest)
    np.testing.assert_allclose(curves.strength(p), p / largest, atol=0.02)


def test_noise_is_no_curve() -> None:
    p, largest, *rest = screen(np.ones((4, 4)), effect=0.0, n_cells=20)
    curves = learnt_curves(p, largest, *rest)
    assert curves.is_straight


@pytest.mark.parametrize("what", ["one dose", "doses in strata of their own", "combinations"])
def test_where_nothing_tells_of_doses_they_act_in_proportion(what: str) -> None:
    p, largest, shift, stratum, *sizes = screen(np.ones((2, 4)))
    if what == "one dose":
        p = (p > 0).astype(float)
    elif what == "combinations":
        p = np.where(p > 0, p, 1.0)
    else:
        stratum = np.arange(len(p))
    curves = learnt_curves(p, largest, shift, stratum, *sizes)
    assert curves.is_straight
    np.testing.assert_array_equal(curves.strength(p), p / largest)


@given(
    st.just(0.0) | st.floats(1e-3, 1e4),
    st.floats(0.3, 3.0),
    st.floats(1e-3, 1e4),
    st.floats(1e-4, 3.0),
)
def test_a_curve_is_hills_through_nothing_and_the_largest_dose_and_has_an_inverse(
    saturation: float, steepness: float, largest: float, x: float
) -> None:
    curves = DoseCurves(*(np.asarray([value]) for value in (largest, saturation, steepness)))
    dose = np.asarray([[0.0], [x * largest], [largest]])
    found = curves.strength(dose)
    assert found[0, 0] == 0.0
    assert found[2, 0] == pytest.approx(1.0)
    if saturation > 0 and x <= 1.0:
        half = saturation ** (-1.0 / steepness)
        expected = hill(np.asarray(x), half, steepness) / hill(np.asarray(1.0), half, steepness)
        assert found[1, 0] == pytest.approx(float(expected), rel=1e-6)
    if x <= 1.0:
        np.testing.assert_allclose(curves.doses(found), dose, rtol=1e-3, atol=1e-12)


def test_several_doses_are_seen() -> None:
    assert not several_doses(np.eye(3))
    assert several_doses(np.asarray([[0, 1.0], [0, 2.0]]))
