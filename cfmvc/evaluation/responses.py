"""Which genes respond: Welch's test between perturbed cells and the real controls."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cfmvc.evaluation.moments import Moments

Array = NDArray[np.float64]
_FALSE_DISCOVERIES = 0.05


def welch_t(cells: Moments, controls: Moments) -> Array:
    """Welch's t of each gene against the controls, shape ``(n_genes,)``.

    0 for a gene that is constant in both.
    """
    difference = cells.mean - controls.mean
    error = np.sqrt(cells.variance / cells.n_cells + controls.variance / controls.n_cells)
    # both constant but different: the shift is beyond doubt, yet only its sign is known
    constant = np.where(np.abs(difference) > 1e-12, np.copysign(np.inf, difference), 0.0)
    return np.divide(difference, error, out=constant, where=error > 1e-12)


def responds(perturbed: Moments, controls: Moments) -> NDArray[np.bool_]:
    """Return which genes differ at a false discovery rate of 5 % (Benjamini and Hochberg 1995)."""
    t = welch_t(perturbed, controls)
    parts = (
        perturbed.variance / perturbed.n_cells,
        controls.variance / controls.n_cells,
    )
    below = parts[0] ** 2 / (perturbed.n_cells - 1) + parts[1] ** 2 / (controls.n_cells - 1)
    # Welch and Satterthwaite; where nothing varies, t is 0 or infinite whatever the freedom
    freedom = np.divide((parts[0] + parts[1]) ** 2, below, out=np.ones_like(t), where=below > 0)
    p = 2 * stats.t.sf(np.abs(t), freedom)
    return np.asarray(stats.false_discovery_control(p) < _FALSE_DISCOVERIES)


def most_shifted(t: Array, n_top: int) -> NDArray[np.int64]:
    """Return the genes of largest ``|t|``.

    At most half of the panel, at least one; ties go to the gene that comes first.
    """
    n_kept = max(1, min(n_top, len(t) // 2))
    return np.argsort(-np.abs(t), kind="stable")[:n_kept]


def gene_weights(t: Array) -> Array:
    """Return weights that stress the genes that respond, adding up to 1 (Mejia 2025).

    ``|t|`` scaled to [0, 1] over the genes, squared, and divided by the sum; all alike where no
    gene stands out.
    """
    size = np.abs(t)
    is_finite = np.isfinite(size)
    size = np.where(is_finite, size, size[is_finite].max(initial=1.0))
    scaled = (size - size.min()) / (np.ptp(size) or 1.0)
    weights = scaled**2 if scaled.any() else np.ones_like(scaled)
    return weights / weights.sum()


def expected_share(ranked: NDArray[np.int64], n_top: int, is_hit: NDArray[np.bool_]) -> float:
    """Return which share of the first ``n_top`` genes are hits.

    Parameters
    ----------
    ranked
        The first genes, ``n_top`` at most. Are they fewer, the rest is in no order, and counts as
        it would if drawn at random.
    n_top
        How many are looked at.
    is_hit
        Shape ``(n_genes,)``.
    """
    n_hits = int(is_hit[ranked].sum())
    n_open = n_top - len(ranked)
    by_luck = n_open * (int(is_hit.sum()) - n_hits) / max(len(is_hit) - len(ranked), 1)
    return (n_hits + by_luck) / n_top
