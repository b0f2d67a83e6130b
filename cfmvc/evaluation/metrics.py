"""The one table that declares the metrics.

To add one: write the function into the file of its kind (:mod:`~cfmvc.evaluation.shifts`,
:mod:`~cfmvc.evaluation.responses`, :mod:`~cfmvc.evaluation.distances`,
:mod:`~cfmvc.evaluation.spreads`) and put a line into :data:`METRICS`. Cells are in the log space of
:func:`cfmvc.data.normalise.log_normalise`; *deltas* are mean shifts against the real controls
of the stratum, for the truth and for the prediction alike.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cfmvc.evaluation.case import Case, Truth
from cfmvc.evaluation.responses import expected_share
from cfmvc.evaluation.shifts import (
    direction,
    mean_absolute_error,
    mean_squared_error,
    nearer_than_others,
    pearson,
    weighted_r2,
    weighted_squared_error,
)
from cfmvc.evaluation.spreads import correlation_error, variance_error, variance_ratio

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What the tables, the gate and the reader need to know of a metric.

    Parameters
    ----------
    of
        The metric of a case.
    better
        ``higher``, ``lower``, or ``one``: the nearer to 1 the better.
    needs
        What it is computed from, in words.
    chance
        What a prediction that knows nothing gets; None where that is what the real controls get, as
        the baseline ``control``.
    is_defined
        Whether the case has what the metric needs.
    meaning
        One sentence for a reader who has never met it.
    """

    of: Callable[[Case], float]
    better: Literal["higher", "lower", "one"]
    needs: str
    chance: Callable[[Truth], float] | None = None
    is_defined: Callable[[Case], bool] = lambda case: True
    _: KW_ONLY
    meaning: str

    def loss(self, value: float) -> float:
        """Return a number that is the smaller the better, whatever the direction."""
        return {"higher": -value, "lower": value, "one": abs(value - 1.0)}[self.better]

    @property
    def arrow(self) -> str:
        """The direction as a sign for the heading of a column."""
        return {"higher": "↑", "lower": "↓", "one": "→1"}[self.better]


def shown(name: str) -> str:
    """Return the name of a metric or a method for a reader."""
    return name.replace("_", " ")


def heading(metric: str) -> str:
    """Return a metric's name for a reader, with its direction."""
    return f"{shown(metric)} {METRICS[metric].arrow}"


_ALL, _TOP, _CELLS = (
    "deltas of all genes",
    "deltas of the top genes",
    "cells in principal components",
)


def _top_deltas(case: Case) -> tuple[Array, Array]:
    """Return predicted and true shift of the top genes."""
    return case.predicted_delta[case.truth.top], case.true_delta[case.truth.top]


def _top_variances(case: Case) -> tuple[Array, Array]:
    """Return predicted and true variance of the top genes."""
    return case.predicted.variance[case.truth.top], case.true.variance[case.truth.top]


def _n_varying(case: Case) -> int:
    return int((_top_variances(case)[1] > 0).sum())


def _is_top(case: Case) -> NDArray[np.bool_]:
    return np.isin(np.arange(len(case.true_delta)), case.truth.top)


def _rank(metric: str) -> Metric:
    return Metric(
        lambda c: nearer_than_others(c.predicted_delta, c.true_delta, c.other_deltas, metric),
        "higher",
        f"true deltas of the other perturbations held out in the stratum ({metric})",
        lambda truth: 0.5,
        is_defined=lambda c: len(c.other_deltas) > 0,
        meaning="Share of the other perturbations whose true shift is farther from the prediction "
        f"than its own ({metric}); one just as near counts half.",
    )


METRICS: dict[str, Metric] = {
    "pearson_delta": Metric(
        lambda c: pearson(c.predicted_delta, c.true_delta),
        "higher",
        _ALL,
        lambda truth: 0.0,
        meaning="Correlation of the predicted with the observed mean shift over all genes.",
    ),
    "pearson_delta_top50": Metric(
        lambda c: pearson(*_top_deltas(c)),
        "higher",
        _TOP,
        lambda truth: 0.0,
        meaning="Correlation of the predicted with the observed mean shift over the genes that "
        "are shifted most.",
    ),
    "weighted_r2_delta": Metric(
        lambda c: weighted_r2(c.predicted_delta, c.true_delta, c.truth.weights),
        "higher",
        "deltas of all genes, weighted by Welch's t",
        meaning="Share of the shift's variance over genes that is predicted, the more a gene "
        "responds the more it counts; below 0 is worse than the same shift for every gene.",
    ),
    "weighted_mse": Metric(
        lambda c: weighted_squared_error(c.predicted_delta, c.true_delta, c.truth.weights),
        "lower",
        "deltas of all genes, weighted by Welch's t",
        meaning="Squared error of the predicted shift, the more a gene responds the more it "
        "counts.",
    ),
    "mse_top50": Metric(
        lambda c: mean_squared_error(*_top_deltas(c)),
        "lower",
        _TOP,
        meaning="Mean squared error of the predicted shift of the genes that are shifted most.",
    ),
    "mae_delta": Metric(
        lambda c: mean_absolute_error(c.predicted_delta, c.true_delta),
        "lower",
        _ALL,
        meaning="Mean absolute error of the predicted shift over all genes.",
    ),
    "direction_top50": Metric(
        lambda c: direction(*_top_deltas(c)),
        "higher",
        _TOP,
        lambda truth: 0.5,
        meaning="Share of the most shifted genes that are predicted to go the right way, up or "
        "down.",
    ),
    "de_overlap_top50": Metric(
        lambda c: expected_share(c.predicted_top, len(c.truth.top), _is_top(c)),
        "higher",
        "the genes of largest |t| against the real controls, predicted and true",
        lambda truth: len(truth.top) / len(truth.weights),
        meaning="Share of the genes that are shifted most which the prediction shifts most as "
        "well.",
    ),
    "de_precision_top50": Metric(
        lambda c: expected_share(c.predicted_top, len(c.truth.top), c.truth.responds),
        "higher",
        "the predicted genes of largest |t|; which of them respond in truth (5 % FDR)",
        lambda truth: float(truth.responds.mean()),
        is_defined=lambda c: bool(c.truth.responds.any()),
        meaning="Share of the genes that the prediction shifts most which really respond.",
    ),
    "discrimination": _rank("l1"),
    "discrimination_l2": _rank("l2"),
    "discrimination_cosine": _rank("cosine"),
    "energy_distance": Metric(
        lambda c: c.pairs.energy_distance(c.predicted.pc_weights, c.true.pc_weights),
        "lower",
        _CELLS,
        meaning="How far the predicted cells are from the real ones as populations, spread "
        "included; 0 for cells that cannot be told apart.",
    ),
    "mmd2": Metric(
        lambda c: c.pairs.squared_mmd(c.predicted.pc_weights, c.true.pc_weights),
        "lower",
        _CELLS,
        meaning="Like the energy distance, with a Gaussian kernel, which looks at near neighbours "
        "more than at far ones.",
    ),
    "variance_ratio_top50": Metric(
        lambda c: variance_ratio(*_top_variances(c)),
        "one",
        "variances of the top genes",
        is_defined=lambda c: _n_varying(c) > 0,
        meaning="How much the predicted cells vary for each unit that the real ones do; near 0 "
        "the model has collapsed to the mean.",
    ),
    "variance_error_top50": Metric(
        lambda c: variance_error(*_top_variances(c)),
        "lower",
        "variances of the top genes",
        is_defined=lambda c: _n_varying(c) > 0,
        meaning="How far the variance of a gene is off, as the size of the logarithm of its "
        "ratio to the true one: 0.7 is half or double.",
    ),
    "correlation_error_top50": Metric(
        lambda c: correlation_error(c.predicted.top_covariance, c.true.top_covariance),
        "lower",
        "correlations of the top genes within the cells",
        is_defined=lambda c: _n_varying(c) > 1,
        meaning="Mean error of the correlation between two genes from cell to cell.",
    ),
}
