"""Score a model, the baselines and the ceiling on every held-out condition."""

from dataclasses import dataclass, field

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.errors import DataError
from cfmvc.evaluation.baselines import BASELINES
from cfmvc.evaluation.case import Case
from cfmvc.evaluation.conditions import Condition, Rows, rows_of_conditions
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.generated import counts_of, generated_rows
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.normalise import log_normalise, median_library
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.scorer import Scorer, random_generator

Array = NDArray[np.float64]
MODEL = "model"
CEILING = "ceiling"


@dataclass(frozen=True)
class View:
    """What a picture of one predicted condition shows."""

    true_delta: Array
    predicted_delta: Array
    top: NDArray[np.int64]
    control_pcs: Array
    true_pcs: Array
    predicted_pcs: Array


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Parameters
    ----------
    per_condition
        One row a method and condition: ``method, condition, perturbation, batch, cell_type``
        (``dose`` where the data have it), the metrics, ``n_true``, ``n_predicted``, ``note``.
        A metric is NaN where it is not defined, e.g. ``discrimination`` in a stratum with one
        held-out perturbation.
    averages
        Index: methods, the model first and the ceiling last. Columns: the metrics that are
        defined for some condition; means over those conditions.
    skipped
        ``condition, n_true, reason`` of test conditions that could not be scored for any method.
    views
        Of the model's predictions, by the name of the condition.
    """

    per_condition: pd.DataFrame
    averages: pd.DataFrame
    skipped: pd.DataFrame
    views: dict[str, View] = field(repr=False)

    @property
    def n_conditions(self) -> int:
        """Number of conditions that were scored."""
        return int(self.per_condition["condition"].nunique())


def evaluate(
    cells: ad.AnnData,
    generated: ad.AnnData | None,
    config: EvaluateConfig,
    control: str,
    separator: str,
) -> Evaluation:
    """Score predicted cells as ``METRICS.md`` defines it.

    Parameters
    ----------
    cells
        Prepared cells: ``layers["counts"]``, ``obs`` with ``perturbation``, ``batch``,
        ``cell_type``, optionally ``dose``, and ``split``. Whatever is not ``test`` is the
        reference: library size, principal components, controls and baselines come from there.
    generated
        Predicted cells, same genes and columns, sampled counts in ``layers["counts"]``. Controls
        among them are ignored. None: the baselines and the ceiling only.
    config
        The ``evaluate`` section.
    control, separator
        Label of the unperturbed cells, and what joins the parts of a combination.

    Raises
    ------
    DataError
        If a held-out condition has no generated cells, if no condition can be scored, or if
        counts are negative or not finite.
    """
    is_test = (cells.obs["split"].astype(str) == "test").to_numpy()
    counts = counts_of(cells, "real cells")
    library = median_library(counts[~is_test])
    logged = log_normalise(counts, library)
    reference = Reference(
        logged, rows_of_conditions(cells.obs, control, ~is_test), control, separator
    )
    held_out = {
        condition: rows
        for condition, rows in rows_of_conditions(cells.obs, control, is_test).items()
        if condition.treatment.perturbation != control
    }
    # every held-out condition that has controls is asked for, also those too small to be scored
    asked = [condition for condition in held_out if condition.stratum in reference.strata]
    predicted_rows = (
        generated_rows(generated, cells, asked, control) if generated is not None else {}
    )
    scored, skipped = _partition(held_out, reference, config)
    run = _Run(
        reference,
        Scorer(logged[~is_test], reference, config),
        config,
        {condition: logged[rows].toarray() for condition, rows in scored.items()},
    )
    if generated is not None:
        predicted = log_normalise(counts_of(generated, "generated cells"), library)
        for condition in scored:
            run.score(MODEL, condition, predicted[predicted_rows[condition]].toarray())
    for name, baseline in BASELINES.items():
        predictor = baseline(reference)
        for condition in scored:
            run.score(name, condition, *predictor.predict(condition))
    run.score_ceiling()
    return run.finish(skipped, with_dose="dose" in cells.obs)


class _Run:
    """Collects the rows of the result."""

    def __init__(
        self,
        reference: Reference,
        scorer: Scorer,
        config: EvaluateConfig,
        truth: dict[Condition, Array],
    ) -> None:
        self._reference = reference
        self._scorer = scorer
        self._config = config
        self._truth = truth
        self._deltas = self._deltas_of(truth)
        self._rows: list[dict[str, object]] = []
        self._views: dict[str, View] = {}

    def score(self, method: str, condition: Condition, predicted: Array, note: str = "") -> None:
        case = self._scorer.case(method, condition, predicted, self._truth, self._deltas)
        self._add(method, condition, self._scorer.scores(method, condition, case), case, note)
        if method == MODEL:
            self._views[str(condition)] = View(
                case.true_delta,
                case.predicted_delta,
                case.top,
                case.control_pcs,
                case.true_pcs,
                case.predicted_pcs,
            )

    def score_ceiling(self) -> None:
        """Score half of the true cells against the other half, for every condition at once.

        All conditions are halved together, because in ``discrimination`` the deltas of the other
        perturbations have to be as noisy as the condition's own.
        """
        halvings = [self._halve(split) for split in range(self._config.n_ceiling_splits)]
        deltas = [self._deltas_of(kept) for _, kept in halvings]
        for condition in self._truth:
            scores = []
            for (drawn, kept), true_deltas in zip(halvings, deltas, strict=True):
                case = self._scorer.case(CEILING, condition, drawn[condition], kept, true_deltas)
                scores.append(self._scorer.scores(CEILING, condition, case))
            table = pd.DataFrame(scores)
            # a half may happen not to vary in any top gene: the mean of the halvings that do
            means = {metric: float(table[metric].mean()) for metric in METRICS}
            self._add(CEILING, condition, means, case, "")

    def finish(self, skipped: pd.DataFrame, with_dose: bool) -> Evaluation:
        table = pd.DataFrame(self._rows)
        if not with_dose:
            table = table.drop(columns="dose")
        averages = table.groupby("method", sort=False)[list(METRICS)].mean().dropna(axis=1)
        return Evaluation(table, averages, skipped, self._views)

    def _halve(self, split: int) -> tuple[dict[Condition, Array], dict[Condition, Array]]:
        drawn, kept = {}, {}
        for condition, true in self._truth.items():
            rng = random_generator(self._config.seed, CEILING, str(split), str(condition))
            order = rng.permutation(len(true))
            drawn[condition] = true[order[: len(true) // 2]]
            kept[condition] = true[order[len(true) // 2 :]]
        return drawn, kept

    def _deltas_of(self, truth: dict[Condition, Array]) -> dict[Condition, Array]:
        return {
            condition: true.mean(axis=0) - self._reference.control_means[condition.stratum]
            for condition, true in truth.items()
        }

    def _add(
        self, method: str, condition: Condition, scores: dict[str, float], case: Case, note: str
    ) -> None:
        self._rows.append(
            {
                "method": method,
                "condition": str(condition),
                "perturbation": condition.treatment.perturbation,
                "dose": condition.treatment.dose,
                "batch": condition.stratum.batch,
                "cell_type": condition.stratum.cell_type,
                **scores,
                "n_true": len(case.true),
                "n_predicted": len(case.predicted),
                "note": note,
            }
        )


def _partition(
    held_out: dict[Condition, Rows], reference: Reference, config: EvaluateConfig
) -> tuple[dict[Condition, Rows], pd.DataFrame]:
    """Tell conditions that can be scored from those that cannot, for whatever method."""
    scored, skipped = {}, []
    for condition, rows in held_out.items():
        if condition.stratum not in reference.strata:
            reason = "no real control in the stratum"
        elif len(reference.controls(condition.stratum)) < 2:
            reason = "1 real control in the stratum; 2 needed"
        elif len(rows) < config.min_cells:
            reason = f"{len(rows)} real cells; evaluate.min_cells is {config.min_cells}"
        else:
            scored[condition] = rows
            continue
        skipped.append({"condition": str(condition), "n_true": len(rows), "reason": reason})
    if not scored:
        why = "; ".join(f"{row['condition']}: {row['reason']}" for row in skipped[:12])
        raise DataError(
            f"no held-out condition can be scored. {why or 'No test cell is perturbed'}"
        )
    return scored, pd.DataFrame(skipped, columns=["condition", "n_true", "reason"])
