"""How far the measured mean of a stratum's controls is likely to be off.

The mean of a few controls has noise, and a prediction that starts from these controls carries it
along. Controls of the same cell type in other batches tell what of it is noise: an empirical Bayes
estimate (Efron and Morris 1975, doi:10.1080/01621459.1975.10479864) draws the mean to theirs, the
more, the fewer its cells and the less batches differ.
"""

from dataclasses import dataclass

import numpy as np

_N_GROUPS = 20
_SMALLEST = 1e-4  # of the spread within conditions: batches are never taken as the same


@dataclass(frozen=True)
class ControlLevels:
    """Mean log-normalised controls of the strata of the training.

    Parameters
    ----------
    strata
        Batch and cell type, ``(S, 2)``.
    n_cells
        ``(S,)``.
    means
        ``(S, G)``.
    spread
        Standard deviation within conditions, ``(G,)``.
    between
        Variance of the true means between batches of a cell type, ``(G,)``.
    """

    strata: np.ndarray
    n_cells: np.ndarray
    means: np.ndarray
    spread: np.ndarray
    between: np.ndarray

    def correction(
        self, batch: int, cell_type: int, mean: np.ndarray, n_cells: float
    ) -> np.ndarray:
        """Return what a measured mean of controls is to be corrected by, ``(G,)``.

        Parameters
        ----------
        batch, cell_type
            Their stratum; its own entry in the table, if it has one, counts for nothing.
        mean, n_cells
            Mean log-normalised expression ``(G,)`` of so many controls.
        """
        others, precision = self._others(batch, cell_type)
        if not others.any():
            return np.zeros_like(mean)
        known = precision.sum(axis=0)
        centre = (precision * self.means[others]).sum(axis=0) / known
        noise = self.spread**2 / n_cells
        return np.asarray((centre - mean) * noise / (noise + self.between + 1.0 / known))

    def unknown(self, batch: int, cell_type: int, n_cells: float) -> np.ndarray:
        """Return the variance of a mean's noise that :meth:`correction` leaves, ``(G,)``.

        Parameters as there.
        """
        others, precision = self._others(batch, cell_type)
        noise = self.spread**2 / n_cells
        if not others.any():
            return np.asarray(noise)
        apart = self.between + 1.0 / precision.sum(axis=0)
        return np.asarray(noise * apart / (noise + apart))

    def _others(self, batch: int, cell_type: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which strata are the cell type in other batches, and their precisions."""
        others = (self.strata[:, 1] == cell_type) & (self.strata[:, 0] != batch)
        return others, 1.0 / (self.between + self.spread**2 / self.n_cells[others, None])


def between_batches(
    strata: np.ndarray, n_cells: np.ndarray, means: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Return the variance of true means between batches of a cell type, ``(G,)``.

    By the method of moments, relative to the spread within conditions and in groups of genes of
    like spread: of a single gene a few batches say little. Parameters as in
    :class:`ControlLevels`.
    """
    squares, degrees = np.zeros(means.shape[1]), 0
    for cell_type in np.unique(strata[:, 1]):
        rows = strata[:, 1] == cell_type
        n = int(rows.sum())
        rest = means[rows] - means[rows].mean(axis=0)
        noise = spread**2 * (1.0 / n_cells[rows]).sum() * (1.0 - 1.0 / n)
        squares += (rest**2).sum(axis=0) - noise
        degrees += n - 1
    relative = squares / max(degrees, 1) / spread**2
    for genes in np.array_split(np.argsort(spread, kind="stable"), _N_GROUPS):
        if len(genes):
            relative[genes] = max(float(relative[genes].mean()), _SMALLEST)
    return np.asarray(relative * spread**2)
