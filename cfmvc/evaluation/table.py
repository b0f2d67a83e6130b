"""An evaluation as tables and words."""

import io
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cfmvc.evaluation.evaluate import CEILING, MODEL, Evaluation
from cfmvc.evaluation.metrics import METRICS


def to_text(evaluation: Evaluation, width: int = 96, colour: bool = False) -> str:
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
        widest = max(7, *map(len, _shown(method).split()))
        table.add_column(_shown(method), justify="right", style=style, min_width=widest)
    table.add_column("chance", justify="right", style="dim", no_wrap=True)
    for number, metric in enumerate(averages.columns):
        cells = [marked[method][number] for method in averages.index]
        table.add_row(_heading(metric), *cells, _chance(metric))
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, no_color=not colour)
    console.print(table)
    console.print(_legend(averages), markup=False, highlight=False)
    for note in notes(evaluation):
        console.print(note, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def to_markdown(evaluation: Evaluation) -> str:
    """Return the averages as a Markdown table, with the notes below."""
    averages = evaluation.averages
    head = ["method", *(f"{metric} {METRICS[metric].arrow}" for metric in averages.columns)]
    rows = [[_shown(method), *cells] for method, cells in _marked(averages).items()]
    rows.append(["chance", *(_chance(metric) for metric in averages.columns)])
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
        _legend(averages).replace("*", "\\*"),
    ]
    lines += ["", *(f"- {note}" for note in notes(evaluation))]
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
    for method in averages.index.drop([MODEL, CEILING], errors="ignore"):
        ahead: list[str] = []
        behind: list[str] = []
        for metric in averages.columns:
            loss = METRICS[metric].loss
            difference = loss(_value(averages, MODEL, metric)) - loss(
                _value(averages, method, metric)
            )
            if difference != 0:
                (ahead if difference < 0 else behind).append(metric)
        sentences.append(_sentence(_shown(method), ahead, behind, len(averages.columns)))
    return sentences


def notes(evaluation: Evaluation) -> list[str]:
    """Return what a reader must know of exceptions: fallbacks of baselines, skipped conditions."""
    table = evaluation.per_condition
    noted = (
        table[table["note"] != ""].groupby(["method", "note"], sort=False, as_index=False).size()
    )
    found = [
        f"{_shown(str(row.method))}: {row.note} "
        f"({row.count} of {evaluation.n_conditions} conditions)"
        for row in noted.rename(columns={"size": "count"}).itertuples()
    ]
    found += [
        f"not scored: {row.condition}: {row.reason}" for row in evaluation.skipped.itertuples()
    ]
    return found


def to_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """Return plain numbers for a metrics file: ``{method: {metric: value}, n_conditions: ...}``."""
    values: dict[str, Any] = {
        method: {
            metric: _value(evaluation.averages, method, metric)
            for metric in evaluation.averages.columns
        }
        for method in evaluation.averages.index
    }
    values["n_conditions"] = evaluation.n_conditions
    values["n_skipped"] = len(evaluation.skipped)
    return values


def to_csv(evaluation: Evaluation) -> str:
    """Return ``per_condition`` as CSV; a metric that is not defined is an empty field."""
    return evaluation.per_condition.to_csv(index=False, float_format="%.10g")


def _marked(averages: pd.DataFrame) -> dict[str, list[str]]:
    """Return the numbers of each method as text, the best of each metric marked.

    The ceiling is no competitor.
    """
    rivals = averages.drop(index=CEILING, errors="ignore")
    best = {
        metric: min(METRICS[metric].loss(value) for value in rivals[metric])
        for metric in averages.columns
    }
    return {
        method: [
            _number(value)
            + ("*" if method != CEILING and METRICS[metric].loss(value) == best[metric] else " ")
            for metric, value in zip(averages.columns, averages.loc[method], strict=True)
        ]
        for method in averages.index
    }


def _sentence(baseline: str, ahead: list[str], behind: list[str], n_metrics: int) -> str:
    if len(ahead) == n_metrics:
        return f"The model is ahead of {baseline} on every metric."
    if len(behind) == n_metrics:
        return f"The model is behind {baseline} on every metric."
    if not ahead and not behind:
        return f"The model and {baseline} are equal on every metric."
    parts = []
    if ahead:
        parts.append(f"ahead of {baseline} on {', '.join(ahead)}")
    if behind:
        parts.append(f"behind {'it' if ahead else baseline} on {', '.join(behind)}")
    if ties := n_metrics - len(ahead) - len(behind):
        parts.append(f"equal on {ties} of {n_metrics}")
    return "The model is " + "; ".join(parts) + "."


def _value(averages: pd.DataFrame, method: str, metric: str) -> float:
    return float(averages[metric].to_numpy()[averages.index.get_loc(method)])


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _title(evaluation: Evaluation) -> str:
    n_scored = evaluation.n_conditions
    return f"Mean over {n_scored} held-out condition{'' if n_scored == 1 else 's'}"


def _legend(averages: pd.DataFrame) -> str:
    ceiling = ", ceiling: half of the true cells against the other half" * (
        CEILING in averages.index
    )
    return f"* best; ↑ higher is better, ↓ lower, →1 nearer to 1{ceiling}"


def _heading(metric: str) -> str:
    return f"{metric.replace('_', ' ')} {METRICS[metric].arrow}"


def _chance(metric: str) -> str:
    chance = METRICS[metric].chance
    return "" if chance is None else f"{chance:.1f}  "


def _shown(method: str) -> str:
    return method.replace("_", " ")
