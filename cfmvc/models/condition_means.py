"""Means of the training conditions, of which the mean response is learnt."""

from dataclasses import dataclass

import numpy as np

from cfmvc.flow.doses import DoseCurves, learnt_curves
from cfmvc.flow.kept_conditions import MOST_CONDITIONS, foremost, whole_groups

SMALLEST_SPREAD = 1e-2


@dataclass(frozen=True)
class ConditionMeans:
    """Mean log-normalised expression of conditions.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``; zero for controls.
    batch, cell_type
        Column numbers, ``(n,)``.
    n_cells
        ``(n,)``.
    means
        ``(n, G)``.
    """

    p: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    n_cells: np.ndarray
    means: np.ndarray

    @property
    def strata(self) -> np.ndarray:
        """Batch and cell type, ``(n, 2)``."""
        return np.stack([self.batch, self.cell_type], axis=1)

    def beside_controls(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that are perturbed beside controls, and those of their controls."""
        is_control = ~self.p.any(axis=1)
        keys = list(map(tuple, self.strata.tolist()))
        of_stratum = {keys[row]: row for row in np.flatnonzero(is_control).tolist()}
        perturbed = np.flatnonzero(~is_control).tolist()
        measured = [row for row in perturbed if keys[row] in of_stratum]
        beside = [of_stratum[keys[row]] for row in measured]
        return np.asarray(measured, np.int64), np.asarray(beside, np.int64)


def remembered(
    kind: np.ndarray, is_control: np.ndarray, strata: np.ndarray, n_cells: np.ndarray
) -> np.ndarray:
    """Return the conditions that are learnt from, in order: controls, and perturbed beside them.

    Of more perturbed ones than a response remembers not even the vectors and the shifts are made:
    they are conditions times perturbations, and times genes.

    Parameters
    ----------
    kind
        A number of each one's perturbation, ``(n,)``.
    is_control
        ``(n,)`` bool.
    strata
        Batch and cell type, ``(n, 2)``.
    n_cells
        ``(n,)``.
    """
    perturbed = _beside_controls(is_control, strata)
    kept = foremost(kind[perturbed], n_cells[perturbed], MOST_CONDITIONS)
    return np.sort(np.concatenate([np.flatnonzero(is_control), perturbed[kept]]))


def with_all_doses(
    kind: np.ndarray, is_control: np.ndarray, strata: np.ndarray, n_cells: np.ndarray
) -> np.ndarray:
    """Return the conditions that tell of doses: all of a perturbation in a stratum, or none.

    As :func:`remembered`, but ``kind`` is a number of the perturbations whatever their dose.
    """
    perturbed = _beside_controls(is_control, strata)
    keys = np.column_stack([kind, strata])[perturbed]
    group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    kept = whole_groups(kind[perturbed], group, n_cells[perturbed], MOST_CONDITIONS)
    return np.sort(np.concatenate([np.flatnonzero(is_control), perturbed[kept]]))


def _beside_controls(is_control: np.ndarray, strata: np.ndarray) -> np.ndarray:
    with_controls = set(map(tuple, strata[is_control].tolist()))
    has_controls = np.asarray([tuple(stratum) in with_controls for stratum in strata.tolist()])
    return np.flatnonzero(~is_control & has_controls)


def curves_of(cells: ConditionMeans, spread: np.ndarray, largest: np.ndarray) -> DoseCurves:
    """Return how strongly doses act, as the means tell.

    Parameters
    ----------
    cells
        Conditions of the training, all of its controls among them.
    spread
        Standard deviation within conditions, ``(G,)``.
    largest
        Largest dose of each perturbation in the training, ``(K,)``.
    """
    measured, beside = cells.beside_controls()
    seen = spread > SMALLEST_SPREAD  # what no cell shows would be less noise than there is
    shift = (cells.means[measured] - cells.means[beside])[:, seen] / spread[seen]
    sizes = cells.n_cells[measured], cells.n_cells[beside]
    return learnt_curves(cells.p[measured], largest, shift, beside, *sizes)
