"""The flow's targets, with the noise taken out of the conditions' means."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from cfmvc.flow.condition_kernels import Conditions, StateBasis
from cfmvc.flow.mean_shifts import MeanShifts, expected_shifts
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.reference import ReferenceCells

Key = tuple[bytes, int, int]  # perturbation vector, batch, cell type
_SMALLEST_SPREAD = 1e-6


def denoised(
    model: CFMVCModel, training: ReferenceCells
) -> Callable[[ReferenceCells], ReferenceCells]:
    """Return a function that moves the cells of each training condition to its expected mean.

    Within a condition all cells are moved alike: what differs between them stays. Controls, and
    conditions without controls in their stratum, stay as they are.

    Parameters
    ----------
    model
        Gives the units of the latents.
    training
        Encoded training cells.
    """
    table = _Means.of(model, training.select(training.is_finite))
    perturbed = [n for n, key in enumerate(table.keys) if table.control_of(key) not in (None, n)]
    if not perturbed:
        return lambda cells: cells
    measured = table.shifts(perturbed)
    moves = (expected_shifts(measured) - measured.shift) * table.spread
    by_key = {table.keys[n]: move for n, move in zip(perturbed, moves, strict=True)}

    def moved(cells: ReferenceCells) -> ReferenceCells:
        means = cells.int_mean.clone()
        for rows, key in _conditions(cells):
            if key in by_key:
                means[rows] += torch.from_numpy(by_key[key]).to(means) * model.latent_std
        return replace(cells, int_mean=means)

    return moved


@dataclass(frozen=True)
class _Means:
    """Means of all conditions in standardised latents, and the spread within them, ``(D,)``."""

    keys: list[Key]
    vectors: np.ndarray
    means: np.ndarray
    n_cells: np.ndarray
    spread: np.ndarray
    controls: dict[tuple[int, int], int]

    @classmethod
    def of(cls, model: CFMVCModel, cells: ReferenceCells) -> "_Means":
        z = model.standardise(cells.int_mean).double().cpu().numpy()
        vectors = cells.vectors.double().cpu().numpy()
        vectors = vectors / max(vectors.max(initial=0.0), 1.0)
        keys, kinds, means, sizes, squares = [], [], [], [], np.zeros(z.shape[1])
        for rows, key in _conditions(cells):
            some = z[rows.cpu().numpy()]
            keys.append(key)
            kinds.append(vectors[int(cells.vector[rows[0]])])
            means.append(some.mean(axis=0))
            sizes.append(len(some))
            squares += ((some - means[-1]) ** 2).sum(axis=0)
        n_free = max(sum(sizes) - len(sizes), 1)
        spread = np.sqrt(squares / n_free).clip(_SMALLEST_SPREAD)
        p = np.asarray(kinds).reshape(len(keys), -1)
        is_control = ~p.any(axis=1)
        controls = {keys[n][1:]: n for n in np.flatnonzero(is_control).tolist()}
        return cls(keys, p, np.asarray(means), np.asarray(sizes), spread, controls)

    def control_of(self, key: Key) -> int | None:
        return self.controls.get(key[1:])

    def shifts(self, rows: list[int]) -> MeanShifts:
        controls = [self.controls[self.keys[row][1:]] for row in rows]
        scaled = self.means / self.spread
        strata = sorted(set(controls))
        p = self.vectors[rows]
        conditions = Conditions(
            p,
            np.asarray([self.keys[row][1] for row in rows]),
            np.asarray([self.keys[row][2] for row in rows]),
            self.n_cells[rows],
            self.n_cells[controls],
            StateBasis.of(scaled[strata]).scores(scaled[controls]),
            np.zeros((len(rows), 0)),
        )
        return MeanShifts(scaled[rows] - scaled[controls], conditions)


def _conditions(cells: ReferenceCells) -> list[tuple[torch.Tensor, Key]]:
    """Return the rows of each condition, and what tells it from others."""
    member = cells.condition
    by_condition = torch.argsort(member, stable=True)
    groups = by_condition.split(torch.bincount(member).tolist()) if len(cells) else ()
    return [(rows, _key(cells, int(rows[0]))) for rows in groups]


def _key(cells: ReferenceCells, row: int) -> Key:
    vector = cells.vectors[int(cells.vector[row])].cpu().numpy().tobytes()
    return vector, int(cells.batch[row]), int(cells.cell_type[row])
