"""Where the mean of virtual cells belongs: factors on their means, condition by condition."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cfmvc.data.normalise import log_normalise
from cfmvc.models.bundle import Bundle
from cfmvc.models.calibration import Virtual, log_factors
from cfmvc.models.mean_response import AskedShifts, MeanResponse
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.background import Background

_MOST_CELLS = 64  # of a stratum's controls, which the factors are found on
_NEW_CELLS = 64  # where there are none
_AT_ONCE = 16  # conditions whose cells are carried together
_ASKED_AT_ONCE = 512  # conditions of which it is asked together what is expected

Carried = Callable[[torch.Tensor, torch.Tensor | None], Virtual]
"""Makes virtual cells of condition rows ``(B,)`` out of controls ``(B,)``, or out of noise."""


@dataclass(frozen=True)
class Asked:
    """Conditions, one row each: ``p`` ``(n, K)``, ``batch`` and ``cell_type`` ``(n,)``."""

    p: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor


@dataclass(frozen=True)
class Expectation:
    """What is expected of conditions, in log-normalised expression; NaN where nothing is.

    Parameters
    ----------
    log_factors
        Logarithms of the factors on the means of their virtual cells, ``(n, G)``.
    shift
        Mean shift of the virtual cells from the controls, ``(n, G)``.
    spread
        Standard deviation of the true shift around what related conditions let expect, ``(n, G)``.
    state
        Scores of the controls, ``(n, S)``; the largest of the training is 1.
    is_flow_alone
        Where the flow has learnt of a perturbation and the mean response has not, ``(n,)``: of more
        conditions than it remembers. The shift is that of the flow, also where another perturbation
        beside it was never seen.
    """

    log_factors: torch.Tensor
    shift: np.ndarray
    spread: np.ndarray
    state: np.ndarray
    is_flow_alone: np.ndarray


def expectation_of(
    bundle: Bundle,
    background: Background | None,
    asked: Asked,
    carried: Carried,
) -> Expectation | None:
    """Return what is expected of conditions; None for the flow alone.

    It hangs on the latents that are drawn for it, and so, by little, on what else is asked for. No
    perturbation has factors 1 and shift 0.
    """
    response, library = bundle.response, bundle.median_library
    share = 0.0 if response is None else float(response.share[0])
    if response is None or share == 0.0:
        return None
    p, batch, cell_type = (v.cpu().numpy() for v in (asked.p, asked.batch, asked.cell_type))
    of_row = list(zip(batch.tolist(), cell_type.tolist(), strict=True))
    strata = {stratum: _Stratum.of(bundle, background, *stratum) for stratum in set(of_row)}
    # elsewhere nobody knows what a shift is taken from
    found = np.asarray([np.isfinite(strata[stratum].mean).all() for stratum in of_row])
    size = len(p), len(bundle.gene_names)
    expected, shift, spread, doubt = (np.full(size, np.nan, np.float32) for _ in range(4))
    flow_alone, unknown_to_flow = _columns_of_flow(bundle, response)
    is_flow_alone = np.asarray(p[:, flow_alone].any(axis=1))
    # Between some embeddings and others a flow goes wherever its weights happen to lead.
    ways = np.where(p[:, unknown_to_flow].any(axis=1), 1.0, share)
    # A flow from these very controls has their noise in its mean as well: it goes all of the way.
    ways_of_noise = ways if bundle.model.source == "control" else np.ones_like(ways)
    state = np.full((len(p), len(response.basis.axes)), np.nan)
    for rows in _in_blocks(np.flatnonzero(found)):
        known = [strata[of_row[row]] for row in rows]
        means, n_controls = zip(*((one.mean, one.n_controls) for one in known), strict=True)
        controls = np.stack(means), np.asarray(n_controls)
        shifts = AskedShifts(p[rows], batch[rows], cell_type[rows], *controls)
        noise = response.corrections(shifts) / ways_of_noise[rows, None]
        expected[rows] = response.expected(shifts) + noise
        spread[rows], doubt[rows] = response.uncertainty(shifts), response.doubt(shifts)
        state[rows] = response.basis.scores(controls[0])
    factors = torch.zeros(size, device=bundle.device)
    is_perturbed = p.any(axis=1)
    shift[found & ~is_perturbed] = 0.0
    for some in _together(np.flatnonzero(found & is_perturbed).tolist(), of_row, strata):
        for row, cells in zip(some, _carried(some, of_row, strata, carried), strict=True):
            start = _start(cells, strata[of_row[row]].mean, library)
            target = start + torch.from_numpy(expected[row]).to(start)
            sd = torch.from_numpy(doubt[row]).to(start)
            way = 0.0 if is_flow_alone[row] else float(ways[row])
            factors[row], mean = log_factors(cells, target, library, way, sd)
            shift[row] = (mean - start).cpu().numpy()
    return Expectation(factors, shift, spread, state, is_flow_alone)


def _in_blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield many rows at once, what is costly hanging little on how many; of all is no room."""
    for start in range(0, len(rows), _ASKED_AT_ONCE):
        yield rows[start : start + _ASKED_AT_ONCE]


def flow_shift_of(
    bundle: Bundle, background: Background, asked: Asked, carried: Carried
) -> np.ndarray:
    """Return the mean shifts that the flow alone gives to some controls, ``(n, G)``.

    All of the conditions are perturbed, and have controls with counts.
    """
    of_row = list(zip(asked.batch.tolist(), asked.cell_type.tolist(), strict=True))
    strata = {stratum: _Stratum.of(bundle, background, *stratum) for stratum in set(of_row)}
    shift = np.empty((len(of_row), len(bundle.gene_names)), np.float32)
    for rows in _together(list(range(len(of_row))), of_row, strata):
        for row, cells in zip(rows, _carried(rows, of_row, strata, carried), strict=True):
            start = _start(cells, strata[of_row[row]].mean, bundle.median_library)
            mean = log_factors(cells, start, bundle.median_library, share=0.0)[1]
            shift[row] = (mean - start).cpu().numpy()
    return shift


def _start(cells: Virtual, mean: np.ndarray, library: float) -> torch.Tensor:
    """Return what shifts are taken from: the cells' own mean, or else that of their stratum."""
    if cells.counts is not None:  # of these very cells: nothing hangs on the choice
        return _log_normalised(cells.counts, library).mean(0)
    return torch.from_numpy(mean).to(cells.after)


def _columns_of_flow(bundle: Bundle, response: MeanResponse) -> tuple[np.ndarray, np.ndarray]:
    """Return which perturbations the flow alone has learnt of, and which it has not, ``(K,)`` bool.

    From noise it learns of cells without controls beside them, too.
    """
    reference = bundle.model.reference
    if reference is None:
        return np.zeros(len(response.columns), dtype=bool), ~response.columns
    measured = reference.measured
    learnt = measured if bundle.model.source == "control" else (reference.vectors > 0).any(0)
    return measured.cpu().numpy() & ~response.columns, ~learnt.cpu().numpy()


@dataclass(frozen=True)
class _Stratum:
    """Some controls of a stratum; of all of them, the mean log expression, and how many they are.

    NaN, where the stratum has none.
    """

    controls: torch.Tensor | None
    mean: np.ndarray
    n_controls: int

    @classmethod
    def of(
        cls, bundle: Bundle, background: Background | None, batch: int, cell_type: int
    ) -> "_Stratum":
        assert bundle.response is not None
        controls = None if background is None else some_controls(background.cells, batch, cell_type)
        if controls is None and bundle.model.context.place is not None:
            # Cells out of nothing have no place, which the flow asks for.
            return cls(None, np.full(len(bundle.gene_names), np.nan), 1)
        if background is None or background.counts is None or controls is None:
            known = bundle.response.controls_of(batch, cell_type)
            return cls(controls, *(known or (np.full(len(bundle.gene_names), np.nan), 1)))
        cells = background.cells
        every = ((cells.batch == batch) & (cells.cell_type == cell_type)).cpu().numpy()
        counts = background.counts[every.nonzero()[0]]
        logged = log_normalise(counts, bundle.median_library)
        return cls(controls, np.asarray(logged.mean(axis=0)).reshape(-1), counts.shape[0])

    @property
    def n_cells(self) -> int:
        """How many virtual cells the factors are found on."""
        return _NEW_CELLS if self.controls is None else len(self.controls)


def _together(
    rows: list[int], of_row: list[tuple[int, int]], strata: dict[tuple[int, int], _Stratum]
) -> list[list[int]]:
    """Put conditions together that start alike: from controls, or from noise."""
    from_noise = [row for row in rows if strata[of_row[row]].controls is None]
    from_controls = [row for row in rows if strata[of_row[row]].controls is not None]
    return [
        some[start : start + _AT_ONCE]
        for some in (from_noise, from_controls)
        for start in range(0, len(some), _AT_ONCE)
    ]


def _carried(
    rows: list[int],
    of_row: list[tuple[int, int]],
    strata: dict[tuple[int, int], _Stratum],
    carried: Carried,
) -> list[Virtual]:
    """Make the virtual cells of some conditions together, and return them one by one."""
    n_cells = [strata[of_row[row]].n_cells for row in rows]
    controls = [c for row in rows if (c := strata[of_row[row]].controls) is not None]
    of_cell = torch.tensor(rows).repeat_interleave(torch.tensor(n_cells))
    return carried(of_cell, torch.cat(controls) if controls else None).split(n_cells)


def some_controls(cells: ReferenceCells, batch: int, cell_type: int) -> torch.Tensor | None:
    """Return some controls of a stratum, evenly chosen of control cells; None where there are none.

    They are those that factors are found on.
    """
    rows = ((cells.batch == batch) & (cells.cell_type == cell_type)).nonzero().reshape(-1)
    if len(rows) == 0:
        return None
    at = torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_CELLS), device=rows.device)
    return rows[at.round().long()]


def _log_normalised(counts: torch.Tensor, library: float) -> torch.Tensor:
    # As cfmvc.data.normalise, of dense counts that are on the model's device already.
    return torch.log1p(counts * (library / counts.sum(1, keepdim=True).clamp_min(1.0)))
