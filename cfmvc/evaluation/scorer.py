"""From cells to the scores of one prediction of one condition."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from cfmvc.errors import DataError
from cfmvc.evaluation.baselines import Prediction
from cfmvc.evaluation.case import Case, Truth
from cfmvc.evaluation.conditions import Condition
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.distances import Pairs, median_bandwidth
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.moments import Moments, Population, drawn_with_replacement
from cfmvc.evaluation.randomness import random_generator
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.responses import gene_weights, most_shifted, responds, welch_t
from cfmvc.evaluation.stratum_means import StratumMeans

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A condition that predictions are scored against.

    Parameters
    ----------
    condition
        Which one.
    truth
        What is true of it.
    true, controls
        Real perturbed cells and real controls of the stratum.
    draws
        Moments of true cells and controls, as they are and as other cells would have made them; the
        same for every prediction, so that differences between predictions do not carry them.
    drawn_controls
        How often each control is drawn, ``(n_draws, n_controls)``; the same for every condition of
        the stratum, which share them.
    bandwidth
        Of the kernel: the median distance among true cells and controls.
    """

    condition: Condition
    truth: Truth
    true: Population
    controls: Population
    draws: list[tuple[Moments, Moments]]
    drawn_controls: Array
    bandwidth: float


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

    def target(
        self, condition: Condition, true: Array, means: StratumMeans, n_draws: int
    ) -> Target:
        """Look at what is true of a condition.

        Parameters
        ----------
        condition
            Which one.
        true
            Its real cells in log space, shape ``(n_cells, n_genes)``.
        means
            Of the real cells of every scored condition.
        n_draws
            How often other cells are drawn.
        """
        true_cells = self._population(true, "true", condition)
        controls = self._population(
            self._reference.controls(condition.stratum), "real controls", condition
        )
        # The top genes are not known yet, and covariances are not looked at here.
        none = np.zeros(0, dtype=np.int64)
        perturbed, unperturbed = true_cells.moments(none), controls.moments(none)
        t = welch_t(perturbed, unperturbed)
        truth = Truth(
            most_shifted(t, self._config.n_top_genes),
            gene_weights(t),
            responds(perturbed, unperturbed),
            *means.beside(condition),
        )
        drawn = self._drawn(len(true), n_draws, "true", str(condition))
        of_controls = self._drawn(
            len(controls.cells), n_draws, "real controls", str(condition.stratum)
        )
        pairs = zip(
            _moments(true_cells, truth, drawn),
            _moments(controls, truth, of_controls),
            strict=True,
        )
        bandwidth = median_bandwidth(true_cells.pcs, controls.pcs)
        draws = list(pairs)
        return Target(condition, truth, true_cells, controls, draws, of_controls, bandwidth)

    def cases(self, method: str, target: Target, predicted: Prediction) -> Iterator[Case]:
        """Put a prediction beside the truth: as it is first, then with other cells on both sides.

        A prediction that is made of the real controls has the same other ones of these.

        Parameters
        ----------
        method
            Names the prediction; with the condition it seeds the choice of cells.
        target
            What is predicted.
        predicted
            The cells.
        """
        population = self._population(predicted.cells, method, target.condition, predicted.origin)
        origin = population.origin[population.of_pcs]
        pairs = Pairs(population.pcs, target.true.pcs, target.bandwidth, origin)
        drawn = target.drawn_controls
        if not predicted.of_controls:
            n_origins, n_draws = int(population.origin.max()) + 1, len(target.draws) - 1
            drawn = self._drawn(n_origins, n_draws, method, str(target.condition))
        moments = _moments(population, target.truth, drawn)
        for mine, (true, controls) in zip(moments, target.draws, strict=True):
            yield Case(mine, true, controls, pairs, target.truth)

    def scores(self, method: str, target: Target, case: Case) -> dict[str, float]:
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
                raise DataError(f"'{name}' of '{method}' for {target.condition} is {value}")
        return values

    def _population(
        self,
        cells: Array,
        name: str,
        condition: Condition,
        origin: NDArray[np.int64] | None = None,
    ) -> Population:
        chosen = np.arange(len(cells))
        if len(cells) > self._config.max_cells:
            rng = random_generator(self._config.seed, name, str(condition))
            chosen = np.sort(rng.choice(len(cells), self._config.max_cells, replace=False))
        mine = np.arange(len(cells)) if origin is None else origin
        return Population(cells, self._pca.transform(cells[chosen]), chosen, mine)

    def _drawn(self, n: int, n_draws: int, name: str, where: str) -> Array:
        rng = random_generator(self._config.seed, "draws", name, where)
        return drawn_with_replacement(n, n_draws, rng)


def _moments(cells: Population, truth: Truth, drawn: Array) -> Iterator[Moments]:
    """Yield moments of the cells as they are, and then of those that are drawn."""
    yield cells.moments(truth.top)
    yield from cells.resampled(truth.top, drawn)
