"""The pictures of the report: SVG with the dots as pixels, the same bytes for the same cells."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
from matplotlib.figure import Figure

from cfmvc.evaluation.figures import population_panel, shift_panel
from cfmvc.evaluation.report_tables import digits, text_of
from cfmvc.evaluation.result import MODEL, Evaluation, View

# Nothing in the file may differ from run to run: neither a date nor random names of its parts.
_STYLE: Any = {"svg.hashsalt": "cfmvc", "svg.fonttype": "path", "font.size": 9.5}
_METADATA = {"Date": None, "Creator": None}
_DOTS_PER_INCH = 120
# What a data URI in an HTML attribute may hold as it is.
_UNQUOTED = " =:/;,+()!*@-._~"


@dataclass(frozen=True)
class Picture:
    """One condition that the model predicts.

    Parameters
    ----------
    facts
        Pairs of metric and text.
    shift, populations
        As ``data:`` URIs.
    n_cells
        Real control, real perturbed and generated cells that are drawn.
    """

    condition: str
    difficulty: str
    facts: list[tuple[str, str]]
    shift: str
    populations: str
    n_cells: tuple[int, int, int]
    n_top: int


def pictures(evaluation: Evaluation, conditions: list[str], metrics: list[str]) -> list[Picture]:
    """Return pictures of the conditions given, in that order; none without a model."""
    table = evaluation.per_condition
    mine = table[table["method"] == MODEL].set_index("condition")
    found = []
    for condition in conditions:
        if condition not in evaluation.views:
            continue
        view, scores = evaluation.views[condition], mine.loc[condition]
        found.append(
            Picture(
                condition,
                str(scores["difficulty"]),
                [(name, text_of(scores[name], digits(mine[name]))) for name in metrics],
                _drawn(shift_panel, view),
                _drawn(population_panel, view),
                (len(view.control_pcs), len(view.true_pcs), len(view.predicted_pcs)),
                len(view.top),
            )
        )
    return found


def _drawn(panel: Callable[[Any, View], None], view: View) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 3.1), layout="constrained")
        axes = figure.subplots()
        panel(axes, view)
        for dots in axes.collections:
            dots.set_rasterized(True)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", dpi=_DOTS_PER_INCH, metadata=_METADATA)
    # not base64: most of the file is, inside, already
    return "data:image/svg+xml," + quote(stream.getvalue(), safe=_UNQUOTED)
