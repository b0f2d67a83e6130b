"""A benchmark's table for a terminal, and the words that every form of it shares."""

import io

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cfmvc.benchmark.summary import Summary
from cfmvc.evaluation.metrics import METRICS, heading, shown
from cfmvc.evaluation.result import CEILING, MODEL
from cfmvc.evaluation.table import number

_MOST_NAMED = 5  # conditions of a fold that were not scored


def to_text(summary: Summary, width: int = 156, colour: bool = False) -> str:
    """Return the means for a terminal: a metric a line, the best method of each marked ``*``."""
    table = Table(title=title(summary), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for method in summary.methods:
        style = {MODEL: "bold", CEILING: "dim"}.get(method)
        widest = max(7, *map(len, shown(method).split()))
        table.add_column(shown(method), justify="right", style=style, min_width=widest)
        if method == MODEL:
            table.add_column("seeds", justify="center", no_wrap=True)
            table.add_column("interval", justify="center", no_wrap=True)
    spread = spread_of(summary)
    for metric in summary.metrics:
        cells = []
        for method in summary.methods:
            cells.append(marked(summary, method, metric, "*", " "))
            if method == MODEL:
                cells += [range_of(spread, metric, "min", "max"), range_of(spread, metric)]
        table.add_row(title_of(metric), *cells)
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, no_color=not colour)
    console.print(table)
    for line in (legend(summary), *notes(summary)):
        console.print(line, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def title(summary: Summary) -> str:
    """Return what a table shows, in a line."""
    n_folds, n_seeds = len(summary.folds), len(summary.seeds)
    return (
        f"{shown(summary.task)} on {summary.data}: mean over {n_folds} "
        f"fold{'s' if n_folds > 1 else ''} ({summary.n_conditions} conditions) and {n_seeds} "
        f"seed{'s' if n_seeds > 1 else ''}"
    )


def notes(summary: Summary) -> list[str]:
    """Return which conditions were not scored, and why; of a fold's many some."""
    found = []
    for one in (one for one in summary.scores if one.seed == summary.seeds[0]):
        start, rows = f"not scored: {one.fold}:", list(one.skipped.itertuples())
        found += [f"{start} {row.condition}: {row.reason}" for row in rows[:_MOST_NAMED]]
        if len(rows) > _MOST_NAMED:
            found.append(f"{start} {len(rows) - _MOST_NAMED} more (skipped.csv of the fold)")
    return found


def spread_of(summary: Summary) -> pd.DataFrame:
    """Return the model's rows of the table, by metric."""
    return summary.table[summary.table["method"] == MODEL].set_index("metric")


def title_of(metric: str) -> str:
    """Return a metric's name with its direction."""
    return heading(metric) if metric in METRICS else f"{shown(metric)} ↓"


def _loss(metric: str, value: float) -> float:
    return METRICS[metric].loss(value) if metric in METRICS else value


def marked(summary: Summary, method: str, metric: str, mark: str, blank: str = "") -> str:
    """Return a mean, marked (on both sides, in Markdown) if no other method is better."""
    values = summary.means[metric].drop(index=CEILING, errors="ignore").dropna()
    value = summary.means.loc[method, metric]
    if pd.isna(value):
        return ""
    best = min(_loss(metric, float(other)) for other in values)
    if method == CEILING or _loss(metric, float(value)) > best:
        return number(value) + blank
    return f"{mark if len(mark) > 1 else ''}{number(value)}{mark}"


def range_of(bounds: pd.DataFrame, metric: str, low: str = "low", high: str = "high") -> str:
    """Return two columns of a metric's row as text."""
    if metric not in bounds.index:
        return ""
    return f"{number(bounds.loc[metric, low])} to {number(bounds.loc[metric, high])}"


def legend(summary: Summary) -> str:
    """Return what the signs and columns mean."""
    share = f"{summary.config.confidence:.0%}"
    return (
        "* best; ↑ higher is better, ↓ lower, →1 nearer to 1; seeds: smallest and largest mean "
        f"over folds; interval: {share} of means with other folds, conditions and cells; ceiling: "
        "half of the true cells against the other half"
    )
