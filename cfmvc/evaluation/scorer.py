"""From cells to the scores of one prediction of one condition."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from cfmvc.errors import DataError
from cfmvc.evaluation.case import Case, top_genes
from cfmvc.evaluation.conditions import Condition
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.reference import Reference

Array = NDArray[np.float64]


class Scorer:
    """Scores predictions in a space that is fixed by the training cells.

    Parameters
    ----------
    training
        Log-space cells outside the test split, CSR; the principal components are fitted on them.
    reference
        Gives the real controls.
    """

    def __init__(
        self, training: sparse.csr_matrix, reference: Reference, config: EvaluateConfig
    ) -> None:
        self._reference = reference
        self._config = config
        n_components = min(config.n_components, min(training.shape) - 1)
        if n_components < 1:
            raise DataError(f"too few training cells or genes for a PCA: {training.shape}")
        # arpack takes CSR as it is, and centres without making it dense
        self._pca = PCA(n_components, svd_solver="arpack", random_state=config.seed).fit(training)

    def case(
        self,
        method: str,
        condition: Condition,
        predicted: Array,
        truth: Mapping[Condition, Array],
        true_deltas: Mapping[Condition, Array],
    ) -> Case:
        """Put a prediction beside the truth.

        Parameters
        ----------
        method
            Names the prediction; with the condition it seeds the choice of cells.
        condition
            What is predicted.
        predicted
            Log-space cells, shape ``(n_cells, n_genes)``.
        truth, true_deltas
            Real cells and their shifts of every scored condition.
        """
        true = truth[condition]
        controls = self._reference.controls(condition.stratum)
        others = [
            delta
            for other, delta in true_deltas.items()
            if other.stratum == condition.stratum and other != condition
        ]
        return Case(
            predicted=predicted,
            true=true,
            control_mean=self._reference.control_means[condition.stratum],
            predicted_pcs=self._project(predicted, method, condition),
            true_pcs=self._project(true, "true", condition),
            control_pcs=self._project(controls, "real controls", condition),
            top=top_genes(true, controls, self._config.n_top_genes),
            other_deltas=np.array(others).reshape(len(others), true.shape[1]),
        )

    def scores(self, method: str, condition: Condition, case: Case) -> dict[str, float]:
        """Return every metric; NaN only where a metric is not defined for the condition.

        Raises
        ------
        DataError
            If a metric that is defined is not finite.
        """
        values = {
            name: metric.of(case) if metric.is_defined(case) else float("nan")
            for name, metric in METRICS.items()
        }
        for name, value in values.items():
            if not np.isfinite(value) and METRICS[name].is_defined(case):
                raise DataError(f"'{name}' of '{method}' for {condition} is {value}")
        return values

    def _project(self, cells: Array, population: str, condition: Condition) -> Array:
        if len(cells) > self._config.max_cells:
            rng = random_generator(self._config.seed, population, str(condition))
            chosen = rng.choice(len(cells), self._config.max_cells, replace=False)
            cells = cells[np.sort(chosen)]
        return self._pca.transform(cells)


def random_generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the names alone, not on what was drawn before."""
    digest = hashlib.sha256("\n".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
