"""One fold and seed: the model trained on it, and every method scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from anndata import AnnData

from cfmvc.benchmark.cells import BenchmarkCells, with_obs
from cfmvc.benchmark.folds import Fold
from cfmvc.benchmark.scores import FoldScores
from cfmvc.benchmark.truth import ERROR, ERRORS, Truth, expectation_errors
from cfmvc.config import section_of
from cfmvc.data.config import SplitConfig
from cfmvc.data.prepared import held_out_conditions
from cfmvc.evaluation.conditions import Condition, rows_of_conditions
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate_in_parts
from cfmvc.evaluation.exam import Exam
from cfmvc.evaluation.result import MODEL
from cfmvc.models import Bundle
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.predict import GenerateConfig
from cfmvc.tracking.tracker import Tracker
from cfmvc.tuning.trainer import Trainer
from cfmvc.tuning.vae_store import VaeStore
from cfmvc.tuning.validation import TuningCells

SEEDED = ("vae", "flow", "joint", "generate")
_ARITHMETIC = "latent_arithmetic"
_AT_A_TIME = 100  # conditions whose virtual cells, a thousand or two of each, are held together
_CARRIED_BY: dict[str, Literal["flow", "arithmetic"]] = {MODEL: "flow", _ARITHMETIC: "arithmetic"}


@dataclass(frozen=True)
class FoldScorer:
    """Trains on folds and scores them.

    Parameters
    ----------
    data
        The cells.
    params
        All parameters.
    vaes
        Where the VAEs of folds and seeds are kept.
    black_boxes
        Folder in which the first non-finite step of a training is kept.
    """

    data: BenchmarkCells
    params: Mapping[str, Any]
    vaes: VaeStore
    black_boxes: Path

    def score(self, fold: Fold, seed: int, tracker: Tracker) -> FoldScores:
        """Train both stages with a seed on all that is not held out, and score every method.

        Raises
        ------
        DataError
            If a held-out condition that can be scored cannot be predicted: none is left out.
        """
        params = with_seed(self.params, seed)
        cells, sha256 = self.data.split(fold, section_of(params, "split", SplitConfig))
        about = TuningCells(cells, self.data.identity, sha256, fold.held_out)
        trained = Trainer(about, self.vaes, black_boxes=self.black_boxes).trained(params, tracker)
        suffix = "" if fold.region is None else f" ({fold.name})"
        design, config = self.data.design, section_of(params, "evaluate", EvaluateConfig)
        real = _apart(cells, fold, suffix)
        exam = Exam.of(real, config, design.control, design.separator)
        generate = section_of(params, "generate", GenerateConfig)
        truth, errors = Truth.of(cells, fold), list[pd.DataFrame]()
        if fold.region is not None:  # the controls of other regions are none of its own
            cells = cells[~design.is_control | fold.region.is_inside]
        # Nobody but the truth asks for expectations, which are dense.
        with_means = truth is not None
        is_whole = len(exam.parts(_AT_A_TIME)) == 1
        predictor = _Predictor(
            trained.bundle, cells, design.control, generate, suffix, with_means, is_whole
        )

        def ask(conditions: list[Condition]) -> dict[str, AnnData]:
            made = predictor.predicted(conditions)
            if truth is not None:
                errors.append(expectation_errors(truth, exam, made, suffix, conditions))
                for some in made.values():
                    del some.layers["mean"]
            return made

        evaluation = evaluate_in_parts(exam, ask, _AT_A_TIME)
        per_condition = evaluation.per_condition
        if errors:
            keys = ["method", "condition"]
            per_condition = per_condition.merge(pd.concat(errors), on=keys, how="left")
        facts = {
            "fold": fold.name,
            "held_out": fold.held_out,
            "seed": seed,
            "split_sha256": sha256,
            "nan_steps": trained.nan_steps,
            **trained.costs,
        }
        return FoldScores(
            with_errors(evaluation.averages, per_condition),
            per_condition,
            evaluation.draws,
            evaluation.skipped,
            facts,
        )


@dataclass
class _Predictor:
    """The model, and arithmetic in its latents, asked for cells of held-out conditions."""

    bundle: Bundle
    cells: AnnData
    control: str
    config: GenerateConfig
    suffix: str
    with_means: bool
    is_whole: bool  # whether one part is all
    n_asked: int = 0

    def predicted(self, conditions: list[Condition]) -> dict[str, AnnData]:
        asked = self._rows(set(conditions))
        # Other draws each time: conditions are taken for independent of each other.
        config = self.config.model_copy(update={"seed": self.config.seed + self.n_asked})
        self.n_asked += 1
        found = {
            name: predict_held_out(
                self.bundle,
                self.cells,
                self.control,
                config,
                by,
                self.with_means,
                conditions=asked,
                each_control=self.is_whole,
            ).cells
            for name, by in _CARRIED_BY.items()
        }
        for some in found.values():
            some.obs["batch"] = some.obs["batch"].astype(str) + self.suffix
        return found

    def _rows(self, conditions: set[Condition]) -> pd.DataFrame:
        known = held_out_conditions(self.cells.obs, self.control)
        known_as = known.assign(batch=known["batch"] + self.suffix)
        keys = rows_of_conditions(known_as, self.control)
        wanted = sorted(int(rows[0]) for key, rows in keys.items() if key in conditions)
        return known.iloc[wanted].reset_index(drop=True)


def with_seed(params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return parameters in which everything that trains or draws has a seed."""
    return {
        name: {**section, "seed": seed} if name in SEEDED else section
        for name, section in params.items()
    }


def with_errors(averages: pd.DataFrame, per_condition: pd.DataFrame) -> pd.DataFrame:
    """Add the means of the errors against the truth, as far as they are known."""
    if ERROR not in per_condition:
        return averages
    means = per_condition.groupby("method")[list(ERRORS)].mean().dropna(axis=1, how="all")
    return averages.join(means)


def _apart(cells: AnnData, fold: Fold, suffix: str) -> AnnData:
    """Return cells in which a region is a batch of its own, for the sake of its own controls."""
    if fold.region is None:
        return cells
    obs, batch = cells.obs.copy(), cells.obs["batch"].astype(str)
    obs["batch"] = batch.where(~fold.region.is_inside, batch + suffix)
    return with_obs(cells, obs)
