"""Where the mean of virtual cells belongs: factors on their means, condition by condition."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cfmvc.models.bundle import Bundle
from cfmvc.models.calibration import Virtual, log_factors
from cfmvc.models.mean_response import MeanResponse
from cfmvc.stages.background import Background
from cfmvc.stages.response import log_normalised

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


def factors_of_conditions(
    bundle: Bundle, background: Background | None, asked: Asked, carried: Carried
) -> torch.Tensor | None:
    """Return the logarithms of the factors of each condition, ``(n, G)``; None for the flow alone.

    They do not hang on how many cells are asked for. No perturbation has factors 1.
    """
    share = float(bundle.settings.get("flow", {}).get("mean_response", 0.0))
    if bundle.response is None or share == 0.0:
        return None
    found = torch.zeros(len(asked.p), len(bundle.gene_names), device=bundle.device)
    for row in asked.p.any(1).nonzero().reshape(-1).tolist():
        stratum = int(asked.batch[row]), int(asked.cell_type[row])
        controls = _controls(background, *stratum)
        known = _mean_control(bundle.response, background, controls, stratum, bundle.median_library)
        if known is None:
            continue  # without controls nobody knows what the shift is taken from
        n_new = _NEW_CELLS if controls is None else len(controls)
        rows = torch.full((n_new,), row, device=bundle.device)
        shift = _shift(bundle.response, asked, row, *known)
        cells = carried(rows, controls)
        start = torch.from_numpy(known[0]).to(cells.after)
        if cells.counts is not None:  # of these very cells, so that nothing hangs on the choice
            start = _log_normalised(cells.counts, bundle.median_library).mean(0)
        goal = start + torch.from_numpy(shift).to(start)
        found[row] = log_factors(cells, goal, bundle.median_library, share)
    return found


def _shift(
    response: MeanResponse, asked: Asked, row: int, mean: np.ndarray, n_controls: int
) -> np.ndarray:
    one = slice(row, row + 1)
    return response.expected(
        asked.p[one].cpu().numpy(),
        asked.batch[one].cpu().numpy(),
        asked.cell_type[one].cpu().numpy(),
        mean[None],
        np.asarray([n_controls]),
    )[0]


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
    mean = np.asarray(log_normalised(counts, library).mean(axis=0)).reshape(-1)
    return mean, counts.shape[0]


def _log_normalised(counts: torch.Tensor, library: float) -> torch.Tensor:
    return torch.log1p(counts * (library / counts.sum(1, keepdim=True).clamp_min(1.0)))
