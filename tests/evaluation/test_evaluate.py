import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc.errors import DataError
from cfmvc.evaluation import METRICS, EvaluateConfig, Evaluation
from cfmvc.evaluation.baselines import BASELINES, Control
from cfmvc.evaluation.conditions import Condition
from cfmvc.evaluation.evaluate import evaluate, evaluate_in_parts
from cfmvc.evaluation.exam import Exam
from cfmvc.evaluation.generated import origins_of
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.report import to_html
from cfmvc.evaluation.table import to_markdown, to_metrics, to_text
from cfmvc.files import json_text
from tests.evaluation.conftest import assemble, population, screen


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return screen(np.random.default_rng(0))


def held_out(cells: ad.AnnData) -> ad.AnnData:
    return cells[cells.obs["split"] == "test"].copy()


def run(cells: ad.AnnData, generated: ad.AnnData | None, config: EvaluateConfig) -> Evaluation:
    return evaluate(cells, generated, config, "control", "+")


def test_the_truth_itself_wins_and_every_score_is_finite(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    result = run(cells, held_out(cells), config)
    assert result.averages.index.tolist() == ["model", *BASELINES, "ceiling"]
    assert result.averages.columns.tolist() == list(METRICS)
    assert np.isfinite(result.averages.to_numpy()).all()
    assert len(result.per_condition) == 2 * (len(BASELINES) + 2)
    model, control = result.averages.loc["model"], result.averages.loc["control"]
    assert model["pearson_delta"] == pytest.approx(1.0)
    assert model["discrimination"] == 1.0
    assert control["pearson_delta"] == 0.0
    assert control["discrimination"] == 0.5
    assert (result.averages["energy_distance"].drop("model") > model["energy_distance"]).all()


def test_predictions_made_in_parts_have_the_same_scores(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    found, asked = held_out(cells), list[list[Condition]]()

    def ask(conditions: list[Condition]) -> dict[str, ad.AnnData]:
        asked.append(conditions)
        names = {condition.treatment.perturbation for condition in conditions}
        some = found[found.obs["perturbation"].isin(names)]
        return {"model": some, "other": some}

    apart = evaluate_in_parts(Exam.of(cells, config, "control", "+"), ask, most=1)
    assert [len(conditions) for conditions in asked] == [1, 1]
    whole = evaluate(cells, found, config, "control", "+", {"other": found})
    pd.testing.assert_frame_equal(apart.per_condition, whole.per_condition)
    pd.testing.assert_frame_equal(apart.averages, whole.averages)
    pd.testing.assert_frame_equal(apart.draws, whole.draws, check_like=True)


def test_another_dose_is_no_other_perturbation(cells: ad.AnnData, config: EvaluateConfig) -> None:
    """Of a single one that is held out at several doses nothing can be told apart."""
    cells = cells.copy()
    perturbed = cells.obs["perturbation"] != "control"
    cells.obs["dose"] = np.where(perturbed, 1.0 + np.arange(cells.n_obs) % 2, 0.0)
    is_other = (cells.obs["split"] == "test") & (cells.obs["perturbation"] == "B")
    one = cells[~is_other.to_numpy()].copy()
    config = config.model_copy(update={"min_cells": 5})
    for some, is_defined in ((cells, True), (one, False)):
        averages = run(some, held_out(some), config).averages
        assert ("discrimination" in averages) == is_defined


def test_what_the_ceiling_alone_lacks_is_no_metric_less(config: EvaluateConfig) -> None:
    """One weak response, of which half of the cells shows nothing."""
    rng, parts, obs = np.random.default_rng(17), [], []
    rates = rng.gamma(2.0, size=300) + 1.0
    response = np.where(np.arange(300) < 1, 1.7, 1.0)
    for batch in ("b1", "b2"):
        for label, n in (("control", 60), ("A", 30)):
            means = rates * response if label == "A" else rates
            parts.append(rng.poisson(means, size=(n, 300)))
            obs += [(label, batch, "T", "test" if (label, batch) == ("A", "b1") else "train")] * n
    columns = ["perturbation", "batch", "cell_type", "split"]
    table = pd.DataFrame(obs, columns=columns, index=[f"c{n}" for n in range(len(obs))])
    weak = ad.AnnData(obs=table, var=pd.DataFrame(index=[f"g{n}" for n in range(300)]))
    weak.layers["counts"] = sparse.csr_matrix(np.concatenate(parts).astype(np.float32))
    result = run(weak, held_out(weak), config.model_copy(update={"n_components": 5}))
    shares = result.averages["de_precision_top50"]
    assert np.isnan(shares["ceiling"])
    assert shares.drop("ceiling").notna().all()
    metrics = to_metrics(result)
    assert "de_precision_top50" not in metrics["ceiling"]
    assert metrics["model"]["de_precision_top50"] == pytest.approx(shares["model"])
    json_text(metrics)
    for text in (to_text(result), to_markdown(result), to_html(result, "", {})):
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_chance_level_is_of_the_conditions_in_which_a_metric_is_defined(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    """Where nothing responds in truth there is no share of genes that respond."""
    silent = cells.copy()
    is_test = (silent.obs["split"] == "test").to_numpy()
    is_null = is_test & (silent.obs["perturbation"] == "B").to_numpy()
    controls = silent[(silent.obs["perturbation"] == "control").to_numpy()]
    counts = sparse.csr_matrix(silent.layers["counts"]).tolil()
    counts[is_null] = controls.layers["counts"][: is_null.sum()]
    silent.layers["counts"] = counts.tocsr()
    found = run(silent, held_out(silent), config)
    shares = found.per_condition.query("method == 'model'")["de_precision_top50"]
    assert shares.notna().sum() == 1, "only the other one responds"
    alone = silent[~is_null].copy()
    of_one = run(alone, held_out(alone), config).chance["de_precision_top50"]
    assert found.chance["de_precision_top50"] == pytest.approx(of_one)


def test_cells_that_are_made_of_none_are_each_of_their_own() -> None:
    made = ad.AnnData(
        obs=pd.DataFrame({"control_cell": ["b", None, "a", None, "b"]}, index=list("12345"))
    )
    assert origins_of(made).tolist() == [1, 2, 0, 3, 1]


def test_the_quick_score_of_a_model_is_that_of_the_whole_evaluation(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    half = held_out(cells)[::2].copy()
    quick = Exam.of(cells, config, "control", "+").score(half)
    whole = run(cells, half, config).averages.loc["model"]
    assert quick == whole.to_dict()


def test_cells_made_of_one_control_cell_are_no_pair(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    config = config.model_copy(update={"max_cells": 1000})  # all of them, and no choice
    once = held_out(cells)
    once.obs["control_cell"] = [f"control {number}" for number in range(once.n_obs)]
    twice = ad.concat([once, once], merge="same")
    scores = [run(cells, made, config).averages.loc["model"] for made in (once, twice)]
    # copies add nothing: neither a gene's mean nor a distance changes
    for metric in ("mae_delta", "energy_distance", "mmd2"):
        assert scores[1][metric] == pytest.approx(scores[0][metric], abs=1e-9)
    del twice.obs["control_cell"]
    unaware = run(cells, twice, config).averages["energy_distance"]["model"]
    assert unaware > scores[0]["energy_distance"] + 0.01
    once.obs["control_cell"] = "the same"
    with pytest.raises(DataError, match="all made of one control cell"):
        run(cells, once, config)


def test_other_controls_move_all_that_is_made_of_them(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    """Scores of a stratum share its controls, and a prediction made of these has the same ones."""
    truth = cells[(cells.obs["split"] == "test") & (cells.obs["perturbation"] != "control")].copy()
    made, parts = list[ad.AnnData](), truth.obs.groupby(["perturbation", "batch", "cell_type"])
    is_control = (cells.obs["perturbation"] == "control") & (cells.obs["split"] != "test")
    for labels, _ in parts:
        own = is_control & (cells.obs["batch"] == labels[1])
        some = cells[own & (cells.obs["cell_type"] == labels[2])].copy()
        some.obs["control_cell"] = list(some.obs_names)
        some.obs["perturbation"] = labels[0]
        made.append(some)
    moved = ad.concat(made, index_unique="-", merge="same")
    exam = Exam.of(cells, config, "control", "+")
    evaluation = evaluate(cells, moved, config, "control", "+")
    drawn = evaluation.draws.set_index("method")
    for method in ("control", "model"):  # both are the controls as they are
        assert len(drawn.loc[method]) == config.n_draws * evaluation.n_conditions
        assert (drawn.loc[method, "pearson_delta"] == 0.0).all()
    assert drawn.loc["additive", "pearson_delta"].std() > 0
    counts = {name: exam.target(name, config.n_draws).drawn_controls for name in exam.truth}
    for one, mine in counts.items():
        for other, theirs in counts.items():
            is_same = np.array_equal(mine, theirs)
            assert is_same == (one.stratum == other.stratum)


def test_generated_controls_and_unasked_conditions_change_nothing(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    honest = held_out(cells)
    controls = cells[cells.obs["perturbation"] == "control"].copy()
    controls.layers["counts"] = controls.layers["counts"] * 50
    elsewhere = cells[(cells.obs["perturbation"] == "A") & (cells.obs["batch"] == "b1")].copy()
    cheating = ad.concat([controls, honest, elsewhere])
    first, second = run(cells, honest, config), run(cells, cheating, config)
    pd.testing.assert_frame_equal(first.per_condition, second.per_condition)


def test_a_missing_condition_is_an_error_that_names_it(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    generated = held_out(cells)
    only_a = generated[generated.obs["perturbation"] == "A"].copy()
    with pytest.raises(DataError, match=r"1 of 2 held-out .* 'B \(b2, T\)'"):
        run(cells, only_a, config)


def test_other_genes_are_an_error(cells: ad.AnnData, config: EvaluateConfig) -> None:
    with pytest.raises(DataError, match="same order"):
        run(cells, held_out(cells)[:, ::-1].copy(), config)


def test_generated_counts_must_be_counts(cells: ad.AnnData, config: EvaluateConfig) -> None:
    generated = held_out(cells)
    generated.layers["counts"].data[3] = np.nan
    with pytest.raises(DataError, match="1 counts are negative or not finite"):
        run(cells, generated, config)


def test_small_conditions_and_strata_without_controls_are_listed(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    rng = np.random.default_rng(1)
    few = population(rng, 3, np.full(30, 2.0), perturbation="C", batch="b1", cell_type="T")
    alone = population(rng, 20, np.full(30, 2.0), perturbation="A", batch="b3", cell_type="T")
    sparse = population(rng, 20, np.full(30, 2.0), perturbation="A", batch="b4", cell_type="T")
    four = population(rng, 4, np.full(30, 2.0), perturbation="control", batch="b4", cell_type="T")
    extra = assemble([few, alone, sparse, four])
    is_control = extra.obs["perturbation"] == "control"
    extra.obs["split"] = np.where(is_control, "train", "test")
    extra.obs_names = [f"extra{i}" for i in range(extra.n_obs)]
    result = run(ad.concat([cells, extra]), None, config)
    reasons = result.skipped.set_index("condition")["reason"].to_dict()
    assert reasons == {
        "A (b3, T)": "no real control in the stratum",
        "A (b4, T)": "4 real controls in the stratum; 5 needed",
        "C (b1, T)": "3 real cells; evaluate.min_cells is 8",
    }
    assert result.n_conditions == 2
    assert "model" not in result.averages.index


def test_nothing_to_score_is_an_error(cells: ad.AnnData, config: EvaluateConfig) -> None:
    with pytest.raises(DataError, match="no held-out condition can be scored"):
        run(cells[cells.obs["split"] == "train"].copy(), None, config)


def test_scores_do_not_depend_on_the_order_of_cells(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    exact = config.model_copy(update={"max_cells": 1000})
    order = np.random.default_rng(2).permutation(cells.n_obs)
    first, second = run(cells, None, exact), run(cells[order].copy(), None, exact)
    rows = first.averages.index.drop("ceiling")  # halves are drawn by position
    np.testing.assert_allclose(
        first.averages.loc[rows], second.averages.loc[rows], rtol=1e-6, atol=1e-9
    )


def test_a_run_repeats_to_the_bit_and_follows_the_seed(
    cells: ad.AnnData, config: EvaluateConfig
) -> None:
    first, second = run(cells, None, config), run(cells, None, config)
    pd.testing.assert_frame_equal(first.per_condition, second.per_condition, check_exact=True)
    other = run(cells, None, config.model_copy(update={"seed": 1}))
    assert other.averages.at["ceiling", "mse_top50"] != first.averages.at["ceiling", "mse_top50"]


def test_held_out_cells_shape_neither_the_space_nor_any_baseline(
    cells: ad.AnnData, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put other cells in the place of the held-out ones: all but the truth must stay."""
    seen: list[Reference] = []

    class Spy(Control):
        def __init__(self, reference: Reference) -> None:
            super().__init__(reference)
            seen.append(reference)

    monkeypatch.setitem(BASELINES, "spy", Spy)
    changed = cells.copy()
    rows = np.flatnonzero(cells.obs["split"] == "test")
    counts = changed.layers["counts"].toarray()
    counts[rows] = 3 * counts[rows][:, ::-1] + 1
    changed.layers["counts"] = sparse.csr_matrix(counts)
    before, after = (run(data, held_out(cells), config) for data in (cells, changed))
    assert before.averages.loc["spy"].equals(before.averages.loc["control"])
    for name, view in before.views.items():
        np.testing.assert_array_equal(view.predicted_delta, after.views[name].predicted_delta)
        np.testing.assert_array_equal(view.control_pcs, after.views[name].control_pcs)
        assert np.abs(view.true_delta - after.views[name].true_delta).max() > 0.1
    assert {str(condition.stratum) for condition in seen[0].deltas} == {"b1, T", "b1, B", "b2, B"}
    for condition, delta in seen[0].deltas.items():
        np.testing.assert_array_equal(delta, seen[1].deltas[condition])


def test_doses_are_conditions_of_their_own(config: EvaluateConfig) -> None:
    rng = np.random.default_rng(3)
    parts = []
    for batch in ("b1", "b2"):
        for label, dose in (("control", np.nan), ("A", 0.5), ("A", 2.0)):
            means = np.full(20, 3.0)
            means[:6] += 0.0 if label == "control" else 4.0 * dose
            parts.append(
                population(
                    rng,
                    30,
                    means,
                    perturbation=label,
                    batch=batch,
                    cell_type="T",
                    dose=dose,
                    split="test" if batch == "b2" and label == "A" else "train",
                )
            )
    cells = assemble(parts)
    result = run(cells, held_out(cells), config)
    assert set(result.per_condition["condition"]) == {"A at 0.5 (b2, T)", "A at 2 (b2, T)"}
    noted = result.per_condition[result.per_condition["note"] != ""]
    assert set(noted["method"]) == {"nearest_perturbation"}, "A is the only perturbation"
    assert result.averages.at["additive", "pearson_delta"] > 0.75
    undosed = held_out(cells)
    del undosed.obs["dose"]
    with pytest.raises(DataError, match="no obs column 'dose'"):
        run(cells, undosed, config)
