import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cfmvc.evaluation import METRICS, Evaluation, figures
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.table import to_csv, to_markdown, to_metrics, to_text, verdict
from tests.evaluation.conftest import CONFIG, screen


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    cells = screen(np.random.default_rng(0))
    generated = cells[cells.obs["split"] == "test"].copy()
    return evaluate(cells, generated, CONFIG, "control", "+")


def with_averages(evaluation: Evaluation, **rows: list[float]) -> Evaluation:
    columns = ["pearson_delta", "mse_top50", "variance_ratio_top50"]
    averages = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return replace(evaluation, averages=averages)


def test_the_text_puts_the_model_first_and_marks_the_best(evaluation: Evaluation) -> None:
    text = to_text(
        with_averages(
            evaluation,
            model=[0.7, 0.3, 1.4],
            control=[0.0, 0.5, 0.9],
            ceiling=[0.9, 0.1, 1.0],
        )
    )
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["metric"].split() == [
        "metric",
        "model",
        "interval",
        "control",
        "ceiling",
        "chance",
    ]
    assert lines["pearson"].split()[3:4] == ["0.700*"]
    assert lines["pearson"].split()[-3:] == ["0.000", "0.900", "0.000"]
    assert lines["mse"].split()[-3:-1] == ["0.500", "0.100"]
    assert lines["variance"].split()[-3:-1] == ["0.900*", "1.000"], "1.4 is farther from 1"


def test_no_heading_is_cut(evaluation: Evaluation) -> None:
    assert "…" not in to_text(evaluation)
    assert max(map(len, to_text(evaluation).splitlines())) <= 118


def test_the_verdict_names_where_the_model_is_ahead_and_behind(evaluation: Evaluation) -> None:
    sentences = verdict(
        with_averages(
            evaluation,
            model=[0.7, 0.3, 1.4],
            control=[0.0, 0.5, 3.0],
            additive=[0.9, 0.1, 1.0],
            ridge=[0.7, 0.1, 2.0],
            ceiling=[1.0, 0.0, 1.0],
        )
    )
    assert sentences == [
        "The model is ahead of control on every metric.",
        "The model is behind additive on every metric.",
        "The model is ahead of ridge on 1 of 3 metrics; behind it on 1 (mse_top50); equal on 1.",
    ]


def test_the_metrics_file_is_plain_json(evaluation: Evaluation) -> None:
    values = json.loads(json.dumps(to_metrics(evaluation), allow_nan=False))
    assert set(values["model"]) == set(METRICS)
    assert values["model"]["pearson_delta"] == pytest.approx(1.0)
    assert values["n_conditions"] == 2


def test_csv_and_markdown_hold_every_method(evaluation: Evaluation) -> None:
    table = pd.read_csv(io.StringIO(to_csv(evaluation)), keep_default_na=False)
    assert len(table) == len(evaluation.per_condition)
    rows = [line for line in to_markdown(evaluation).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(evaluation.averages) + 1
    assert len({row.count("|") for row in rows}) == 1


def test_labels_are_no_mathematics_in_the_pictures(evaluation: Evaluation) -> None:
    label = "$\\foo$"
    table = evaluation.per_condition.replace({"condition": {"A (b2, T)": label}})
    views = {label: evaluation.views["A (b2, T)"], **evaluation.views}
    named = replace(evaluation, per_condition=table, views=views)
    for figure in (
        figures.methods_by_condition(named),
        figures.shifts(named),
        figures.populations(named, label),
    ):
        figure.savefig(io.BytesIO(), format="png")


def test_the_pictures_show_every_method_and_population(evaluation: Evaluation) -> None:
    dots = figures.methods_by_condition(evaluation)
    assert [text.get_text() for text in dots.legends[0].get_texts()] == [
        method.replace("_", " ") for method in evaluation.averages.index
    ]
    assert len(figures.shifts(evaluation).axes) == 2
    cells = figures.populations(evaluation, "A (b2, T)")
    assert "A (b2, T)" in cells.axes[0].get_title()
    assert [text.get_text() for text in cells.legends[0].get_texts()] == [
        "real controls (40)",
        "real perturbed (40)",
        "generated (40)",
    ]
    for figure in (dots, cells):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert stream.getvalue().startswith(b"\x89PNG")
