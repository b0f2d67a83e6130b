from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc.evaluation import EvaluateConfig
from cfmvc.evaluation.case import Case, Truth
from cfmvc.evaluation.distances import Pairs, median_bandwidth
from cfmvc.evaluation.moments import Moments, Population
from cfmvc.evaluation.responses import gene_weights, most_shifted, responds, welch_t

CONFIG = EvaluateConfig(
    n_top_genes=50,
    n_components=5,
    max_cells=60,
    min_cells=8,
    n_ceiling_splits=2,
    n_draws=3,
    n_bootstrap=200,
    confidence=0.95,
    solved_at=0.9,
    resistant_below=0.5,
    seed=0,
)


@pytest.fixture
def config() -> EvaluateConfig:
    return CONFIG


def population_of(cells: np.ndarray) -> Population:
    """Cells whose genes are the principal components, each of an origin of its own."""
    every = np.arange(len(cells))
    return Population(cells, cells, every, every)


def moments_of(cells: np.ndarray) -> Moments:
    """Moments of cells of which nothing else is looked at."""
    return population_of(cells).moments(np.zeros(0, dtype=np.int64))


def case_of(
    predicted: np.ndarray, true: np.ndarray, controls: np.ndarray, others: np.ndarray | None = None
) -> Case:
    """A case in which the genes are the principal components."""
    own, unperturbed = moments_of(true), moments_of(controls)
    t = welch_t(own, unperturbed)
    top = most_shifted(t, 50)
    others = np.zeros((0, true.shape[1])) if others is None else others
    truth = Truth(
        top,
        gene_weights(t),
        responds(own, unperturbed),
        controls.mean(axis=0) + others,
        np.arange(len(others)),
    )
    moments = [population_of(cells).moments(top) for cells in (predicted, true, controls)]
    pairs = Pairs(predicted, true, median_bandwidth(true, controls))
    return Case(*moments, pairs, truth)


def population(
    rng: np.random.Generator, n_cells: int, means: np.ndarray, **obs: object
) -> tuple[np.ndarray, pd.DataFrame]:
    """Poisson counts around the means, and their obs."""
    counts = rng.poisson(means, size=(n_cells, len(means)))
    return counts, pd.DataFrame({name: [value] * n_cells for name, value in obs.items()})


def assemble(parts: Sequence[tuple[np.ndarray, pd.DataFrame]]) -> ad.AnnData:
    counts = np.concatenate([part for part, _ in parts])
    obs = pd.concat([part for _, part in parts], ignore_index=True)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return ad.AnnData(
        obs=obs,
        var=pd.DataFrame(index=[f"gene{i}" for i in range(counts.shape[1])]),
        layers={"counts": sparse.csr_matrix(counts.astype(np.float32))},
    )


def screen(rng: np.random.Generator, n_genes: int = 30, n_cells: int = 40) -> ad.AnnData:
    """Two batches, two cell types, perturbations A and B; both held out in (b2, T)."""
    base = rng.uniform(1, 6, n_genes)
    effect = {"control": np.ones(n_genes), "A": np.ones(n_genes), "B": np.ones(n_genes)}
    effect["A"][:8] = 3.0
    effect["B"][8:16] = 0.2
    parts = []
    for batch in ("b1", "b2"):
        for cell_type in ("T", "B"):
            tilt = np.where(np.arange(n_genes) % 2 == (cell_type == "T"), 1.5, 1.0)
            for label, factor in effect.items():
                is_test = label != "control" and (batch, cell_type) == ("b2", "T")
                parts.append(
                    population(
                        rng,
                        n_cells,
                        base * tilt * factor,
                        perturbation=label,
                        batch=batch,
                        cell_type=cell_type,
                        split="test" if is_test else "train",
                    )
                )
    return assemble(parts)
