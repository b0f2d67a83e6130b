"""One stratum as both evaluations see it: the same cells, in the same log space."""

from dataclasses import dataclass, field

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.evaluation import METRICS, EvaluateConfig
from cfmvc.evaluation.baselines import Baseline, PerturbedMean
from cfmvc.evaluation.case import Case
from cfmvc.evaluation.conditions import Stratum, rows_of_conditions
from cfmvc.evaluation.generated import counts_of
from cfmvc.evaluation.moments import Moments
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.responses import welch_t
from cfmvc.evaluation.scorer import Scorer
from cfmvc.evaluation.stratum_means import StratumMeans

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sides:
    """Cells of one stratum, predicted and true, and what our metrics look at.

    Parameters
    ----------
    genes
        Names of the genes.
    controls
        Real controls in log space, shape ``(n_cells, n_genes)``.
    true, predicted
        Perturbed cells in log space by perturbation, shape ``(n_cells, n_genes)`` each.
    cases
        What :func:`cfmvc.evaluation.evaluate` scores, by perturbation.
    """

    genes: list[str]
    controls: Array = field(repr=False)
    true: dict[str, Array] = field(repr=False)
    predicted: dict[str, Array] = field(repr=False)
    cases: dict[str, Case] = field(repr=False)

    def ours(self, metric: str) -> pd.Series:
        """Return one of our metrics by perturbation; NaN where it is not defined."""
        of, is_defined = METRICS[metric].of, METRICS[metric].is_defined
        return pd.Series(
            {p: of(case) if is_defined(case) else np.nan for p, case in self.cases.items()}
        )

    def t(self, perturbation: str, side: str) -> Array:
        """Welch's t of the ``predicted`` or the ``true`` cells, by which our metrics rank genes."""
        case = self.cases[perturbation]
        cells: Moments = getattr(case, side)
        return welch_t(cells, case.controls)


def hold_out(cells: ad.AnnData, stratum: Stratum, control: str) -> ad.AnnData:
    """Return the cells with every perturbed one of the stratum marked as test."""
    marked = cells.copy()
    obs = marked.obs.astype({"batch": str, "cell_type": str, "perturbation": str})
    here = (obs["batch"] == stratum.batch) & (obs["cell_type"] == stratum.cell_type)
    marked.obs["split"] = np.where(here & (obs["perturbation"] != control), "test", "train")
    return marked


def sides_of(
    cells: ad.AnnData,
    config: EvaluateConfig,
    control: str,
    baseline: type[Baseline] = PerturbedMean,
    name: str = "perturbed_mean",
) -> Sides:
    """Look at the held-out conditions of one stratum as ``evaluate`` does.

    Parameters
    ----------
    cells
        As for :func:`cfmvc.evaluation.evaluate`; the test cells belong to one stratum.
    config, control
        The same.
    baseline, name
        What predicts, and its name, which seeds the choice of cells.
    """
    is_test = (cells.obs["split"].astype(str) == "test").to_numpy()
    counts = counts_of(cells, "real cells")
    logged = log_normalise(counts, median_library(counts[~is_test]))
    known = rows_of_conditions(cells.obs, control, ~is_test)
    reference = Reference(logged, known, control, "+")
    scorer, predictor = Scorer(logged[~is_test], reference, config), baseline(reference)
    true = {
        condition: logged[rows].toarray()
        for condition, rows in rows_of_conditions(cells.obs, control, is_test).items()
        if len(rows) >= config.min_cells
    }
    (stratum,) = {condition.stratum for condition in true}
    means = StratumMeans({condition: found.mean(axis=0) for condition, found in true.items()})
    predicted = {condition: predictor.predict(condition) for condition in true}
    cases = {
        str(condition.treatment): next(
            scorer.cases(
                name, scorer.target(condition, found, means, n_draws=0), predicted[condition]
            )
        )
        for condition, found in true.items()
    }
    return Sides(
        list(cells.var_names),
        reference.controls(stratum),
        {str(condition.treatment): found for condition, found in true.items()},
        {str(condition.treatment): found.cells for condition, found in predicted.items()},
        cases,
    )
