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
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
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
            If a held-out condition cannot be predicted: none is ever left out.
        """
        params = with_seed(self.params, seed)
        cells, sha256 = self.data.split(fold, section_of(params, "split", SplitConfig))
        about = TuningCells(cells, self.data.identity, sha256, fold.held_out)
        trained = Trainer(about, self.vaes, black_boxes=self.black_boxes).trained(params, tracker)
        suffix = "" if fold.region is None else f" ({fold.name})"
        truth = Truth.of(cells, fold)
        # Nobody else asks for expectations, which are dense.
        with_means = truth is not None
        predicted = self._predicted(trained.bundle, cells, fold, params, suffix, with_means)
        real = _apart(cells, fold, suffix)
        design, config = self.data.design, section_of(params, "evaluate", EvaluateConfig)
        names = (design.control, design.separator)
        rivals = {_ARITHMETIC: predicted[_ARITHMETIC]}
        evaluation = evaluate(real, predicted[MODEL], config, *names, rivals=rivals)
        per_condition = evaluation.per_condition
        if truth is not None:
            exam = Exam.of(real, config, *names)
            errors = expectation_errors(truth, exam, predicted, suffix)
            per_condition = per_condition.merge(errors, on=["method", "condition"], how="left")
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

    def _predicted(
        self,
        bundle: Bundle,
        cells: AnnData,
        fold: Fold,
        params: Mapping[str, Any],
        suffix: str,
        with_means: bool,
    ) -> dict[str, AnnData]:
        """Return the cells of the model and of arithmetic in its latents."""
        generate, design = section_of(params, "generate", GenerateConfig), self.data.design
        if fold.region is not None:  # the controls of other regions are none of its own
            cells = cells[~design.is_control | fold.region.is_inside]
        found = {
            name: predict_held_out(bundle, cells, design.control, generate, by, with_means).cells
            for name, by in _CARRIED_BY.items()
        }
        for some in found.values():
            some.obs["batch"] = some.obs["batch"].astype(str) + suffix
        return found


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
