"""Score a model, the baselines and the ceiling on every held-out condition."""

from collections.abc import Callable, Mapping

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.evaluation.baselines import Baseline, Prediction
from cfmvc.evaluation.conditions import Condition
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.difficulty import difficulty
from cfmvc.evaluation.exam import Answer, Exam
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.randomness import random_generator
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation, View
from cfmvc.evaluation.scorer import Target
from cfmvc.evaluation.stratum_means import StratumMeans

Array = NDArray[np.float64]
Ask = Callable[[list[Condition]], Mapping[str, ad.AnnData]]
"""Returns what each method predicts of some conditions, by name, in the same order each time."""


def evaluate(
    cells: ad.AnnData,
    generated: ad.AnnData | None,
    config: EvaluateConfig,
    control: str,
    separator: str,
    rivals: Mapping[str, ad.AnnData] | None = None,
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
    rivals
        Cells that other methods have predicted, by the name of the method; they count as baselines.

    Raises
    ------
    DataError
        If a held-out condition has no generated cells, if no condition can be scored, or if
        counts are negative or not finite.
    """
    exam = Exam.of(cells, config, control, separator)
    every = {MODEL: generated, **(rivals or {})}
    predicted = {name: found for name, found in every.items() if found is not None}
    return evaluate_in_parts(exam, lambda conditions: predicted, len(exam.asked), with_views=True)


def evaluate_in_parts(exam: Exam, ask: Ask, most: int, with_views: bool = False) -> Evaluation:
    """As :func:`evaluate`, with predictions that are made, scored, and gone.

    Parameters
    ----------
    exam
        The real cells.
    ask
        Asked for what is predicted, part by part.
    most
        Conditions of a part (:meth:`~cfmvc.evaluation.exam.Exam.parts`).
    with_views
        Whether what pictures show of each condition is kept.

    Raises
    ------
    DataError
        As :func:`evaluate`.
    """
    run, names = _Run(exam, with_views), list[str]()
    for part in exam.parts(most):
        answers = {name: exam.answer(name, found, part) for name, found in ask(part).items()}
        names = list(answers)
        for condition in part:
            if condition in exam.truth:
                run.score_all({**answers, **exam.baselines}, condition)
        del answers  # there may be no room for these and the next ones
    run.score_ceiling()
    rivals = [name for name in names if name != MODEL]
    order = [MODEL] * (MODEL in names) + [*exam.baselines, *rivals, CEILING]
    return run.finish(order, with_dose="dose" in exam.cells.obs)


class _Run:
    """Collects the rows of the result."""

    def __init__(self, exam: Exam, with_views: bool) -> None:
        self._exam, self._with_views = exam, with_views
        self._scorer = exam.scorer
        self._config = exam.config
        self._rows: list[dict[str, object]] = []
        self._draws: list[dict[str, object]] = []
        self._chances: dict[str, dict[str, float]] = {}
        self._views: dict[str, View] = {}

    def score_all(self, methods: Mapping[str, Answer | Baseline], condition: Condition) -> None:
        target = self._exam.target(condition, self._config.n_draws)
        known = {name: metric.chance for name, metric in METRICS.items() if metric.chance}
        chances = {name: chance(target.truth) for name, chance in known.items()}
        self._chances[str(condition)] = chances
        for name, method in methods.items():
            self._score(name, target, method.predict(condition))

    def _score(self, method: str, target: Target, predicted: Prediction) -> None:
        cases = self._scorer.cases(method, target, predicted)
        case = next(cases)
        scores = self._scorer.scores(method, target, case)
        sizes = (case.true.n_cells, case.predicted.n_cells)
        self._add(method, target.condition, scores, sizes, predicted.note)
        for draw, other in enumerate(cases):
            self._add_draw(
                method, target.condition, draw, self._scorer.scores(method, target, other)
            )
        if method == MODEL and self._with_views:
            self._views[str(target.condition)] = View(
                case.true_delta,
                case.predicted_delta,
                target.truth.top,
                target.controls.pcs,
                case.pairs.b,
                case.pairs.a,
            )

    def score_ceiling(self) -> None:
        """Score half of the true cells against the other half, for every condition at once.

        All conditions are halved together, because in ``discrimination`` the deltas of the other
        perturbations have to be as noisy as the condition's own.
        """
        scores: dict[Condition, list[dict[str, float]]] = {c: [] for c in self._exam.truth}
        sizes: dict[Condition, tuple[int, int]] = {}
        for split in range(self._config.n_ceiling_splits):
            # halved twice, instead of keeping a copy of all test cells
            means = StratumMeans({c: self._halves(c, split)[1].mean(axis=0) for c in scores})
            for condition in scores:
                drawn, kept = self._halves(condition, split)
                target = self._scorer.target(condition, kept, means, n_draws=0)
                case = next(self._scorer.cases(CEILING, target, Prediction(drawn)))
                scores[condition].append(self._scorer.scores(CEILING, target, case))
                sizes[condition] = (case.true.n_cells, case.predicted.n_cells)
        for condition, found in scores.items():
            for split, one in enumerate(found):
                self._add_draw(CEILING, condition, split, one)
            table = pd.DataFrame(found)
            # a half may happen not to vary in any top gene: the mean of the halvings that do
            averages = {metric: float(table[metric].mean()) for metric in METRICS}
            self._add(CEILING, condition, averages, sizes[condition], "")

    def finish(self, order: list[str], with_dose: bool) -> Evaluation:
        table = pd.DataFrame(self._rows)
        table["method"] = pd.Categorical(table["method"], order)
        table = table.sort_values("method", kind="stable", ignore_index=True)
        table["method"] = table["method"].astype(str)
        simple = [name for name in order if name not in (MODEL, CEILING)]
        config = self._config
        how_hard = difficulty(table, simple, config.solved_at, config.resistant_below)
        table.insert(len(table.columns) - 1, "difficulty", table["condition"].map(how_hard))
        if not with_dose:
            table = table.drop(columns="dose")
        averages = table.groupby("method", sort=False)[list(METRICS)].mean()
        # A metric that is defined for the methods stays, whether or not it is for the ceiling.
        defined = averages.drop(index=CEILING).notna().all()
        averages = averages.loc[:, defined]
        draws = pd.DataFrame(self._draws, columns=["method", "condition", "draw", *METRICS])
        chance = self._chance(table).reindex(averages.columns).fillna(averages.loc["control"])
        return Evaluation(table, averages, chance, self._exam.skipped, self._views, draws, config)

    def _chance(self, table: pd.DataFrame) -> pd.Series:
        """Return the chance levels, averaged over the conditions in which a metric is defined."""
        known = pd.DataFrame.from_dict(self._chances, orient="index")
        scored = table[table["method"] == "control"].set_index("condition")[list(known.columns)]
        return known.where(scored.notna()).mean()

    def _halves(self, condition: Condition, split: int) -> tuple[Array, Array]:
        """Return the drawn and the kept half of a condition's real cells, the same each time."""
        true = self._exam.truth[condition]
        rng = random_generator(self._config.seed, CEILING, str(split), str(condition))
        order = rng.permutation(len(true))
        return true[order[: len(true) // 2]], true[order[len(true) // 2 :]]

    def _add_draw(
        self, method: str, condition: Condition, draw: int, scores: dict[str, float]
    ) -> None:
        self._draws.append({"method": method, "condition": str(condition), "draw": draw, **scores})

    def _add(
        self,
        method: str,
        condition: Condition,
        scores: dict[str, float],
        sizes: tuple[int, int],
        note: str,
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
                "n_true": sizes[0],
                "n_predicted": sizes[1],
                "note": note,
            }
        )
