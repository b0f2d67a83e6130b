"""The one table that declares the metrics.

To add one: write the function into the file of its kind (:mod:`~cfmvc.evaluation.shifts`,
:mod:`~cfmvc.evaluation.responses`, :mod:`~cfmvc.evaluation.distances`,
:mod:`~cfmvc.evaluation.spreads`) and put a line into :data:`METRICS`. Cells are in the log space of
:func:`cfmvc.evaluation.normalise.log_normalise`; *deltas* are mean shifts against the real controls
of the stratum, for the truth and for the prediction alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cfmvc.evaluation.case import Case
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
        What a prediction that knows nothing gets; None where that is what the real controls get.
    is_defined
        Whether the case has what the metric needs.
    """

    of: Callable[[Case], float]
    better: Literal["higher", "lower", "one"]
    needs: str
    chance: Callable[[Case], float] | None = None
    is_defined: Callable[[Case], bool] = lambda case: True

    def loss(self, value: float) -> float:
        """Return a number that is the smaller the better, whatever the direction."""
        return {"higher": -value, "lower": value, "one": abs(value - 1.0)}[self.better]

    @property
    def arrow(self) -> str:
        """The direction as a sign for the heading of a column."""
        return {"higher": "↑", "lower": "↓", "one": "→1"}[self.better]


def _top(delta: str) -> Callable[[Case], np.ndarray]:
    return lambda case: getattr(case, delta)[case.truth.top]


_predicted_top, _true_top = _top("predicted_delta"), _top("true_delta")
_ALL, _TOP, _CELLS = (
    "deltas of all genes",
    "deltas of the top genes",
    "cells in principal components",
)


def _nearer(metric: str) -> Callable[[Case], float]:
    return lambda c: nearer_than_others(
        c.predicted_delta, c.true_delta, c.truth.other_deltas, metric
    )


def _rank(metric: str) -> Metric:
    return Metric(
        _nearer(metric),
        "higher",
        f"true deltas of the other perturbations held out in the stratum ({metric})",
        lambda c: 0.5,
        is_defined=lambda c: len(c.truth.other_deltas) > 0,
    )


def _is_top(case: Case) -> np.ndarray:
    return np.isin(np.arange(len(case.true_delta)), case.truth.top)


def _varies(case: Case) -> bool:
    return bool((case.true.variance[case.truth.top] > 0).any())


def _vary_together(case: Case) -> bool:
    return int((case.true.variance[case.truth.top] > 0).sum()) > 1


METRICS: dict[str, Metric] = {
    "pearson_delta": Metric(
        lambda c: pearson(c.predicted_delta, c.true_delta), "higher", _ALL, lambda c: 0.0
    ),
    "pearson_delta_top50": Metric(
        lambda c: pearson(_predicted_top(c), _true_top(c)), "higher", _TOP, lambda c: 0.0
    ),
    "weighted_r2_delta": Metric(
        lambda c: weighted_r2(c.predicted_delta, c.true_delta, c.truth.weights),
        "higher",
        "deltas of all genes, weighted by Welch's t",
    ),
    "weighted_mse": Metric(
        lambda c: weighted_squared_error(c.predicted_delta, c.true_delta, c.truth.weights),
        "lower",
        "deltas of all genes, weighted by Welch's t",
    ),
    "mse_top50": Metric(
        lambda c: mean_squared_error(_predicted_top(c), _true_top(c)), "lower", _TOP
    ),
    "mae_delta": Metric(
        lambda c: mean_absolute_error(c.predicted_delta, c.true_delta), "lower", _ALL
    ),
    "direction_top50": Metric(
        lambda c: direction(_predicted_top(c), _true_top(c)), "higher", _TOP, lambda c: 0.5
    ),
    "de_overlap_top50": Metric(
        lambda c: expected_share(c.predicted_top, len(c.truth.top), _is_top(c)),
        "higher",
        "the genes of largest |t| against the real controls, predicted and true",
        lambda c: len(c.truth.top) / len(c.true_delta),
    ),
    "de_precision_top50": Metric(
        lambda c: expected_share(c.predicted_top, len(c.truth.top), c.truth.responds),
        "higher",
        "the predicted genes of largest |t|; which of them respond in truth (5 % FDR)",
        lambda c: float(c.truth.responds.mean()),
        is_defined=lambda c: bool(c.truth.responds.any()),
    ),
    "discrimination": _rank("l1"),
    "discrimination_l2": _rank("l2"),
    "discrimination_cosine": _rank("cosine"),
    "energy_distance": Metric(
        lambda c: c.pairs.energy_distance(c.predicted.pc_weights, c.true.pc_weights),
        "lower",
        _CELLS,
    ),
    "mmd2": Metric(
        lambda c: c.pairs.squared_mmd(c.predicted.pc_weights, c.true.pc_weights), "lower", _CELLS
    ),
    "variance_ratio_top50": Metric(
        lambda c: variance_ratio(c.predicted.variance[c.truth.top], c.true.variance[c.truth.top]),
        "one",
        "variances of the top genes",
        is_defined=_varies,
    ),
    "variance_error_top50": Metric(
        lambda c: variance_error(c.predicted.variance[c.truth.top], c.true.variance[c.truth.top]),
        "lower",
        "variances of the top genes",
        is_defined=_varies,
    ),
    "correlation_error_top50": Metric(
        lambda c: correlation_error(c.predicted.top_covariance, c.true.top_covariance),
        "lower",
        "correlations of the top genes within the cells",
        is_defined=_vary_together,
    ),
}
