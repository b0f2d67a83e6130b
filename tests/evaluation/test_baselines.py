import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

from cfmvc.errors import DataError
from cfmvc.evaluation.baselines import (
    BASELINES,
    EMBEDDING_RIDGE,
    Additive,
    Control,
    NearestPerturbation,
    PerturbedMean,
    Ridge,
    baselines_of,
)
from cfmvc.evaluation.conditions import Condition, Stratum, Treatment, rows_of_conditions
from cfmvc.evaluation.embedded_shift import EmbeddedShift
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.ridge import PENALTIES, left_out_errors

N_GENES = 6


def reference_of(
    means: dict[tuple[str, str, str], np.ndarray], doses: dict[int, float] | None = None
) -> Reference:
    """Two cells a condition, one above and one below the mean given."""
    cells, rows = [], []
    for label, mean in means.items():
        cells += [mean - 0.25, mean + 0.25]
        rows += [label, label]
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", "cell_type"])
    if doses:
        obs["dose"] = [doses.get(i // 2, np.nan) for i in range(len(obs))]
    logged = sparse.csr_matrix(np.array(cells))
    return Reference(logged, rows_of_conditions(obs, "control"), "control", "+")


def asked(perturbation: str, batch: str, cell_type: str, dose: float | None = None) -> Condition:
    return Condition(Treatment(perturbation, dose), Stratum(batch, cell_type))


def unit(*genes: int, size: float = 1.0) -> np.ndarray:
    return size * np.isin(np.arange(N_GENES), genes)


BASE = np.arange(1.0, N_GENES + 1)
MEANS = {
    ("control", "b1", "T"): BASE,
    ("control", "b2", "T"): BASE + 1,
    ("control", "b1", "B"): BASE + 2,
    ("control", "b2", "B"): BASE + 3,
    ("A", "b1", "T"): BASE + unit(0),
    ("A", "b1", "B"): BASE + 2 + unit(0, size=3),
    ("A", "b2", "B"): BASE + 3 + unit(0, size=5),
    ("C", "b1", "B"): BASE + 2 + unit(1),
    ("C", "b2", "B"): BASE + 3 + unit(1, size=2),
}


def test_control_is_the_real_controls_of_the_stratum() -> None:
    cells, note = Control(reference_of(MEANS)).predict(asked("A", "b2", "T"))[:2]
    np.testing.assert_allclose(cells, [BASE + 0.75, BASE + 1.25])
    assert note == ""
    with pytest.raises(DataError, match="b9, T"):
        Control(reference_of(MEANS)).predict(asked("A", "b9", "T"))


def test_additive_prefers_strata_of_the_same_cell_type() -> None:
    cells, note = Additive(reference_of(MEANS)).predict(asked("A", "b2", "T"))[:2]
    np.testing.assert_allclose(cells, [BASE + 0.75 + unit(0), BASE + 1.25 + unit(0)])
    assert note == ""


def test_additive_weighs_other_strata_equally_where_the_cell_type_is_new() -> None:
    cells, _ = Additive(reference_of(MEANS)).predict(asked("C", "b2", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + 1 + unit(1, size=1.5))


def test_additive_sums_the_parts_of_an_unseen_combination() -> None:
    cells, note = Additive(reference_of(MEANS)).predict(asked("A+C", "b2", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + 1 + unit(0) + unit(1, size=1.5))
    assert note == "sum of its parts"


def test_parts_of_a_combination_are_those_of_its_cell_type_its_own_stratum_among_them() -> None:
    means = MEANS | {
        ("C", "b1", "T"): BASE - unit(1),
        ("A", "b2", "T"): BASE + 1 + unit(0, size=3),
    }
    cells, _ = Additive(reference_of(means)).predict(asked("A+C", "b1", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + unit(0, size=2) - unit(1))
    alone, _ = Additive(reference_of(means)).predict(asked("C", "b1", "T"))[:2]
    np.testing.assert_allclose(alone.mean(axis=0), BASE + unit(1, size=1.5), err_msg="elsewhere")


def test_baselines_say_so_where_a_perturbation_was_never_seen() -> None:
    reference = reference_of(MEANS)
    for label, said in (("Z", "'Z' not seen; control"), ("Y+Z", "'Y', 'Z' not seen; control")):
        cells, note = Additive(reference).predict(asked(label, "b2", "T"))[:2]
        np.testing.assert_allclose(cells, Control(reference).predict(asked(label, "b2", "T")).cells)
        assert note == said
    condition = asked("A+Z", "b2", "T")
    cells, note = Additive(reference).predict(condition)[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + 1 + unit(0))
    assert note == "sum of its parts without 'Z', not seen"
    assert "'Z' not seen" in Ridge(reference).predict(condition).note
    assert "'A+Z' not seen" in PerturbedMean(reference).predict(condition).note


def test_every_baseline_predicts_where_nothing_perturbed_was_seen() -> None:
    reference = reference_of({key: mean for key, mean in MEANS.items() if key[0] == "control"})
    for baseline in BASELINES.values():
        cells, note = baseline(reference).predict(asked("A", "b2", "T"))[:2]
        np.testing.assert_allclose(cells.mean(axis=0), BASE + 1)
        assert note or baseline is Control


def test_perturbed_mean_pools_the_cells_from_elsewhere() -> None:
    cells, _ = PerturbedMean(reference_of(MEANS)).predict(asked("A", "b2", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + unit(0))
    cells, _ = PerturbedMean(reference_of(MEANS)).predict(asked("C", "b2", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + 2.5 + unit(1, size=1.5))
    assert len(cells) == 4


def test_a_dose_is_compared_with_the_same_dose_or_the_nearest() -> None:
    means = {
        ("control", "b1", "T"): BASE,
        ("control", "b2", "T"): BASE,
        ("A", "b1", "T"): BASE + unit(0),
    }
    reference = reference_of(means, doses={2: 1.0})
    same, note = Additive(reference).predict(asked("A", "b2", "T", 1.0))[:2]
    np.testing.assert_allclose(same.mean(axis=0), BASE + unit(0))
    assert note == ""
    assert Additive(reference).predict(asked("A", "b2", "T", 0.5)).note == (
        "'A at 1' instead of 'A at 0.5'"
    )


def test_a_single_stratum_is_asked_for_its_own_nearest_dose() -> None:
    means = {("control", "b1", "T"): BASE, ("A", "b1", "T"): BASE + unit(0)}
    reference = reference_of(means, doses={1: 2.0})
    cells, note = Additive(reference).predict(asked("A", "b1", "T", 3.0))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + unit(0))
    assert note == "'A at 2' instead of 'A at 3'"
    pooled = PerturbedMean(reference).predict(asked("A", "b1", "T", 3.0)).cells
    np.testing.assert_allclose(pooled.mean(axis=0), BASE + unit(0))


def test_another_dose_is_that_of_the_cell_type_the_own_stratum_among_others() -> None:
    means = {
        ("control", "b1", "T"): BASE,
        ("A", "b1", "T"): BASE + unit(0),
        ("control", "b1", "B"): BASE,
        ("A", "b1", "B"): BASE - unit(0),
    }
    reference = reference_of(means, doses={1: 1.0, 3: 2.0})
    here, note = Additive(reference).predict(asked("A", "b1", "T", 3.0))[:2]
    np.testing.assert_allclose(here.mean(axis=0), BASE + unit(0))
    assert note == "'A at 1' instead of 'A at 3'"
    elsewhere, note = Additive(reference).predict(asked("A", "b1", "T", 2.0))[:2]
    np.testing.assert_allclose(elsewhere.mean(axis=0), BASE - unit(0))
    assert note == ""


def test_a_part_at_another_dose_is_told() -> None:
    means = {
        ("control", "b1", "T"): BASE,
        ("A", "b1", "T"): BASE + unit(0),
        ("B", "b1", "T"): BASE + unit(1),
    }
    reference = reference_of(means, doses={1: 2.0, 2: 3.0})
    cells, note = Additive(reference).predict(asked("A+B", "b1", "T", 3.0))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + unit(0, 1))
    assert note == "sum of its parts; 'A at 2' instead of 'A at 3'"


def test_of_very_many_cells_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfmvc.evaluation.reference._MOST_DENSE", 5)
    reference = reference_of(MEANS)
    every = list(reference.deltas)
    drawn = reference.cells(every)
    assert len(drawn) == 5
    np.testing.assert_array_equal(drawn, reference.cells(every))
    assert len(np.unique(drawn, axis=0)) == 5


def test_own_stratum_counts_only_where_the_treatment_was_seen_nowhere_else() -> None:
    means = {key: mean for key, mean in MEANS.items() if key[0] == "control"}
    means["A", "b1", "T"] = BASE + unit(3)
    cells, note = Additive(reference_of(means)).predict(asked("A", "b1", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), BASE + unit(3))
    assert note.startswith("own stratum")


@pytest.mark.parametrize("n_columns", [4, 40])  # fewer than rows, and more
def test_penalty_of_ridge_is_that_of_a_search_with_each_stratum_left_out(n_columns: int) -> None:
    rng = np.random.default_rng(n_columns)
    groups = rng.choice(["a", "b", "c", "d"], 30).tolist()
    rows = rng.normal(size=(30, n_columns)) + 5
    rows[:, 0] = np.asarray(groups) == "a"  # known in no other stratum
    shifts = rows @ rng.normal(size=(n_columns, 6)) + rng.normal(0, 3, (30, 6))
    search = GridSearchCV(
        linear_model.Ridge(),
        {"alpha": PENALTIES},
        scoring="neg_mean_squared_error",
        cv=LeaveOneGroupOut(),
    ).fit(rows, shifts, groups=groups)
    errors = left_out_errors(rows, shifts, groups)
    assert errors == pytest.approx(-search.cv_results_["mean_test_score"], rel=1e-9)
    assert PENALTIES[np.argmin(errors)] == search.best_params_["alpha"]


def test_ridge_leaves_what_a_single_stratum_shows_as_it_is() -> None:
    effects = {name: np.arange(N_GENES) * size for name, size in (("A", 1.0), ("B", -2.0))}
    base = np.full(N_GENES, 3.0)
    other = base + np.arange(N_GENES) % 2
    seen = {(name, "b", "T"): base + effect for name, effect in effects.items()}
    reference = reference_of({("control", "b", "T"): base, ("control", "b", "U"): other, **seen})
    for name, effect in effects.items():
        predicted = Ridge(reference).predict(asked(name, "b", "U")).cells.mean(axis=0)
        np.testing.assert_allclose(predicted - other, effect, atol=0.01)


def test_ridge_takes_the_doses_of_each_perturbation_for_themselves() -> None:
    effect = np.arange(N_GENES) / 2.0
    bases = {f"b{n}": np.full(N_GENES, 3.0) + n * (np.arange(N_GENES) % 2) for n in range(3)}
    means = {
        (name, batch, "T"): base + (name != "control") * effect
        for batch, base in bases.items()
        for name in ("control", "A", "B")
    }
    doses = {row: 0.01 if name == "A" else 10.0 for row, (name, *_) in enumerate(means)}
    reference = reference_of(means, doses)
    for name, dose in (("A", 0.01), ("B", 10.0)):
        cells = Ridge(reference).predict(asked(name, "b2", "T", dose)).cells
        np.testing.assert_allclose(cells.mean(axis=0) - bases["b2"], effect, atol=0.05)


def test_ridge_recovers_effects_that_depend_on_the_state_of_the_controls() -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(8, 1)) @ rng.normal(size=(1, N_GENES)) + 5.0
    means = {}
    for i, control in enumerate(state):
        means["control", f"b{i}", "T"] = control
        means["A", f"b{i}", "T"] = control + 0.5 * (control - state.mean(axis=0))
        means["B", f"b{i}", "T"] = means["A", f"b{i}", "T"] + unit(2)
    truth = means.pop(("A", "b0", "T"))
    reference = reference_of(means)
    ridge = Ridge(reference).predict(asked("A", "b0", "T")).cells.mean(axis=0)
    additive = Additive(reference).predict(asked("A", "b0", "T")).cells.mean(axis=0)
    assert np.abs(ridge - truth).max() < 0.02
    assert np.abs(additive - truth).max() > 0.1


def test_a_perturbation_that_was_never_seen_is_told_by_its_embedding() -> None:
    """Effects are linear in the vectors, and the sum of the parts of a combination."""
    rng = np.random.default_rng(0)
    vectors = pd.DataFrame(rng.normal(size=(12, 2)) + 5.0, index=[f"P{n}" for n in range(12)])
    effects = (vectors.to_numpy() @ rng.normal(size=(2, N_GENES)) + 1.0) / 10
    means = {
        ("control", "b1", "T"): BASE,
        ("control", "b2", "T"): BASE + 1,
        **{(f"P{n}", "b1", "T"): BASE + effects[n] for n in range(11)},
        ("P1+P2", "b1", "T"): BASE + effects[1] + effects[2],
        ("P4", "b2", "T"): BASE + 1 + effects[4] / 2,
    }
    doses = {row: 0.5 if batch == "b2" else 1.0 for row, (_, batch, _) in enumerate(means)}
    reference = reference_of(means, doses)
    assert EMBEDDING_RIDGE not in baselines_of(reference)
    reference.embeddings = vectors
    told = baselines_of(reference)
    assert list(told) == [*BASELINES, EMBEDDING_RIDGE]
    for label, effect in (("P11", effects[11]), ("P3+P11", effects[3] + effects[11])):
        for dose in (1.0, 0.5):
            predicted = told[EMBEDDING_RIDGE].predict(asked(label, "b2", "T", dose))
            found = predicted.cells.mean(axis=0) - (BASE + 1)
            np.testing.assert_allclose(found, dose * effect, atol=0.05)
            assert predicted.note == ""
    assert "no embedding" in told[EMBEDDING_RIDGE].predict(asked("Z", "b2", "T")).note
    nothing = reference_of({key: mean for key, mean in MEANS.items() if key[0] == "control"})
    nothing.embeddings = vectors
    predicted = baselines_of(nothing)[EMBEDDING_RIDGE].predict(asked("P1", "b2", "T"))
    np.testing.assert_allclose(predicted.cells.mean(axis=0), BASE + 1)


def test_the_penalty_of_embeddings_is_found_by_leaving_perturbations_out() -> None:
    """Vectors that tell nothing: what is left out is best told by none of them."""
    rng = np.random.default_rng(1)
    names = [f"P{n}" for n in range(8)]
    vectors = pd.DataFrame(rng.normal(size=(8, 6)), index=names)
    effects = 1.0 + rng.normal(size=(8, N_GENES))
    strata = [("b1", "T"), ("b2", "T")]
    means = {("control", *stratum): BASE for stratum in strata}
    means |= {(p, *s): BASE + effects[n] for n, p in enumerate(names) for s in strata}
    reference = reference_of(means)
    reference.embeddings = vectors
    shift, _ = EmbeddedShift(reference).predict(asked("P0", "b1", "T"))
    middle = effects.mean(axis=0)
    assert np.linalg.norm(shift - middle) < 0.3 * np.linalg.norm(effects[0] - middle)


def test_nearest_perturbation_is_the_one_that_acts_most_alike_elsewhere() -> None:
    means = {
        **MEANS,
        ("D", "b1", "T"): BASE + unit(0, size=1.1),
        ("E", "b1", "T"): BASE + unit(2, size=9),
        ("D", "b2", "T"): BASE + 1 + unit(0, size=2),
        ("E", "b2", "T"): BASE + 1 + unit(2, size=9),
    }
    cells, note = NearestPerturbation(reference_of(means)).predict(asked("A", "b2", "T"))[:2]
    np.testing.assert_allclose(cells.mean(axis=0), means["D", "b2", "T"])
    assert note == ""


def test_without_another_perturbation_the_nearest_is_the_perturbed_mean() -> None:
    reference, wanted = reference_of(MEANS), asked("A", "b2", "T")
    cells, note = NearestPerturbation(reference).predict(wanted)[:2]
    np.testing.assert_array_equal(cells, PerturbedMean(reference).predict(wanted).cells)
    assert note == "no other perturbation to choose; perturbed mean"


def test_a_single_cell_is_no_population_and_a_wider_one_is_taken() -> None:
    few = pd.DataFrame(
        [("control", "b1", "T")] * 2
        + [("control", "b2", "T")] * 2
        + [("A", "b2", "T")]
        + [("C", "b1", "T")]
        + [("D", "b1", "T")] * 2,
        columns=["perturbation", "batch", "cell_type"],
    )
    logged = sparse.csr_matrix(np.arange(len(few))[:, None] + BASE)
    reference = Reference(logged, rows_of_conditions(few, "control"), "control", "+")
    cells, note = PerturbedMean(reference).predict(asked("A", "b1", "T"))[:2]
    assert (len(cells), note) == (3, "'A' seen in 1 cell; all perturbed cells")
    # C is as near as D, but has one cell only
    cells, _ = NearestPerturbation(reference).predict(asked("A", "b1", "T"))[:2]
    assert len(cells) >= 2
