"""Gradient norms of a training, by module over time: a picture and a table."""

from typing import Any

import numpy as np
import pandas as pd

from cfmvc.training.gradient_norms import BINS_A_DECADE, HIGHEST, LOWEST, QUANTILES

_N_BINS = (HIGHEST - LOWEST) * BINS_A_DECADE
_COLUMNS = 3
_NO_GRADIENT = 10.0**LOWEST


def gradient_table(epochs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return quantiles of the norms, a row an epoch and module.

    Parameters
    ----------
    epochs
        :attr:`cfmvc.training.history.History.gradients`.
    """
    rows = [
        {
            "stage": epoch["stage"],
            "epoch": epoch["epoch"],
            "module": module,
            "n_steps": epoch["n_steps"],
            "n_not_finite": epoch["not_finite"][module],
            **dict(zip(QUANTILES, values, strict=True)),
        }
        for epoch in epochs
        for module, values in epoch["quantiles"].items()
    ]
    return pd.DataFrame(rows)


def gradient_picture(epochs: list[dict[str, Any]]) -> Any:
    """Return a figure with a panel a module: how its norms are spread, epoch after epoch.

    Each column of a panel is a histogram of log10 norms (before clipping), the line their median,
    and a red mark an epoch in which a norm was not finite.

    Parameters
    ----------
    epochs
        Of one stage.
    """
    from matplotlib.figure import Figure

    modules = list(epochs[0]["quantiles"])
    shares = {module: _shares(epochs, module) for module in modules}
    low, high = _range(shares)
    n_rows = -(-len(modules) // _COLUMNS)
    figure = Figure(figsize=(4.0 * _COLUMNS, 0.9 + 1.75 * n_rows), layout="constrained", dpi=120)
    panels = figure.subplots(n_rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    drawn: Any = None
    for axes, module in zip(panels, modules, strict=False):
        drawn = _panel(axes, epochs, module, shares[module])
        axes.set_ylim(low, high)
    for n, axes in enumerate(panels):
        axes.set_visible(n < len(modules))
        if n < len(modules) <= n + _COLUMNS:  # nothing is below
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
    figure.suptitle(f"{epochs[0]['stage']}: gradient norms by module, before clipping", fontsize=11)
    figure.supylabel("log10 of the norm", fontsize=10)
    figure.colorbar(drawn, ax=list(panels), label="share of the steps", shrink=0.6)
    return figure


def _panel(axes: Any, epochs: list[dict[str, Any]], module: str, shares: np.ndarray) -> Any:
    from matplotlib.colors import PowerNorm

    edges = np.concatenate([np.linspace(e - 1, e, n + 1)[:-1] for e, n in _parts(epochs, module)])
    heights = np.linspace(LOWEST, HIGHEST, _N_BINS + 1)
    shown = np.ma.masked_equal(shares, 0.0)
    scale = PowerNorm(0.5, 0.0, 1.0)  # a wide spread is not to be pale
    drawn = axes.pcolormesh(
        np.append(edges, epochs[-1]["epoch"]), heights, shown, cmap="Blues", norm=scale
    )
    middle = list(QUANTILES).index("median")
    points = [(e["epoch"] - 0.5, e["quantiles"][module][middle]) for e in epochs]
    known = [(x, np.log10(y)) for x, y in points if y is not None and y > _NO_GRADIENT]
    if known:
        axes.plot(*zip(*known, strict=True), color="#D55E00", linewidth=1.2)
    else:
        axes.text(0.5, 0.5, "no gradient", transform=axes.transAxes, ha="center", color="0.5")
    bad = [epoch["epoch"] - 0.5 for epoch in epochs if epoch["not_finite"][module]]
    axes.plot(bad, [0.97] * len(bad), "v", color="red", transform=axes.get_xaxis_transform())
    axes.set_title(module, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _parts(epochs: list[dict[str, Any]], module: str) -> list[tuple[int, int]]:
    return [(epoch["epoch"], len(epoch["histograms"][module])) for epoch in epochs]


def _shares(epochs: list[dict[str, Any]], module: str) -> np.ndarray:
    """Return the share of a column's steps in each bin, ``(n_bins, n_columns)``."""
    columns = [part for epoch in epochs for part in epoch["histograms"][module]]
    shares = np.zeros((_N_BINS, len(columns)))
    for number, column in enumerate(columns):
        for where, n_steps in column:
            shares[where, number] = n_steps
    return shares / np.maximum(shares.sum(axis=0), 1.0)


def _range(shares: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the heights between which there is something; a module without gradients aside."""
    used = np.flatnonzero(sum(share[1:].sum(axis=1) for share in shares.values())) + 1
    if not len(used):
        return float(LOWEST), float(HIGHEST)
    return (
        LOWEST + (used[0] - 3) / BINS_A_DECADE,
        LOWEST + (used[-1] + 4) / BINS_A_DECADE,
    )
