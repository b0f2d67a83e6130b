"""Where the mean of virtual cells belongs: factors on their means, condition by condition."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cfmvc.data.normalise import log_normalise
from cfmvc.models.bundle import Bundle
from cfmvc.models.calibration import Virtual, log_factors
from cfmvc.models.mean_response import MeanResponse
from cfmvc.stages.background import Background

_MOST_CELLS = 256  # of a stratum's controls, which the factors are found on
_NEW_CELLS = 256  # where there are none

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
    """

    log_factors: torch.Tensor
    shift: np.ndarray
    spread: np.ndarray
    state: np.ndarray


def expectation_of(
    bundle: Bundle, background: Background | None, asked: Asked, carried: Carried
) -> Expectation | None:
    """Return what is expected of conditions; None for the flow alone.

    Nothing hangs on how many cells are asked for. No perturbation has factors 1 and shift 0.
    """
    share = float(bundle.settings.get("flow", {}).get("mean_response", 0.0))
    response, library = bundle.response, bundle.median_library
    if response is None or share == 0.0:
        return None
    size = (len(asked.p), len(bundle.gene_names))
    factors = torch.zeros(size, device=bundle.device)
    shift, spread = np.full(size, np.nan, np.float32), np.full(size, np.nan, np.float32)
    state = np.full((len(asked.p), len(response.basis.axes)), np.nan)
    p, batch, cell_type = (v.cpu().numpy() for v in (asked.p, asked.batch, asked.cell_type))
    means, n_controls = np.zeros(size), np.ones(size[0], np.int64)
    for row in range(len(asked.p)):
        stratum = int(batch[row]), int(cell_type[row])
        controls = _controls(background, *stratum)
        known = _mean_control(response, background, controls, stratum, library)
        if known is None:
            continue  # without controls nobody knows what the shift is taken from
        one = slice(row, row + 1)
        means[row], n_controls[row] = known
        condition = (p[one], batch[one], cell_type[one], means[one], n_controls[one])
        state[one] = response.basis.scores(means[one])
        if not p[row].any():
            shift[row] = 0.0
            continue
        n_new = _NEW_CELLS if controls is None else len(controls)
        cells = carried(torch.full((n_new,), row, device=bundle.device), controls)
        start = torch.from_numpy(known[0]).to(cells.after)
        if cells.counts is not None:  # of these very cells, so that nothing hangs on the choice
            start = _log_normalised(cells.counts, library).mean(0)
        goal = start + torch.from_numpy(response.expected(*condition)[0]).to(start)
        factors[row], mean = log_factors(cells, goal, library, share)
        shift[row] = (mean - start).cpu().numpy()
    # At once: what is costly does not hang on how many conditions are asked for.
    found = np.isfinite(shift).all(axis=1)
    conditions = (p[found], batch[found], cell_type[found], means[found], n_controls[found])
    spread[found] = response.uncertainty(*conditions)
    return Expectation(factors, shift, spread, state)


def _controls(background: Background | None, batch: int, cell_type: int) -> torch.Tensor | None:
    """Return some controls of a stratum, evenly chosen; None where there are none."""
    if background is None:
        return None
    cells = background.cells
    rows = ((cells.batch == batch) & (cells.cell_type == cell_type)).nonzero().reshape(-1)
    if len(rows) == 0:
        return None
    at = torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_CELLS), device=rows.device)
    return rows[at.round().long()]


def _mean_control(
    response: MeanResponse,
    background: Background | None,
    controls: torch.Tensor | None,
    stratum: tuple[int, int],
    library: float,
) -> tuple[np.ndarray, int] | None:
    """Return the mean log expression of the stratum's controls, and of how many it is."""
    if background is None or background.counts is None or controls is None:
        return response.controls_of(*stratum)
    cells = background.cells
    every = ((cells.batch == stratum[0]) & (cells.cell_type == stratum[1])).cpu().numpy()
    counts = background.counts[every.nonzero()[0]]
    mean = np.asarray(log_normalise(counts, library).mean(axis=0)).reshape(-1)
    return mean, counts.shape[0]


def _log_normalised(counts: torch.Tensor, library: float) -> torch.Tensor:
    # As cfmvc.data.normalise, of dense counts that are on the model's device already.
    return torch.log1p(counts * (library / counts.sum(1, keepdim=True).clamp_min(1.0)))
