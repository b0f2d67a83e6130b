"""Pictures of an evaluation; matplotlib (extra ``pipeline``) is loaded when one is asked for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cfmvc.evaluation.metrics import shown
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision
COLOURS = {
    MODEL: "#D55E00",
    "control": "#999999",
    "perturbed_mean": "#56B4E9",
    "additive": "#0072B2",
    "ridge": "#009E73",
    "nearest_perturbation": "#CC79A7",
    "latent_arithmetic": "#E69F00",
    "embedding_ridge": "#117733",  # of Tol's: the palette is at its end
    CEILING: "#000000",
}
MARKERS = {
    MODEL: "D",
    "control": "o",
    "perturbed_mean": "s",
    "additive": "^",
    "ridge": "v",
    "nearest_perturbation": "P",
    "latent_arithmetic": "X",
    "embedding_ridge": "<",
    CEILING: "|",
}
AXES = {
    "pearson_delta": "Pearson's r of the mean shift",
    "energy_distance": "energy distance to the real cells",
}
MOST_CONDITIONS = 30
POPULATIONS = {"real controls": "#999999", "real perturbed": "#0072B2", "generated": "#D55E00"}
GENES = {"other genes": "#BBBBBB", "most shifted genes": "#0072B2"}


def colour_of(method: str) -> str:
    """Return a method's colour; those that the table does not know share what is left of it."""
    return COLOURS.get(method, "#F0E442")


def methods_by_condition(evaluation: Evaluation) -> "Figure":
    """Dots: each method's Pearson delta and energy distance, a row a condition, worst on top.

    At most 30 conditions, the worst ones; ordered by the model's energy distance.
    """
    table = evaluation.per_condition
    methods = list(dict.fromkeys(table["method"]))
    ranked = table[table["method"] == methods[0]].sort_values("energy_distance", ascending=False)
    conditions = ranked["condition"].tolist()[:MOST_CONDITIONS]
    figure = _figure(11, 2.2 + 0.32 * len(conditions))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip(panels, AXES, strict=True):
        wide = table.pivot(index="condition", columns="method", values=metric).loc[conditions]
        for method in reversed(methods):
            axes.scatter(
                wide[method],
                np.arange(len(conditions)),
                s=70 if method in (MODEL, CEILING) else 36,
                color=colour_of(method),
                marker=MARKERS.get(method, "o"),
                label=shown(method),
                zorder=3 if method == MODEL else 2,
            )
        axes.set_xlabel(AXES[metric])
        axes.axvline(0, color="#CCCCCC", linewidth=0.8, zorder=0)
        axes.grid(axis="y", color="#EEEEEE", zorder=0)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        _plain(axes)
    # distances span orders of magnitude; those around 0 stay linear
    panels[1].set_xscale("symlog", linthresh=0.1, linscale=0.5)
    # a label is a label: two $ in it are no mathematics
    panels[0].set_yticks(np.arange(len(conditions)), conditions, parse_math=False)
    panels[0].set_ylim(len(conditions) - 0.4, -0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=len(labels), frameon=False
    )
    return figure


def shifts(evaluation: Evaluation) -> "Figure":
    """Predicted against observed shift of each gene, for the model's worst and best condition."""
    worst, best = _extremes(evaluation)
    chosen = {"worst": worst} if worst == best else {"worst": worst, "best": best}
    figure = _figure(5.2 * len(chosen), 5.4)
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    table = evaluation.per_condition
    scores = table[table["method"] == MODEL].set_index("condition")
    for axes, (rank, condition) in zip(panels, chosen.items(), strict=True):
        view = evaluation.views[condition]
        shift_panel(axes, view)
        score = scores.loc[condition]
        title = f"{rank}: {condition}" if len(chosen) > 1 else condition
        axes.set_title(
            f"{title}\nenergy distance {score['energy_distance']:.2f}, "
            f"r = {score['pearson_delta']:.2f}",
            fontsize=10,
            parse_math=False,
        )
    panels[0].legend(frameon=False, loc="upper left")
    return figure


def populations(evaluation: Evaluation, condition: str | None = None) -> "Figure":
    """Real controls, real perturbed and generated cells in two principal components.

    Parameters
    ----------
    evaluation
        What to show.
    condition
        Which one; by default the one that the model predicts worst.

    Raises
    ------
    KeyError
        If the condition was not predicted by the model.
    """
    name = condition or _extremes(evaluation)[0]
    figure = _figure(6.4, 5.4)
    axes = figure.subplots()
    population_panel(axes, evaluation.views[name])
    axes.set_title(f"{name}\nlarge marks: means", fontsize=10, parse_math=False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def population_panel(axes: Any, view: View) -> None:
    """Draw the cells of one condition in the two components that tell most, means as large marks.

    Parameters
    ----------
    axes
        Of matplotlib.
    view
        What to draw.
    """
    first, second = _most_telling(view)
    populations = (view.control_pcs, view.true_pcs, view.predicted_pcs)
    for (label, colour), cells in zip(POPULATIONS.items(), populations, strict=True):
        is_generated = cells is view.predicted_pcs
        axes.scatter(
            cells[:, first],
            cells[:, second],
            s=14,
            color=colour,
            marker="x" if is_generated else "o",
            alpha=0.55,
            linewidths=0.8 if is_generated else 0,
            label=f"{label} ({len(cells)})",
        )
        centre = cells.mean(axis=0)
        axes.scatter(
            centre[first],
            centre[second],
            s=150,
            color=colour,
            marker="X" if is_generated else "o",
            edgecolors="white",
            linewidths=1.5,
            zorder=4,
        )
    axes.set_xlabel(f"principal component {first + 1}")
    axes.set_ylabel(f"principal component {second + 1}")
    _plain(axes)


def shift_panel(axes: Any, view: View) -> None:
    """Draw predicted against observed shift of every gene, the diagonal behind them.

    Parameters
    ----------
    axes
        Of matplotlib.
    view
        What to draw.
    """
    is_top = np.isin(np.arange(len(view.true_delta)), view.top)
    span = np.concatenate([view.true_delta, view.predicted_delta])
    low, high = span.min() - 0.05 * np.ptp(span), span.max() + 0.05 * np.ptp(span)
    axes.plot([low, high], [low, high], color="#CCCCCC", linewidth=1, zorder=0)
    for (label, colour), chosen in zip(GENES.items(), (~is_top, is_top), strict=True):
        axes.scatter(
            view.true_delta[chosen],
            view.predicted_delta[chosen],
            s=12,
            color=colour,
            alpha=0.8,
            linewidths=0,
            label=f"{int(is_top.sum())} {label}" if chosen is is_top else label,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("observed shift (log space)")
    axes.set_ylabel("predicted shift (log space)")
    _plain(axes)


def _extremes(evaluation: Evaluation) -> tuple[str, str]:
    """Return the conditions of the model's largest and smallest energy distance."""
    table = evaluation.per_condition
    model = table[table["method"] == MODEL].set_index("condition")["energy_distance"]
    if model.empty:
        raise ValueError("the evaluation has no model: nothing to draw")
    return str(model.idxmax()), str(model.idxmin())


def _most_telling(view: View) -> tuple[int, int]:
    """Return the two components along which real perturbed and control cells differ most."""
    gap = np.abs(view.true_pcs.mean(axis=0) - view.control_pcs.mean(axis=0))
    order = np.argsort(-gap, kind="stable")
    return int(min(order[:2])), int(max(order[:2]))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # no pyplot: its state is shared, and figures made there must be closed by hand
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
