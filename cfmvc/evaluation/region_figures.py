"""Map of a perturbed region; matplotlib (extra ``pipeline``) is loaded when one is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from cfmvc.data.normalise import log_normalise
from cfmvc.data.reading import to_csr
from cfmvc.data.regions import Box, Circle, Polygon, Region, parse_region
from cfmvc.files import atomic_path
from cfmvc.stages.region import RegionChange

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTSIDE, LEFT_ALONE, OUTLINE = "#D9D9D9", "#8C8C8C", "#000000"
# both grow darker or lighter all the way: told apart with any colour vision, and in grey
CHANGE, EXPRESSION = "viridis", ("#E3E3E3", "#9ECAE1", "#3182BD", "#08306B")
PALE = 0.25
_PANEL = 3.6  # inches, the longer side of a map
_LEAST, _MOST = 3.0, 110.0  # area of a dot, in square points


def region_picture(tissue: AnnData, change: RegionChange, genes: list[str]) -> "Figure":
    """Return a map of the size of the change (left), and of genes before and after (right).

    Parameters
    ----------
    tissue
        The cells before, as they were given to :func:`cfmvc.stages.region.perturb_region`.
    change
        What it has returned.
    genes
        Names of genes that the model knows, a row of maps each.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    places = np.asarray(change.cells.obsm["spatial"])[:, :2]
    width, height = _panel_size(places)
    scale = min(1.0 + 0.5 * (len(genes) - 1), 2.0)  # of the map on the left, beside several rows
    figure = Figure(
        figsize=((scale + 2) * width + 2.0, _total_height(height, len(genes), scale)),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08),
    )
    asked = change.cells.uns["perturb_region"]
    region = parse_region(asked["region"])
    grid = figure.add_gridspec(len(genes), 3, width_ratios=[scale, 1, 1])
    size = _dot_size(places, width, height)
    left = figure.add_subplot(grid[:, 0])
    _map_of_change(figure, left, change, region, size * scale**2, scale * height)
    before, after = _expression(tissue, change, genes)
    for row, gene in enumerate(genes):
        panels = [figure.add_subplot(grid[row, column]) for column in (1, 2)]
        titles = (f"{gene}, as it is", f"{gene}, with {asked['perturbation']} in the region")
        scale_bar = _norm(before[:, row], after[:, row])
        for axes, values, title in zip(panels, (before, after), titles, strict=True):
            dots = _draw_gene(axes, values[:, row], change, size, scale_bar)
            _finish(axes, places, region, title)
            axes.set(xticks=[], yticks=[])
        bar = panels[-1].inset_axes((1.0 + 0.12 / width, 0.05, 0.12 / width, 0.9))
        figure.colorbar(dots, cax=bar, label="log1p of counts")
    figure.suptitle(_title(asked), parse_math=False)
    figure.legend(
        handles=_legend(change, region), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes."""
    import matplotlib as mpl

    kind = path.suffix.lower().removeprefix(".")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    settings: Any = {"svg.hashsalt": "cfmvc"}
    with atomic_path(path) as made, mpl.rc_context(settings):
        figure.savefig(made, format=kind, metadata=undated)


def _map_of_change(
    figure: "Figure",
    axes: Any,
    change: RegionChange,
    region: Region,
    size: float,
    height: float,
) -> None:
    places = np.asarray(change.cells.obsm["spatial"])[:, :2]
    for _, chosen, colour in _unchanged(change):
        axes.scatter(*places[chosen].T, s=size, color=colour, linewidth=0, rasterized=True)
    sizes = change.cells.obs["change"].to_numpy()[change.is_changed]
    x, y = places[change.is_changed].T
    dots = axes.scatter(x, y, c=sizes, s=size, cmap=CHANGE, norm=_norm(sizes))
    dots.set(linewidth=0.3 if size > 12 else 0, edgecolor="white", rasterized=True)
    _finish(axes, places, region, f"size of the change ({change.is_changed.sum():,} cells)")
    axes.set(xlabel="x (units of the file)", ylabel="y (units of the file)")
    label = "length of the change (log1p of normalised counts)"
    bar = axes.inset_axes((0.0, -0.75 / height, 1.0, 0.12 / height))
    figure.colorbar(dots, cax=bar, orientation="horizontal", label=label)


def _draw_gene(axes: Any, values: np.ndarray, change: RegionChange, size: float, norm: Any) -> Any:
    """Draw a gene in all cells, those that stay as they are pale; return the dots of the others."""
    places = np.asarray(change.cells.obsm["spatial"])[:, :2]
    for chosen, alpha in ((~change.is_changed, PALE), (change.is_changed, 1.0)):
        x, y = places[chosen].T
        dots = axes.scatter(x, y, c=values[chosen], s=size, cmap=_expression_map(), norm=norm)
        dots.set(linewidth=0, alpha=alpha, rasterized=True)
    return dots


def _unchanged(change: RegionChange) -> list[tuple[str, np.ndarray, str]]:
    in_region = change.cells.obs["in_region"].to_numpy()
    kinds = [
        ("outside, unchanged", ~in_region, OUTSIDE),
        ("perturbed already, unchanged", in_region & ~change.is_changed, LEFT_ALONE),
    ]
    return [kind for kind in kinds if kind[1].any()]


def _legend(change: RegionChange, region: Region) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", color=colour, label=f"{label} ({cells.sum():,})")
        for label, cells, colour in _unchanged(change)
    ]
    if _outline(region) is not None:
        handles.append(Line2D([], [], color=OUTLINE, linewidth=1.2, label="the region"))
    return handles


def _norm(*values: np.ndarray) -> Any:
    from matplotlib.colors import Normalize

    return Normalize(0.0, max(float(some.max()) for some in values) or 1.0)


def _expression(
    tissue: AnnData, change: RegionChange, genes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the genes before and after, ``(n_cells, n_shown)`` each, on the model's own scale."""
    known = change.cells.var["is_predicted"].to_numpy()
    columns = change.cells.var_names[known].get_indexer(genes)
    library = float(change.cells.uns["perturb_region"]["library"])
    before, after = (
        log_normalise(to_csr(counts)[:, known], library)[:, columns].toarray()
        for counts in (tissue.layers["counts"], change.cells.layers["counts"])
    )
    return before, after


def _finish(axes: Any, places: np.ndarray, region: Region, title: str) -> None:
    outline = _outline(region)
    if outline is not None:
        axes.add_patch(outline)
    half = 0.53 * _shown(places)
    (x, y), (half_x, half_y) = (places.min(axis=0) + places.max(axis=0)) / 2, half
    axes.set(xlim=(x - half_x, x + half_x), ylim=(y - half_y, y + half_y))
    axes.set_aspect("equal", anchor="N")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)


def _outline(region: Region) -> Any:
    """Return the border to draw; an annotated region has none."""
    from matplotlib import patches

    style: Any = {"fill": False, "edgecolor": OUTLINE, "linewidth": 1.2}
    if isinstance(region, Box):
        (x0, y0), (x1, y1) = region.low[:2], region.high[:2]
        return patches.Rectangle((x0, y0), x1 - x0, y1 - y0, **style)
    if isinstance(region, Circle):
        return patches.Circle(region.centre, region.radius, **style)
    if isinstance(region, Polygon):
        return patches.Polygon(region.corners, closed=True, **style)
    return None


def _title(asked: dict[str, Any]) -> str:
    dose = "" if asked["dose"] == 1 else f" at dose {asked['dose']:g}"
    where = str(asked["region"])
    return f"{asked['perturbation']}{dose} in {where if len(where) <= 70 else where[:67] + '...'}"


def _expression_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("expression", EXPRESSION)


def _shown(places: np.ndarray) -> np.ndarray:
    """Return the extent of a map in x and y; a long tissue has room beside it."""
    extent = np.ptp(places, axis=0)
    return np.maximum(extent, max(0.4 * float(extent.max()), 1e-6))


def _panel_size(places: np.ndarray) -> tuple[float, float]:
    """Return width and height of a map, in inches."""
    shown = _shown(places)
    width, height = _PANEL * shown / shown.max()
    return float(width), float(height)


def _total_height(height: float, n_rows: int, scale: float) -> float:
    """Return the figure's, in inches: the rows of genes, or the map on the left with its bar."""
    return max(n_rows * (height + 0.35), scale * height + 1.5) + 0.9


def _dot_size(places: np.ndarray, width: float, height: float) -> float:
    """Return the area of a dot with which evenly spread cells nearly touch."""
    share = width * height * 72**2 / max(len(places), 1)
    return float(np.clip(0.45 * share, _LEAST, _MOST))
