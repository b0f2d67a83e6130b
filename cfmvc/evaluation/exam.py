"""What predictions are scored against: everything that the real cells alone decide."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cfmvc.data.embeddings import EMBEDDINGS, find_embeddings
from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.errors import DataError
from cfmvc.evaluation.baselines import Baseline, Prediction, baselines_of
from cfmvc.evaluation.conditions import Condition, Rows, rows_of_conditions
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.generated import controls_of, counts_of, generated_rows, origins_of
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.result import MODEL
from cfmvc.evaluation.scorer import Scorer, Target
from cfmvc.evaluation.stratum_means import StratumMeans

Array = NDArray[np.float64]
_LEAST_ORIGINS = 2


class RealCells(Mapping[Condition, Array]):
    """Real cells of conditions, dense when one is asked for: those of all may not fit.

    Parameters
    ----------
    logged
        Log space, CSR, shape ``(n_cells, n_genes)``.
    rows
        Row numbers of each condition.
    """

    def __init__(self, logged: sparse.csr_matrix, rows: dict[Condition, Rows]) -> None:
        self._logged, self._rows = logged, rows

    def __getitem__(self, condition: Condition) -> Array:
        return self._logged[self._rows[condition]].toarray()

    def __contains__(self, condition: object) -> bool:
        return condition in self._rows  # without making its cells

    def __iter__(self) -> Iterator[Condition]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


@dataclass(frozen=True)
class Exam:
    """The held-out conditions of a data set, and the space in which they are looked at.

    Parameters
    ----------
    cells
        Prepared cells with their split.
    control
        Label of the unperturbed cells.
    config
        The ``evaluate`` section.
    library
        Median total counts, to which all cells are normalised.
    reference
        Cells outside the test split.
    scorer
        Scores in their space.
    asked
        Held-out conditions with controls, which a prediction has to answer (:meth:`parts`).
    truth
        Of those that can be scored, the real cells in log space, ``(n_cells, n_genes)``.
    skipped
        Those that cannot, and why.
    """

    cells: ad.AnnData
    control: str
    config: EvaluateConfig
    library: float
    reference: Reference
    scorer: Scorer
    asked: list[Condition]
    truth: RealCells
    skipped: pd.DataFrame

    @classmethod
    def of(cls, cells: ad.AnnData, config: EvaluateConfig, control: str, separator: str) -> "Exam":
        """Look at the real cells, as :func:`~cfmvc.evaluation.evaluate.evaluate` describes them.

        Raises
        ------
        DataError
            If no condition can be scored, or if counts are negative or not finite.
        """
        is_test = (cells.obs["split"].astype(str) == "test").to_numpy()
        counts = counts_of(cells, "real cells")
        library = median_library(counts[~is_test])
        logged = log_normalise(counts, library)
        known = rows_of_conditions(cells.obs, control, ~is_test)
        embeddings = find_embeddings(cells, EMBEDDINGS, "perturbation")
        reference = Reference(logged, known, control, separator, embeddings)
        held_out = {
            condition: rows
            for condition, rows in rows_of_conditions(cells.obs, control, is_test).items()
            if condition.treatment.perturbation != control
        }
        # also those too small to be scored
        asked = [condition for condition in held_out if condition.stratum in reference.strata]
        scored, skipped = _partition(held_out, reference, config)
        return cls(
            cells,
            control,
            config,
            library,
            reference,
            Scorer(logged[~is_test], reference, config),
            asked,
            RealCells(logged, scored),
            skipped,
        )

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """Every baseline, built from the reference."""
        return baselines_of(self.reference)

    def parts(self, most: int) -> list[list[Condition]]:
        """Return the conditions to ask for: together what was held out, if it is no more than that.

        Of more those that are scored, so many at a time.
        """
        if len(self.asked) <= most:
            return [self.asked]
        scored = list(self.truth)
        return [scored[start : start + most] for start in range(0, len(scored), most)]

    def answer(self, name: str, generated: ad.AnnData, asked: list[Condition]) -> "Answer":
        """Take cells that a method has predicted.

        Raises
        ------
        DataError
            If a condition that it was asked for has none, or counts are negative or not finite.
        """
        title = "generated cells" if name == MODEL else f"cells of '{name}'"
        rows = generated_rows(generated, self.cells, asked, self.control, title)
        logged = log_normalise(counts_of(generated, title), self.library)
        made_of = controls_of(generated, self.cells)
        return Answer(logged, rows, origins_of(generated), made_of, self.reference)

    @cached_property
    def means(self) -> StratumMeans:
        """Mean of the real cells of every scored condition."""
        return StratumMeans({name: true.mean(axis=0) for name, true in self.truth.items()})

    def target(self, condition: Condition, n_draws: int) -> Target:
        """Return what a condition's prediction is put beside."""
        return self.scorer.target(condition, self.truth[condition], self.means, n_draws)

    def score(self, generated: ad.AnnData) -> dict[str, float]:
        """Return the model's average of every metric over the scored conditions, and no more.

        No baseline, no ceiling and no interval: that takes a small part of the time of
        :func:`~cfmvc.evaluation.evaluate.evaluate`, and gives the same averages. A metric that is
        defined for no condition is left out.
        """
        answer, rows = self.answer(MODEL, generated, self.asked), []
        for condition, target in self._targets.items():
            case = next(self.scorer.cases(MODEL, target, answer.predict(condition)))
            rows.append(self.scorer.scores(MODEL, target, case))
        averages = pd.DataFrame(rows, columns=list(METRICS)).mean().dropna()
        return {str(name): float(value) for name, value in averages.items()}

    @cached_property
    def _targets(self) -> dict[Condition, Target]:
        return {condition: self.target(condition, n_draws=0) for condition in self.truth}


@dataclass(frozen=True)
class Answer:
    """Cells that were generated elsewhere, asked for like a baseline.

    ``origins`` number what each was made of, and ``made_of`` says which of the real cells that was.
    """

    logged: sparse.csr_matrix
    rows: dict[Condition, Rows]
    origins: NDArray[np.int64]
    made_of: NDArray[np.int64]
    reference: Reference

    def predict(self, condition: Condition) -> Prediction:
        """Return a condition's cells.

        Raises
        ------
        DataError
            If all of them are made of the same cell: they have no pairs to compare.
        """
        rows = self.rows[condition]
        known, origin = np.unique(self.origins[rows], return_inverse=True)
        if len(known) < _LEAST_ORIGINS:
            raise DataError(
                f"the {len(rows)} generated cells of '{condition}' are all made of one control "
                "cell (obs['control_cell']); give more controls of its batch and cell type"
            )
        cells = self.logged[rows].toarray()
        controls = pd.Index(self.reference.control_rows(condition.stratum))
        of_controls = controls.get_indexer(self.made_of[rows])
        if (of_controls >= 0).all():
            return Prediction(cells, origin=of_controls, of_controls=True)
        return Prediction(cells, origin=origin)


def _partition(
    held_out: dict[Condition, Rows], reference: Reference, config: EvaluateConfig
) -> tuple[dict[Condition, Rows], pd.DataFrame]:
    """Tell conditions that can be scored from those that cannot, for whatever method."""
    scored, skipped = {}, []
    for condition, rows in held_out.items():
        if condition.stratum not in reference.strata:
            reason = "no real control in the stratum"
        elif (n := reference.n_controls(condition.stratum)) < LEAST_CONTROLS:
            reason = f"{n} real control{'s' * (n > 1)} in the stratum; {LEAST_CONTROLS} needed"
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
