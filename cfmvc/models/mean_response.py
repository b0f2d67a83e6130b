"""The mean response that a condition is expected to have, in log-normalised expression.

What simple regressions know, as a part of the model: the flow says how single cells move, and their
mean is brought to where related conditions let it be expected (:mod:`cfmvc.models.calibration`).
Ridge regression on the perturbation and the state of the stratum's controls is a special case.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cfmvc.flow.combination_gain import combination_gain, gains_of
from cfmvc.flow.condition_kernels import Conditions, StateBasis
from cfmvc.flow.doses import DoseCurves, largest_doses
from cfmvc.flow.own_level import slopes
from cfmvc.flow.shift_process import ShiftProcess
from cfmvc.flow.state_slopes import PairedCells, StateSlopes, level_of_cell_types
from cfmvc.models.condition_means import SMALLEST_SPREAD, ConditionMeans
from cfmvc.models.control_levels import ControlLevels, between_batches


@dataclass(frozen=True)
class AskedShifts:
    """Conditions whose shifts are asked for.

    Parameters
    ----------
    p, batch, cell_type
        As in :class:`ConditionMeans`.
    controls, n_controls
        Mean log-normalised controls of their strata, ``(n, G)``, and how many they are, ``(n,)``.
    """

    p: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    controls: np.ndarray
    n_controls: np.ndarray


@dataclass(frozen=True)
class MeanResponse:
    """Expected mean shifts.

    Parameters
    ----------
    process
        Learnt from the training conditions, shifts in units of ``spread``.
    by_state
        What shifts have beyond it, for the state of the cell type.
    basis
        In which the state of controls is described.
    spread
        Standard deviation within conditions, ``(G,)``.
    level
        Mean over strata of the controls, ``(G,)``.
    slope
        Change of the shift with the level in the controls, ``(K,)``.
    doses
        How strongly the doses of each perturbation act.
    gain
        How strongly each part of a combination acts, beside how it acts alone, ``(1,)``.
    strata, n_controls, controls
        Batch and cell type ``(S, 2)``, number of controls ``(S,)`` and their mean ``(S, G)`` of the
        strata of the training.
    deviation
        Of each perturbation's embedding from the middle of all, ``(K, E)``.
    origin
        Deviation of the embedding that is zero, ``(E,)``.
    between
        Variance of the true means of controls between batches of a cell type, ``(G,)``.
    share
        How far the mean of virtual cells is brought from the flow's to what is expected, ``(1,)``.
    """

    process: ShiftProcess
    by_state: StateSlopes
    basis: StateBasis
    spread: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    doses: DoseCurves
    gain: np.ndarray
    strata: np.ndarray
    n_controls: np.ndarray
    controls: np.ndarray
    deviation: np.ndarray
    origin: np.ndarray
    between: np.ndarray
    share: np.ndarray

    @classmethod
    def fit(
        cls,
        cells: ConditionMeans,
        spread: np.ndarray,
        deviation: np.ndarray,
        pairs: PairedCells | None = None,
        doses: DoseCurves | None = None,
        origin: np.ndarray | None = None,
    ) -> "MeanResponse | None":
        """Learn from the means of the training conditions; None where no shift was measured.

        The cost is cubic in them: of many, give those that :func:`remembered` chooses.

        Parameters
        ----------
        cells
            Conditions of the training, all of its controls among them.
        spread
            Standard deviation within conditions, ``(G,)``.
        deviation
            Of each perturbation's embedding from the middle of all, ``(K, E)``, at most of length
            1; E is 0 where there are none.
        pairs
            Cells of the training, paired.
        doses
            How strongly doses act; not given: in proportion, relative to the largest of ``cells``.
        origin
            Deviation of the embedding that is zero, ``(E,)``, if that is not the middle.
        """
        measured, beside = cells.beside_controls()
        if not len(measured):
            return None
        controls, strata = np.flatnonzero(~cells.p.any(axis=1)), cells.strata
        spread = spread.clip(SMALLEST_SPREAD)
        doses = doses or DoseCurves.straight(largest_doses(cells.p))
        origin = np.zeros(deviation.shape[1]) if origin is None else origin
        basis = StateBasis.of(cells.means[controls], cells.n_cells[controls])
        p = doses.strength(cells.p[measured])
        shift, level = cells.means[measured] - cells.means[beside], cells.means[beside]
        slope = slopes(p, shift, level, (spread**2).sum() / cells.n_cells[beside], beside)
        centre = cells.means[controls].mean(axis=0)
        sizes = cells.n_cells[measured], cells.n_cells[beside]
        seen = spread > SMALLEST_SPREAD  # what no cell shows would be less noise than there is
        gain = np.asarray([combination_gain(p, (shift / spread)[:, seen], beside, *sizes)])
        gains = gains_of(p, gain[0])
        conditions = Conditions(
            p,
            cells.batch[measured],
            cells.cell_type[measured],
            *sizes,
            basis.scores(level),
            gains[:, None] * _from_origin(p, deviation, origin),
            gains[:, None] * (p @ deviation),
            gains,
        )
        kinds = level_of_cell_types(
            cells.cell_type[controls], cells.n_cells[controls], cells.means[controls]
        )
        by_state = StateSlopes.fit(*kinds, pairs, doses)
        rest = shift - _together(p, gains, slope)[:, None] * (level - centre)
        rest -= gains[:, None] * by_state.shifts(p, conditions.cell_type, level)
        return cls(
            ShiftProcess.fit(conditions, rest / spread),
            by_state,
            basis,
            spread,
            centre,
            slope,
            doses,
            gain,
            strata[controls],
            cells.n_cells[controls],
            cells.means[controls].astype(np.float32),
            deviation,
            origin,
            between_batches(
                strata[controls], cells.n_cells[controls], cells.means[controls], spread
            ),
            np.ones(1),
        )

    def with_share(self, share: float) -> "MeanResponse":
        """Return the same with another share."""
        return replace(self, share=np.asarray([share]))

    @property
    def columns(self) -> np.ndarray:
        """Which perturbation columns it has learnt of, ``(K,)`` bool."""
        return np.asarray(self.process.conditions.p.any(axis=0))

    def controls_of(self, batch: int, cell_type: int) -> tuple[np.ndarray, int] | None:
        """Return mean and number of the training controls of a stratum; None where it has none."""
        found = np.flatnonzero((self.strata == (batch, cell_type)).all(axis=1))
        return (self.controls[found[0]], int(self.n_controls[found[0]])) if len(found) else None

    def expected(self, asked: AskedShifts) -> np.ndarray:
        """Return the expected shifts of conditions, ``(n, G)``; exactly 0 for no perturbation."""
        conditions = self._conditions(asked)
        own = self._own(conditions, asked.controls)
        return np.asarray(self.process.expected(conditions) * self.spread + own)

    def left_out(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return measured shifts, and what the other ones let expect there, ``(n_rows, G)`` each.

        Parameters
        ----------
        rows
            Of the process's conditions, ``(n_rows,)``.
        """
        some = self.process.conditions.rows(rows)
        strata = zip(some.batch.tolist(), some.cell_type.tolist(), strict=True)
        controls = np.stack([known[0] for s in strata if (known := self.controls_of(*s))])
        own = self._own(some, controls)
        measured = self.process.shift[rows] * self.spread + own
        return measured, self.process.left_out(rows) * self.spread + own

    def corrections(self, asked: AskedShifts) -> np.ndarray:
        """Return what the noise of the measured controls adds to the shifts, ``(n, G)``.

        Exactly 0 for no perturbation, and where the training has a shift from the same controls:
        there :meth:`expected` knows their noise by it.
        """
        return self._of_new_controls(
            asked,
            lambda row, stratum: self._levels.correction(
                *stratum, asked.controls[row], float(asked.n_controls[row])
            ),
        )

    def uncertainty(self, asked: AskedShifts) -> np.ndarray:
        """Return the standard deviations of the shifts around what is expected, ``(n, G)``.

        Shifts are those from the controls that were asked with, whose noise is never all known.
        """
        of_process = self.process.spread(self._conditions(asked)) * self.spread
        of_controls = self._of_new_controls(
            asked, lambda row, stratum: self._levels.unknown(*stratum, float(asked.n_controls[row]))
        )
        return np.asarray(np.sqrt(of_process**2 + of_controls))

    @property
    def _levels(self) -> ControlLevels:
        return ControlLevels(self.strata, self.n_controls, self.controls, self.spread, self.between)

    def _of_new_controls(
        self, asked: AskedShifts, of: Callable[[int, tuple[int, int]], np.ndarray]
    ) -> np.ndarray:
        """Return something for each perturbed condition whose controls no shift was taken from.

        Shape ``(n, G)``, and 0 elsewhere; ``of`` is asked with the first row of each stratum.
        """
        measured = self.process.conditions
        known = set(zip(measured.batch.tolist(), measured.cell_type.tolist(), strict=True))
        found, of_stratum = np.zeros(asked.controls.shape), dict[tuple[int, int], np.ndarray]()
        for row in np.flatnonzero(asked.p.any(axis=1)).tolist():
            stratum = (int(asked.batch[row]), int(asked.cell_type[row]))
            if stratum in known:
                continue
            if stratum not in of_stratum:
                of_stratum[stratum] = of(row, stratum)
            found[row] = of_stratum[stratum]
        return found

    def doubt(self, asked: AskedShifts) -> np.ndarray:
        """Return the same of genes that are moved as is usual of them, ``(n, G)``.

        By their own, the strongest responses would be held back, whose expectation is surest.
        """
        return self.process.usual_spread(self._conditions(asked)) * self.spread

    def _own(self, conditions: Conditions, controls: np.ndarray) -> np.ndarray:
        """Return the part of the shifts that is no process, ``(n, G)``."""
        p, gains = conditions.p, conditions.gain
        own = _together(p, gains, self.slope)[:, None] * (controls - self.level)
        own += gains[:, None] * self.by_state.shifts(p, conditions.cell_type, controls)
        return np.asarray(own)

    def _conditions(self, asked: AskedShifts) -> Conditions:
        scaled = self.doses.strength(asked.p.astype(float))
        gains = gains_of(scaled, self.gain[0])
        nothing_measured = np.ones(len(asked.p))
        return Conditions(
            scaled,
            asked.batch,
            asked.cell_type,
            nothing_measured,
            asked.n_controls,
            self.basis.scores(asked.controls),
            gains[:, None] * _from_origin(scaled, self.deviation, self.origin),
            gains[:, None] * (scaled @ self.deviation),
            gains,
        )

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything by name, for a file."""
        mine = dict(vars(self))
        parts = {
            "process": mine.pop("process"),
            "basis": mine.pop("basis"),
            "conditions": self.process.conditions,
            "by_state": mine.pop("by_state"),
            "doses": mine.pop("doses"),
            "state_basis": self.by_state.basis,
        }
        for prefix, part in parts.items():
            mine.update({f"{prefix}.{name}": value for name, value in vars(part).items()})
        del mine["process.conditions"], mine["by_state.basis"]
        return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in mine.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> "MeanResponse":
        """Rebuild from :meth:`as_tensors`."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, value in tensors.items():
            part, _, field = name.rpartition(".")
            parts.setdefault(part, {})[field] = value.cpu().numpy()
        mine: dict[str, Any] = parts[""]
        process = ShiftProcess(conditions=Conditions(**parts["conditions"]), **parts["process"])
        by_state = StateSlopes(basis=StateBasis(**parts["state_basis"]), **parts["by_state"])
        basis, doses = StateBasis(**parts["basis"]), DoseCurves(**parts["doses"])
        return cls(process=process, by_state=by_state, basis=basis, doses=doses, **mine)


def _from_origin(p: np.ndarray, deviation: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return the sums of embeddings, ``(n, E)``, each of about length 1 wherever the origin is."""
    return np.asarray(p @ (deviation - origin) / np.sqrt(1.0 + origin @ origin))


def _together(p: np.ndarray, gains: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the slopes on the level of conditions, ``(n,)``: at -1 all levels become the same.

    Beyond that what is high would become low, which the sum of several perturbations may not say.
    """
    return np.maximum(gains * (p @ slope), -1.0)
