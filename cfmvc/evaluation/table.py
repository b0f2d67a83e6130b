"""An evaluation as tables and words."""

import io
import math
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cfmvc.evaluation.difficulty import DIFFICULTIES
from cfmvc.evaluation.metrics import METRICS, heading, shown
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation


def to_text(evaluation: Evaluation, width: int = 118, colour: bool = False) -> str:
    """Return the averages for a terminal: a metric a line, the best method of each marked ``*``.

    Parameters
    ----------
    evaluation
        What to show.
    width
        Characters of a line.
    colour
        Whether to write terminal codes.
    """
    averages = evaluation.averages
    marked = _marked(averages)
    table = Table(
        title=_title(evaluation), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column("metric", no_wrap=True)
    for method in averages.index:
        style = {MODEL: "bold", CEILING: "dim"}.get(method)
        # A name may break between its words, not within one.
        widest = max(7, *map(len, shown(method).split()))
        table.add_column(shown(method), justify="right", style=style, min_width=widest)
        if method == MODEL:
            table.add_column("interval", justify="center", no_wrap=True)
    table.add_column("chance", justify="right", style="dim", no_wrap=True)
    for place, metric in enumerate(averages.columns):
        cells = []
        for method in averages.index:
            cells.append(marked[method][place])
            if method == MODEL:
                cells.append(_interval(evaluation, method, metric))
        table.add_row(heading(metric), *cells, f"{number(evaluation.chance[metric])} ")
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, no_color=not colour)
    console.print(table)
    for line in (_legend(evaluation), *difficulties(evaluation), *notes(evaluation)):
        console.print(line, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def to_markdown(evaluation: Evaluation) -> str:
    """Return the averages as a Markdown table, with the notes below."""
    averages = evaluation.averages
    head = ["method", *(f"{metric} {METRICS[metric].arrow}" for metric in averages.columns)]
    rows = [[shown(method), *cells] for method, cells in _marked(averages).items()]
    rows.append(["chance", *(number(evaluation.chance[name]) for name in averages.columns)])
    lines = [
        f"**{_title(evaluation)}**",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|---:" * len(averages.columns) + "|",
        *(
            "| " + " | ".join(cell.strip().replace("*", "\\*") for cell in row) + " |"
            for row in rows
        ),
        "",
        _legend(evaluation).replace("*", "\\*"),
    ]
    lines += ["", *(f"- {line}" for line in (*difficulties(evaluation), *notes(evaluation)))]
    return "\n".join(lines).rstrip() + "\n"


def verdict(evaluation: Evaluation) -> list[str]:
    """Say in plain words where the model is ahead of each baseline and where it is behind.

    Returns
    -------
    One sentence a baseline; empty if no model was evaluated.
    """
    averages = evaluation.averages
    if MODEL not in averages.index:
        return []
    sentences = []
    for method in evaluation.baselines:
        behind: list[str] = []
        n_equal = 0
        for metric in averages.columns:
            loss = METRICS[metric].loss
            difference = loss(_value(averages, MODEL, metric)) - loss(
                _value(averages, method, metric)
            )
            n_equal += difference == 0
            if difference > 0:
                behind.append(metric)
        sentences.append(_sentence(shown(method), behind, n_equal, len(averages.columns)))
    return sentences


def difficulties(evaluation: Evaluation) -> list[str]:
    """Say how the model does where a baseline has solved the condition, and where none has.

    Returns
    -------
    One line a kind of condition that there is; empty if no model was evaluated.
    """
    table = evaluation.per_condition
    lines = []
    for kind in DIFFICULTIES:
        some = table[table["difficulty"] == kind]
        means = some.groupby("method")["energy_distance"].mean()
        if some.empty or MODEL not in means.index:
            continue
        best = best_baseline(means, "energy_distance", evaluation)
        assert best is not None
        lines.append(
            f"{kind}: {some['condition'].nunique()} of {evaluation.n_conditions} conditions; "
            f"energy distance of the model {number(means[MODEL])}, "
            f"of {shown(best)} {number(means[best])}, of the ceiling {number(means[CEILING])}"
        )
    return lines


def notes(evaluation: Evaluation) -> list[str]:
    """Return what a reader must know of exceptions: fallbacks of baselines, skipped conditions."""
    table = evaluation.per_condition
    noted = (
        table[table["note"] != ""].groupby(["method", "note"], sort=False, as_index=False).size()
    )
    found = [
        f"{shown(str(row.method))}: {row.note} "
        f"({row.count} of {evaluation.n_conditions} conditions)"
        for row in noted.rename(columns={"size": "count"}).itertuples()
    ]
    found += [
        f"not scored: {row.condition}: {row.reason}" for row in evaluation.skipped.itertuples()
    ]
    return found


def to_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """Return plain numbers for a metrics file: ``{method: {metric: value}, n_conditions: ...}``.

    What is not defined for the ceiling is not there.
    """
    values: dict[str, Any] = {
        method: {
            metric: _value(evaluation.averages, method, metric)
            for metric in evaluation.averages.loc[method].dropna().index
        }
        for method in evaluation.averages.index
    }
    values["n_conditions"] = evaluation.n_conditions
    values["n_skipped"] = len(evaluation.skipped)
    return values


def to_csv(evaluation: Evaluation) -> str:
    """Return ``per_condition`` as CSV; a metric that is not defined is an empty field."""
    return evaluation.per_condition.to_csv(index=False, float_format="%.10g")


def to_bars_csv(evaluation: Evaluation, metric: str) -> str:
    """Return a metric of each method and condition with its bounds, as CSV for a plot of bars."""
    bars = evaluation.with_bounds(metric).rename(columns={"value": metric}).reset_index()
    return bars.to_csv(index=False, float_format="%.10g")


def is_best(averages: pd.DataFrame) -> pd.DataFrame:
    """Return which methods are the best in each metric, shaped like the averages.

    The ceiling is no competitor.
    """
    losses = averages.apply(lambda column: column.map(METRICS[str(column.name)].loss))
    found = losses == losses.drop(index=CEILING, errors="ignore").min()
    found.loc[found.index == CEILING] = False
    return found


def best_baseline(scores: pd.Series, metric: str, evaluation: Evaluation) -> str | None:
    """Return which baseline is the best, ``scores`` being indexed by method; None: undefined."""
    losses = scores.reindex(evaluation.baselines).map(METRICS[metric].loss).dropna()
    return None if losses.empty else str(losses.idxmin())


def number(value: float, n_digits: int = 3) -> str:
    """Return a score as text, empty where it is not defined; never a negative zero."""
    if math.isnan(value):
        return ""
    text = f"{value:.{n_digits}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def _marked(averages: pd.DataFrame) -> dict[str, list[str]]:
    """Return the numbers of each method as text, the best of each metric marked."""
    best = is_best(averages)
    return {
        method: [
            number(value) + ("*" if marked else " ")
            for value, marked in zip(averages.loc[method], best.loc[method], strict=True)
        ]
        for method in averages.index
    }


def _sentence(baseline: str, behind: list[str], n_equal: int, n_metrics: int) -> str:
    n_ahead = n_metrics - len(behind) - n_equal
    if n_ahead == n_metrics:
        return f"The model is ahead of {baseline} on every metric."
    if len(behind) == n_metrics:
        return f"The model is behind {baseline} on every metric."
    if n_equal == n_metrics:
        return f"The model and {baseline} are equal on every metric."
    parts = [f"ahead of {baseline} on {n_ahead} of {n_metrics} metrics"]
    if behind:
        parts.append(f"behind it on {len(behind)} ({', '.join(behind)})")
    if n_equal:
        parts.append(f"equal on {n_equal}")
    return "The model is " + "; ".join(parts) + "."


def _value(averages: pd.DataFrame, method: str, metric: str) -> float:
    return float(averages[metric].to_numpy()[averages.index.get_loc(method)])


def _title(evaluation: Evaluation) -> str:
    n_scored = evaluation.n_conditions
    return f"Mean over {n_scored} held-out condition{'' if n_scored == 1 else 's'}"


def _legend(evaluation: Evaluation) -> str:
    legend = "* best; ↑ higher is better, ↓ lower, →1 nearer to 1"
    if MODEL in evaluation.averages.index:
        share = f"{evaluation.config.confidence:.0%}"
        legend += f"; interval: {share} of averages with other conditions and cells"
    if CEILING in evaluation.averages.index:
        legend += "; ceiling: half of the true cells against the other half"
    return legend


def _interval(evaluation: Evaluation, method: str, metric: str) -> str:
    low, high = evaluation.intervals.loc[(method, metric)]
    return f"{number(low)} to {number(high)}"
