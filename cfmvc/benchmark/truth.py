r"""The error of a predicted expectation, where the truth is known: on simulated cells.

Of a condition, for gene :math:`g` with expected proportions :math:`\pi`, the true shift is
:math:`\log \pi_g(p) - \log \pi_g(control)`, averaged over the states of the cell type; that of a
method is the same of its cells against the real controls of the stratum. The error is the root
of their mean squared difference over genes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc.benchmark.folds import Fold
from cfmvc.config import parse_section
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import SEPARATOR, truth_of
from cfmvc.errors import ConfigError
from cfmvc.evaluation.conditions import Condition, Stratum, rows_of_conditions
from cfmvc.evaluation.exam import Exam
from cfmvc.evaluation.result import CEILING

Array = NDArray[np.float64]
ERROR, ADDITIVE, INTERACTIVE = "expectation_error", "additive", "interactive"
# Columns of the table by condition; the lower the better, undefined for other conditions.
ERRORS = {
    ERROR: "Error of the expected log shift against the simulation's truth (RMSE over genes).",
    f"{ERROR}_{ADDITIVE}": "The same, of combinations that are the sum of their parts.",
    f"{ERROR}_{INTERACTIVE}": "The same, of combinations that are not the sum of their parts.",
}
# A gene that no cell shows has no logarithm; a hundredth of a count in a cell of 2,000 is less than
# the rarest genes of the simulation have.
_RAREST = 5e-6


@dataclass(frozen=True)
class Truth:
    """The true shifts of a simulation.

    Parameters
    ----------
    config
        What it was made with.
    fold
        Whose region, if it has one, expectations are averaged over.
    """

    config: SimulateConfig
    fold: Fold

    @classmethod
    def of(cls, cells: AnnData, fold: Fold) -> "Truth | None":
        """Return the truth about some cells; None if it is not known.

        They are not simulated, or by another version of the simulation, or have not its genes, in
        their order.
        """
        values = cells.uns.get("cfmvc", {}).get("simulate")
        if values is None:
            return None
        try:
            config = parse_section(SimulateConfig, json.loads(values), "simulate")
        except ConfigError:
            return None
        truth = cls(config, fold)
        return truth if list(cells.var_names) == truth._genes else None

    @cached_property
    def _known(self) -> AnnData:
        region = self.fold.region
        return truth_of(self.config, (0.0, 1.0) if region is None else (region.low, region.high))

    @property
    def _genes(self) -> list[str]:
        return [str(name) for name in self._known.var_names]

    def knows(self, condition: Condition) -> bool:
        """Return whether there is such a condition: strata may have been renamed, or merged."""
        return condition in self._rows

    @cached_property
    def _rows(self) -> dict[Condition, tuple[Array, bool]]:
        known = self._known
        logs = np.log(np.asarray(known.layers["mean"], dtype=np.float64))
        is_interactive = known.obs["is_interactive"].to_numpy()
        rows = rows_of_conditions(known.obs, "control")
        return {key: (logs[row[0]], bool(is_interactive[row[0]])) for key, row in rows.items()}

    def shift(self, condition: Condition) -> Array:
        """Return the true shift, ``(n_genes,)``."""
        control = Condition(
            condition.treatment._replace(perturbation="control", dose=None), condition.stratum
        )
        return self._rows[condition][0] - self._rows[control][0]

    def shift_of_parts(self, condition: Condition) -> Array:
        """Return the sum of the true shifts of a combination's parts, ``(n_genes,)``.

        Where an interaction has a direction of its own (``simulate.interaction: own``), who has not
        seen it can expect no more than this.
        """
        treatment = condition.treatment
        parts = treatment.perturbation.split(SEPARATOR)
        singly = (treatment._replace(perturbation=part) for part in parts)
        return np.sum([self.shift(condition._replace(treatment=one)) for one in singly], axis=0)

    def kind(self, condition: Condition) -> str:
        """Return ``additive`` or ``interactive`` of a combination, and nothing of others."""
        if SEPARATOR not in condition.treatment.perturbation:
            return ""
        return INTERACTIVE if self._rows[condition][1] else ADDITIVE


def expectation_errors(
    truth: Truth,
    exam: Exam,
    expected: Mapping[str, AnnData],
    suffix: str,
    conditions: list[Condition],
) -> pd.DataFrame:
    """Return the errors of some methods and of the baselines.

    The ceiling of a combination that is seen nowhere, at no dose, is the sum of what its parts do
    in truth; other conditions have none.

    Parameters
    ----------
    truth
        What is known.
    exam
        The held-out conditions.
    expected
        Predicted cells by method, with their expectation in ``layers["mean"]``.
    suffix
        What the batches of a region have behind their names.
    conditions
        That were asked for; those that are scored have errors.

    Returns
    -------
    Columns ``method, condition`` and :data:`ERRORS`.
    """
    rows = {name: rows_of_conditions(cells.obs, exam.control) for name, cells in expected.items()}
    found = []
    for condition in conditions:
        if condition not in exam.truth or not truth.knows(_plain(condition, suffix)):
            continue
        controls = _log_proportions(_counts(exam.reference.controls(condition.stratum)))
        known = _plain(condition, suffix)
        true, kind = truth.shift(known), truth.kind(known)
        cells = {
            name: np.asarray(expected[name].layers["mean"][some[condition]], dtype=np.float64)
            for name, some in rows.items()
        }
        cells |= {
            name: _counts(one.predict(condition).cells) for name, one in exam.baselines.items()
        }
        shifts = {name: _log_proportions(some) - controls for name, some in cells.items()}
        if kind and not exam.reference.knows(condition.treatment.perturbation):
            shifts[CEILING] = truth.shift_of_parts(known)
        for name, shift in shifts.items():
            error = float(np.sqrt(np.mean((shift - true) ** 2)))
            # Of other conditions than combinations nothing is known that bounds the error.
            errors = {} if name == CEILING else {ERROR: error}
            errors |= {f"{ERROR}_{kind}": error} if kind else {}
            found.append({"method": name, "condition": str(condition), **errors})
    table = pd.DataFrame(found, columns=["method", "condition", *ERRORS])
    return table.astype(dict.fromkeys(ERRORS, np.float64))


def _counts(logged: Array) -> Array:
    """Return cells of the log space as counts; a shifted cell may be below none."""
    return np.asarray(np.clip(np.expm1(logged), 0.0, None))


def _log_proportions(counts: Array) -> Array:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    return np.asarray(np.log(np.maximum(shares.mean(axis=0), _RAREST)))


def _plain(condition: Condition, suffix: str) -> Condition:
    stratum = condition.stratum
    return condition._replace(
        stratum=Stratum(stratum.batch.removesuffix(suffix), stratum.cell_type)
    )
