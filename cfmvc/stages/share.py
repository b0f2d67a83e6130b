"""How far the mean of virtual cells is brought to what is expected, as the training itself tells.

An autoencoder keeps little of weak effects, and then the flow has nothing to say of them: its share
of the mean would pull the expectation back to no effect. What it misses shows in the conditions
that it was trained on. There, each one's measured shift lies somewhere on the way from the flow's
to what all other conditions let expect; where it lies, by least squares, is the share. The flow has
seen these conditions, so that it comes off better than it should: the share is never below the one
that is given.
"""

import numpy as np
import pandas as pd
import torch

from cfmvc.data.dataset import CellTable
from cfmvc.flow.kept_conditions import foremost
from cfmvc.flow.local_scales import sets_of
from cfmvc.models.bundle import Bundle
from cfmvc.models.mean_response import MeanResponse
from cfmvc.models.reference import ReferenceCells
from cfmvc.shards import Shard, shared_out
from cfmvc.stages.background import Background
from cfmvc.stages.predict import flow_shifts
from cfmvc.stages.wanted import Wanted

_MOST_CONDITIONS = 32  # that are looked at
_MOST_CELLS = 64  # of a stratum's controls, which are carried there
_AT_ONCE = 4  # conditions: less memory than a training has needed
_N_STEPS = 10
_SURE = 3.0  # standard errors of the measured shift: genes of a smaller expected one say little


def learnt_share(
    bundle: Bundle, table: CellTable, latents: ReferenceCells, least: float, seed: int
) -> float:
    """Return the share of the mean response, in [least, 1].

    Parameters
    ----------
    bundle
        A model with a flow and, maybe, a mean response.
    table, latents
        The training cells, and encoded.
    least
        Share that is given.
    seed
        Of the latents that are drawn.
    """
    response = bundle.response
    if response is None or least in (0.0, 1.0) or bundle.model.source != "control":
        return least  # what starts from noise has noise of its own in its mean
    rows = _strongest(response, _trained(latents))
    if not len(rows):
        return least
    with shared_out(Shard()):  # of several processes each finds it by itself
        carried = np.concatenate(
            [
                _carried(bundle, response, some, table, latents, seed)
                for some in np.array_split(rows, -(-len(rows) // _AT_ONCE))
            ]
        )
    measured, expected = response.left_out(rows)
    some = response.process.conditions.rows(rows)
    noise = response.spread * np.sqrt(1.0 / some.n_cells + 1.0 / some.n_controls)[:, None]
    is_sure = (np.abs(expected) > _SURE * noise) & np.isfinite(carried)
    way = (expected - carried)[is_sure]
    found = float((measured - carried)[is_sure] @ way / max(float(way @ way), 1e-12))
    return min(max(found, least), 1.0)


def _trained(latents: ReferenceCells) -> set[tuple[int, ...]]:
    """Return the strata in which the flow has learnt from controls."""
    some = (latents.is_control & latents.is_finite).nonzero().reshape(-1)
    strata = torch.stack([latents.batch[some], latents.cell_type[some]], dim=1)
    return set(map(tuple, strata.unique(dim=0).tolist()))


def _strongest(response: MeanResponse, strata: set[tuple[int, ...]]) -> np.ndarray:
    """Return the conditions whose effects stand out most, of each perturbation one first."""
    process = response.process
    known = process.conditions
    of_each = zip(known.batch.tolist(), known.cell_type.tolist(), strict=True)
    rows = np.flatnonzero([stratum in strata for stratum in of_each])
    noise = 1.0 / known.n_cells + 1.0 / known.n_controls
    strength = (process.shift**2).mean(axis=1) / noise
    kind = sets_of(known.p)[1]
    return rows[foremost(kind[rows], strength[rows], _MOST_CONDITIONS)]


def _carried(
    bundle: Bundle,
    response: MeanResponse,
    rows: np.ndarray,
    table: CellTable,
    latents: ReferenceCells,
    seed: int,
) -> np.ndarray:
    """Return the shifts of the flow alone in these conditions, ``(n_rows, G)``."""
    some, device = response.process.conditions.rows(rows), bundle.device
    controls = _some_controls(latents, some.batch, some.cell_type)
    names = np.asarray([f"training-{row}" for row in controls.tolist()], dtype=object)
    cells = latents.select(torch.from_numpy(controls).to(latents.batch.device))
    wanted = Wanted(
        torch.from_numpy((some.p * response.largest).astype(np.float32)).to(device),
        torch.from_numpy(some.batch).to(device),
        torch.from_numpy(some.cell_type).to(device),
        pd.Series(np.zeros(len(some), np.int64)),
    )
    background = Background(cells, table.rows(controls), names)
    return flow_shifts(bundle, background, wanted, seed=seed, n_steps=_N_STEPS)


def _some_controls(latents: ReferenceCells, batch: np.ndarray, cell_type: np.ndarray) -> np.ndarray:
    """Return rows of controls of these strata, of each some, evenly chosen."""
    of_cell = torch.stack([latents.batch, latents.cell_type], dim=1).cpu().numpy()
    is_control, chosen = (latents.is_control & latents.is_finite).cpu().numpy(), []
    for stratum in np.unique(np.stack([batch, cell_type], axis=1), axis=0):
        rows = np.flatnonzero(is_control & (of_cell == stratum).all(axis=1))
        at = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_CELLS)).round().astype(np.int64)
        chosen.append(rows[at])
    return np.sort(np.concatenate(chosen))
