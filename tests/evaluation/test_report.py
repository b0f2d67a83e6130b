"""The page: whole, self-contained, safe with any label, and the same for the same evaluation."""

import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cfmvc.evaluation import METRICS, Evaluation
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.metrics import heading, shown
from cfmvc.evaluation.report import MOST_BARS, MOST_PICTURES, to_html
from cfmvc.evaluation.result import CEILING, MODEL
from cfmvc.evaluation.table import verdict
from tests.conftest import PROJECT
from tests.evaluation.conftest import CONFIG, screen

NASTY = '<b>"bold"</b> & $\\foo$ <script>alert(1)</script>'
FACTS = {"Data": "data/raw/<i>cells</i>.h5ad", "Split": "by cell type"}
VOID = {"meta", "input", "img", "link", "br", "hr"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether all that was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def words(self, *tags: str) -> str:
        return "\n".join(data for tag, data in self.text if not tags or tag in tags)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    cells = screen(np.random.default_rng(0))
    cells.obs["perturbation"] = cells.obs["perturbation"].astype(str).replace("B", NASTY)
    generated = cells[cells.obs["split"] == "test"].copy()
    # B is predicted as A: it is the worst by far
    is_b = (generated.obs["perturbation"] == NASTY).to_numpy()
    counts = generated.layers["counts"].toarray()
    counts[is_b] = counts[~is_b]
    generated.layers["counts"] = counts
    return evaluate(cells, generated, CONFIG, "control", "+")


@pytest.fixture(scope="module")
def html(evaluation: Evaluation) -> str:
    return to_html(evaluation, "What <em>it</em> is worth", FACTS)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_fetched_from_elsewhere(page: Page, html: str) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/svg+xml,")), (tag, value)
    style = page.words("style")
    assert "url(" not in style
    assert "@import" not in style
    policies = [found["content"] for tag, found in page.elements if "http-equiv" in found]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'")
    # pictures name namespaces, which nobody fetches
    assert not re.search(r"https?://(?!www\.w3\.org/|purl\.org/|creativecommons\.org/)", html)


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    targets = {found["href"] for tag, found in page.elements if tag == "a"}
    assert targets <= {f"#{name}" for name in ids}


def test_labels_are_text_whatever_they_hold(page: Page, html: str) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert "em" not in tags
    assert NASTY not in html
    condition = f"{NASTY} (b2, T)"
    assert condition in page.words("th")
    assert condition in page.words("h3")
    assert any(condition in str(found.get("alt")) for _, found in page.elements)
    assert "data/raw/<i>cells</i>.h5ad" in page.words("dd")
    assert page.words("h1") == "What <em>it</em> is worth"


def test_every_method_metric_and_condition_is_there(page: Page, evaluation: Evaluation) -> None:
    averages = [row for row in page.rows if row[0] in map(heading, evaluation.averages.columns)]
    assert [row[0] for row in averages] == [heading(name) for name in evaluation.averages.columns]
    n_methods = len(evaluation.averages)
    assert {len(row) for row in averages} == {1 + n_methods + 1}  # the metric, and chance
    scores = [row for row in page.rows if row[0] in set(evaluation.per_condition["condition"])]
    assert len(scores) == len(evaluation.per_condition)
    assert {row[1] for row in scores} == {shown(name) for name in evaluation.averages.index}
    meanings = {row[0]: row for row in page.rows if row[0] in METRICS}
    for name in evaluation.averages.columns:
        assert meanings[name][2:] == [METRICS[name].meaning, METRICS[name].needs]
    for sentence in verdict(evaluation):
        assert sentence in page.words("li")


def test_averages_stand_with_intervals_chance_and_ceiling(
    page: Page, evaluation: Evaluation
) -> None:
    row = next(row for row in page.rows if row[0] == heading("energy_distance"))
    low, high = evaluation.intervals.loc[(MODEL, "energy_distance")]
    value = evaluation.averages.loc[MODEL, "energy_distance"]
    assert row[1].removeprefix("★") == f"{value:.3f}{low:.3f} to {high:.3f}"
    assert row[2] == f"{evaluation.chance['energy_distance']:.3f}"
    assert row[3].startswith(f"{evaluation.averages.loc[CEILING, 'energy_distance']:.3f}")
    rivals = evaluation.averages["energy_distance"].drop(CEILING)
    order = [MODEL, "chance", CEILING, *evaluation.baselines]
    marked = [name for name, cell in zip(order, row[1:], strict=True) if cell.startswith("★")]
    assert set(marked) == set(rivals.index[rivals == rivals.min()])


def test_the_worst_comes_first(page: Page) -> None:
    assert [text for tag, text in page.text if tag == "h3"] == [
        f"1. {NASTY} (b2, T)",
        "2. A (b2, T)",
    ]
    names = [row[0] for row in page.rows if row[0].endswith("(b2, T)")]
    assert names == sorted(names, key=lambda name: name == "A (b2, T)")
    pictures = [found for tag, found in page.elements if tag == "img"]
    assert len(pictures) == 4


def test_bars_say_score_and_interval(page: Page, evaluation: Evaluation) -> None:
    said = [
        str(found["aria-label"])
        for tag, found in page.elements
        if tag == "svg" and found.get("role")
    ]
    assert len(said) == 2 * 4
    scores = evaluation.scores(MODEL, "energy_distance")
    low, high = scores.bounds(0.95)
    worst = int(np.argmax(scores.values))
    assert low[worst] < scores.values[worst] < high[worst]
    expected = f"model {scores.values[worst]:.3f}, {low[worst]:.3f} to {high[worst]:.3f} with"
    assert expected in said[0]


def test_the_same_evaluation_gives_the_same_bytes(
    evaluation: Evaluation, html: str, tmp_path: Path
) -> None:
    """In another process too, whose sets and dictionaries hash otherwise."""
    kept = tmp_path / "evaluation.pickle"
    kept.write_bytes(pickle.dumps((evaluation, "What <em>it</em> is worth", FACTS)))
    code = (
        "import pickle, sys; from cfmvc.evaluation.report import to_html;"
        "print(to_html(*pickle.load(open(sys.argv[1], 'rb'))), end='')"
    )
    command = [sys.executable, "-c", code, str(kept)]
    env = os.environ | {"PYTHONHASHSEED": "7"}
    made = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, check=True)
    assert made.stdout.decode() == html


def test_a_score_that_is_not_defined_is_empty(evaluation: Evaluation) -> None:
    table = evaluation.per_condition.copy()
    is_a = table["condition"] == "A (b2, T)"
    table.loc[is_a, ["mse_top50", "variance_ratio_top50"]] = np.nan
    draws = evaluation.draws.copy()
    draws.loc[draws["condition"] == "A (b2, T)", ["mse_top50", "variance_ratio_top50"]] = np.nan
    page = Page(to_html(replace(evaluation, per_condition=table, draws=draws), "", {}))
    assert "nan" not in page.words().lower().split()
    row = next(row for row in page.rows if row[:2] == ["A (b2, T)", "model"])
    place = 5 + list(evaluation.averages.columns).index("mse_top50")
    assert row[place] == ""
    assert row[place + 1] != ""


def test_one_condition_is_enough() -> None:
    cells = screen(np.random.default_rng(1))
    is_b = (cells.obs["perturbation"] == "B") & (cells.obs["split"] == "test")
    cells = cells[~is_b.to_numpy()].copy()
    generated = cells[cells.obs["split"] == "test"].copy()
    page = Page(to_html(evaluate(cells, generated, CONFIG, "control", "+"), "one", {}))
    assert "Averages over 1 held-out condition" in page.words("h2").splitlines()
    assert "1. A (b2, T)" in page.words("h3")


def test_baselines_need_no_model() -> None:
    cells = screen(np.random.default_rng(2))
    config = CONFIG.model_copy(update={"n_draws": 0})
    page = Page(to_html(evaluate(cells, None, config, "control", "+"), "none", {}))
    assert "No model was evaluated" in page.words("p")
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert {row[1] for row in page.rows if row[0] == "A (b2, T)"} >= {"additive", "ceiling"}
    assert "model" not in {row[1] for row in page.rows if len(row) > 1}


def test_a_page_of_many_conditions_stays_small(evaluation: Evaluation) -> None:
    """Bars and pictures of the worst; the table has them all."""
    n = MOST_BARS + 5

    def many(table: pd.DataFrame) -> pd.DataFrame:
        one = table[table["condition"] == "A (b2, T)"]
        return pd.concat(
            [one.assign(condition=f"P{i:03d}") for i in range(n)], ignore_index=True
        ).sort_values("method", kind="stable")

    view = evaluation.views["A (b2, T)"]
    html = to_html(
        replace(
            evaluation,
            per_condition=many(evaluation.per_condition),
            draws=many(evaluation.draws),
            views={f"P{i:03d}": view for i in range(n)},
        ),
        "many",
        {},
    )
    page = Page(html)
    assert len({row[0] for row in page.rows if re.fullmatch(r"P\d{3}", row[0])}) == n
    assert page.words("span").count("P0") == MOST_BARS
    assert page.words("h3").count("P0") == MOST_PICTURES
    assert f"The {MOST_BARS} worst of {n}" in page.words("p")
    assert len(html) < 3e6
