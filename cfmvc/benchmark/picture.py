"""The picture of a benchmark: every method in every fold, a panel a metric."""

from typing import TYPE_CHECKING

import numpy as np

from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.truth import ERROR
from cfmvc.evaluation.figures import MARKERS, colour_of
from cfmvc.evaluation.metrics import METRICS, heading, shown
from cfmvc.evaluation.result import CEILING, MODEL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("pearson_delta", "mse_top50", "energy_distance", "variance_ratio_top50", ERROR)

_DISTANCES, _LONG = ("mse_top50", "energy_distance"), 2.0


def methods_by_fold(summary: Summary) -> "Figure":
    """Dots: a row a fold, means over seeds; of the model a line from the worst to the best seed."""
    from matplotlib.figure import Figure

    metrics = [name for name in PANELS if name in summary.metrics]
    rows = np.arange(len(summary.folds))
    figure = Figure(figsize=(1.6 + 2.5 * len(metrics), 1.9 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        values = summary.by_fold[metric].unstack()
        for method in reversed(summary.methods):
            axes.scatter(
                values.loc[summary.folds, method],
                rows,
                s=70 if method in (MODEL, CEILING) else 36,
                color=colour_of(method),
                marker=MARKERS.get(method, "o"),
                label=shown(method),
                zorder=3 if method == MODEL else 2,
            )
        seeds = summary.all.xs(MODEL, level="method")[metric].unstack("seed").loc[summary.folds]
        axes.hlines(rows, seeds.min(axis=1), seeds.max(axis=1), color=colour_of(MODEL), zorder=2)
        axes.set_xlabel(heading(metric) if metric in METRICS else f"{shown(metric)} ↓")
        if metric in _DISTANCES and values.max().max() > _LONG:
            # these span orders of magnitude; those around 0 stay linear
            axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
            axes.xaxis.set_major_formatter("{x:g}")
        elif metric == "variance_ratio_top50":
            axes.axvline(1, color="#CCCCCC", linewidth=0.8, zorder=0)
        axes.grid(axis="y", color="#EEEEEE", zorder=0)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    # a label is a label: two $ in it are no mathematics
    panels[0].set_yticks(rows, summary.folds, parse_math=False)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="outside upper center",
        ncols=min(4, len(labels)),
        frameon=False,
    )
    return figure
