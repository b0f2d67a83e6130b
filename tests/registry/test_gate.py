"""The gate lets through what is better, and nothing that only looks so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.errors import ConfigError
from cfmvc.evaluation import EvaluateConfig, Evaluation
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.registry.config import GateConfig
from cfmvc.registry.gate import Facts, Verdict, decide
from cfmvc.registry.gate_table import verdict_text
from tests.evaluation.conftest import CONFIG as QUICK
from tests.evaluation.conftest import screen

PARAMS = read_yaml(default_params_file())
GATE = parse_section(GateConfig, PARAMS["gate"], "gate")
CONFIG = QUICK.model_copy(update={"n_draws": 20})  # of three, a spread is hardly known
FACTS = Facts(nan_steps=0, peak_memory_gib=1.0, predict_seconds=1.0)


def with_counts(cells: ad.AnnData, counts: np.ndarray) -> ad.AnnData:
    """The same cells with other counts."""
    made = cells.copy()
    made.layers["counts"] = csr_matrix(counts.astype(np.float32))
    return made


def judged(
    cells: ad.AnnData,
    generated: ad.AnnData,
    champion: ad.AnnData | None = None,
    config: EvaluateConfig = CONFIG,
    facts: Facts = FACTS,
) -> Verdict:
    rivals = {} if champion is None else {"champion": champion}
    return decide(evaluate(cells, generated, config, "control", "+", rivals), GATE, facts)


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return screen(np.random.default_rng(0), n_genes=60, n_cells=80)


@pytest.fixture(scope="module")
def truth(cells: ad.AnnData) -> ad.AnnData:
    return cells[cells.obs["split"] == "test"].copy()


def test_the_truth_passes_and_says_what_it_was_better_than(
    cells: ad.AnnData, truth: ad.AnnData
) -> None:
    verdict = judged(cells, truth)
    assert verdict.is_passed
    assert len(verdict.reasons) == 1
    assert "better than control, perturbed mean, additive, ridge" in verdict.reasons[0]
    text = verdict_text(verdict, 7, None)
    assert text.startswith("PASSED: version 7 against the baselines. Better than control,")


def test_the_champion_itself_is_not_better_than_the_champion(
    cells: ad.AnnData, truth: ad.AnnData
) -> None:
    verdict = judged(cells, truth, champion=truth)
    assert not verdict.is_passed
    assert all("the champion's" in reason for reason in verdict.reasons)
    assert "pearson_delta is the same as the champion's: 1.000 against 1.000" in verdict.reasons[0]


def test_a_better_one_replaces_a_worse_champion(cells: ad.AnnData, truth: ad.AnnData) -> None:
    counts = truth.layers["counts"].toarray()
    noisy = with_counts(truth, np.random.default_rng(1).permuted(counts, axis=1))
    assert judged(cells, truth, champion=noisy).is_passed
    assert not judged(cells, noisy, champion=truth).is_passed


def test_guards_are_kept_and_unknown_facts_are_no_pass(
    cells: ad.AnnData, truth: ad.AnnData
) -> None:
    slow = replace(FACTS, predict_seconds=99.0, nan_steps=None, peak_memory_gib=64.0)
    assert judged(cells, truth, facts=slow).reasons == (
        "updates vetoed for NaN: not recorded with this version; register it again",
        "peak memory: 64 GiB (at most 32 GiB)",
        "seconds for 1,000 cells: 99 (at most 30)",
    )


@pytest.mark.parametrize(
    ("n", "least", "most"), [(2, 0.15, 0.35), (5, 0.02, 0.09), (20, 0.02, 0.09)]
)
def test_a_version_that_is_no_better_seldom_passes_by_chance(
    n: int, least: float, most: float
) -> None:
    """In a single metric; and never of two conditions that do not agree."""
    rng, conditions, n_won = np.random.default_rng(7), [f"c{number}" for number in range(n)], 0
    for _ in range(400):
        scores = {"model": rng.normal(size=n), "ridge": np.zeros(n), "ceiling": np.zeros(n)}
        table = pd.DataFrame(
            [
                {"method": method, "condition": condition, "energy_distance": value}
                for method, values in scores.items()
                for condition, value in zip(conditions, values, strict=True)
            ]
        )
        averages = table.groupby("method", sort=False)[["energy_distance"]].mean()
        draws = pd.DataFrame(columns=["method", "condition", "draw", "energy_distance"])
        found = Evaluation(table, averages, averages.loc["ridge"], table, {}, draws, CONFIG)
        gate = GATE.model_copy(update={"metrics": ["energy_distance"], "n_bootstrap": 500})
        (comparison,) = decide(found, gate, FACTS).comparisons
        n_won += comparison.is_won
        assert not comparison.is_won or n > 2 or (scores["model"] < 0.0).all()
    assert least < n_won / 400 < most


def test_a_gain_within_chance_is_none(cells: ad.AnnData, truth: ad.AnnData) -> None:
    """The champion is the truth with some cells in the place of others."""
    rng = np.random.default_rng(2)
    other = truth[np.sort(rng.permutation(truth.n_obs)[: truth.n_obs * 9 // 10])].copy()
    rest = judged(cells, truth, champion=other)
    against = [c for c in rest.comparisons if c.rival == "champion"]
    assert any(c.gain > 0 and not c.is_won for c in against)
    assert any("better, but not by more than chance (95%), than" in r for r in rest.reasons)


def test_metrics_that_are_misspelt_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'pearson_dleta' \(did you mean"):
        parse_section(GateConfig, {**PARAMS["gate"], "metrics": ["pearson_dleta"]}, "gate")


@pytest.fixture(scope="module")
def kang(published: Callable[[str], Path]) -> ad.AnnData:
    """Real cells; interferon in CD4 T cells is held out in both donors."""
    cells = ad.read_h5ad(published("kang_pbmc_ifnb"))
    held_out = (cells.obs["cell_type"] == "CD4 T cells") & (cells.obs["perturbation"] == "IFNb")
    cells.obs["split"] = np.where(held_out, "test", "train")
    return cells


@pytest.fixture(scope="module")
def config() -> EvaluateConfig:
    return parse_section(EvaluateConfig, {**PARAMS["evaluate"], "n_draws": 5}, "evaluate")


def asked(kang: ad.AnnData) -> ad.AnnData:
    return kang[kang.obs["split"] == "test"].copy()


def controls_of(kang: ad.AnnData, wanted: ad.AnnData) -> np.ndarray:
    """Counts of a real control cell of its stratum for each cell."""
    rng, counts = np.random.default_rng(3), kang.layers["counts"].toarray()
    rows = []
    for batch, cell_type in zip(wanted.obs["batch"], wanted.obs["cell_type"], strict=True):
        is_there = (kang.obs["batch"] == batch) & (kang.obs["cell_type"] == cell_type)
        is_there &= kang.obs["perturbation"] == "control"
        rows.append(rng.choice(np.flatnonzero(is_there)))
    return counts[rows]


def test_kang_the_real_cells_pass(kang: ad.AnnData, config: EvaluateConfig) -> None:
    assert judged(kang, asked(kang), config=config).is_passed


def test_kang_a_collapsed_model_is_refused(kang: ad.AnnData, config: EvaluateConfig) -> None:
    """Every cell is the mean of the perturbed cells."""
    wanted = asked(kang)
    perturbed = (kang.obs["perturbation"] == "IFNb") & (kang.obs["split"] == "train")
    mean = kang[perturbed.to_numpy()].layers["counts"].toarray().mean(axis=0)
    verdict = judged(kang, with_counts(wanted, np.tile(mean, (wanted.n_obs, 1))), config=config)
    assert not verdict.is_passed
    assert verdict.reasons[0].startswith("collapsed: the generated cells vary 0.00 times as much")


def test_kang_a_cheating_model_is_refused(kang: ad.AnnData, config: EvaluateConfig) -> None:
    """Inflated variance, and predicted controls shifted so that its shifts look right."""
    wanted = asked(kang)
    counts = controls_of(kang, wanted)
    rng = np.random.default_rng(4)
    elsewhere = kang[(kang.obs["split"] == "train").to_numpy()]
    is_perturbed = (elsewhere.obs["perturbation"] == "IFNb").to_numpy()
    seen = elsewhere.layers["counts"].toarray()
    shift = seen[is_perturbed].mean(axis=0) - seen[~is_perturbed].mean(axis=0)
    responding = np.argsort(-np.abs(shift))[:200]
    wild = counts.copy()
    is_high = rng.random((len(counts), 200)) < 0.5
    wild[:, responding] = np.where(is_high, counts[:, responding] + 300, 0)
    cheating = with_counts(wanted, wild)
    pretended = kang[kang.obs["perturbation"] == "control"].copy()
    true_shift = wanted.layers["counts"].mean(axis=0) - counts.mean(axis=0)
    lowered = np.maximum(pretended.layers["counts"].toarray() - true_shift, 0)
    both = ad.concat([with_counts(pretended, lowered), cheating])
    verdict = judged(kang, both, config=config)
    assert not verdict.is_passed
    assert verdict.reasons[0].startswith("inflated: the generated cells vary")
    assert verdict == judged(kang, cheating, config=config), "predicted controls are not looked at"


def test_kang_a_model_that_returns_control_is_refused(
    kang: ad.AnnData, config: EvaluateConfig
) -> None:
    wanted = asked(kang)
    verdict = judged(kang, with_counts(wanted, controls_of(kang, wanted)), config=config)
    assert not verdict.is_passed
    lost = {(c.rival, c.metric) for c in verdict.comparisons if not c.is_won}
    assert {("control", metric) for metric in GATE.metrics} <= lost
    assert any("energy_distance is worse than the baseline's (ridge)" in r for r in verdict.reasons)
