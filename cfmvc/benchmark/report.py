"""A benchmark as files: Markdown, CSV and a picture; and as JSON."""

from pathlib import Path
from typing import Any

import pandas as pd

from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.text import legend, marked, notes, range_of, spread_of, title, title_of
from cfmvc.evaluation.metrics import METRICS, shown
from cfmvc.evaluation.result import CEILING, MODEL
from cfmvc.evaluation.table import number
from cfmvc.files import atomic_path

# Of the many, those that are compared from paper to paper.
MAIN = (
    "pearson_delta",
    "mse_top50",
    "energy_distance",
    "variance_ratio_top50",
    "discrimination",
)
_BY_FOLD = (MODEL, "additive", "ridge", CEILING)


def to_markdown(summary: Summary) -> str:
    """Return the main metrics of every method with their intervals, and by fold."""
    metrics = [name for name in summary.metrics if name in MAIN or name not in METRICS]
    lines = [f"**{title(summary)}**", "", *_head("method", metrics)]
    bounds = summary.table.set_index(["method", "metric"])
    for method in summary.methods:
        cells = []
        for metric in metrics:
            known = (method, metric) in bounds.index
            cells.append(
                f"{marked(summary, method, metric, '**')} ({range_of(bounds.loc[method], metric)})"
                if known
                else ""
            )
        lines.append(_row(shown(method), cells))
    spread = spread_of(summary)
    lines.append(
        _row("model, over seeds", [range_of(spread, metric, "min", "max") for metric in metrics])
    )
    lines += ["", legend(summary).replace("* best", "bold: best"), "", *_head("fold", metrics)]
    for fold in summary.folds:
        for method in _BY_FOLD:
            row = summary.by_fold.loc[(fold, method)]
            cells = [number(row[name]) if pd.notna(row[name]) else "" for name in metrics]
            lines.append(_row(f"{fold}: {shown(method)}".replace("|", "\\|"), cells))
    lines += ["", *(f"- {note}" for note in notes(summary))]
    return "\n".join(lines).rstrip() + "\n"


def to_json(summary: Summary) -> dict[str, Any]:
    """Return plain values."""
    rows = summary.table.drop(columns=["n_folds", "n_seeds", "n_conditions"])
    rows = rows.astype(object).where(rows.notna(), None)
    return {
        "task": summary.task,
        "data": summary.data,
        "folds": summary.folds,
        "seeds": summary.seeds,
        "n_conditions": summary.n_conditions,
        "table": rows.to_dict("records"),
    }


def write_summary(summary: Summary, out: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``by_fold.csv`` and the picture; return their paths."""
    from cfmvc.benchmark.picture import methods_by_fold

    texts = {
        "table.md": to_markdown(summary),
        "table.csv": summary.table.to_csv(index=False),
        "by_fold.csv": summary.by_fold.rename_axis(["fold", "method"]).to_csv(),
    }
    for name, text in texts.items():
        with atomic_path(out / name) as made:
            made.write_text(text)
    with atomic_path(out / "methods_by_fold.png") as made:
        methods_by_fold(summary).savefig(made, dpi=150, metadata={"Software": None})
    return [out / name for name in (*texts, "methods_by_fold.png")]


def _head(first: str, metrics: list[str]) -> list[str]:
    return [
        _row(first, [title_of(name) for name in metrics]),
        "|---" + "|---:" * len(metrics) + "|",
    ]


def _row(first: str, cells: list[str]) -> str:
    return "| " + " | ".join([first, *cells]) + " |"
