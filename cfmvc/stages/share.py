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
from cfmvc.stages.expectation import some_controls
from cfmvc.stages.predict import flow_shifts
from cfmvc.stages.wanted import Wanted

_MOST_CONDITIONS = 32  # that are looked at
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
    usable = (latents.is_control & latents.is_finite).nonzero().reshape(-1)
    controls = latents.select(usable)
    strata = zip(controls.batch.tolist(), controls.cell_type.tolist(), strict=True)
    rows = _strongest(response, set(strata))
    if not len(rows):
        return least
    chosen = _chosen(response, rows, controls)
    counts = table.rows(usable[chosen].cpu().numpy())
    names = np.asarray([f"training-{row}" for row in usable[chosen].tolist()], dtype=object)
    background = Background(controls.select(chosen), counts, names)
    parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
    with shared_out(Shard()):  # of several processes each finds it by itself
        carried = np.concatenate(
            [
                flow_shifts(bundle, background, wanted, seed=seed, n_steps=_N_STEPS)
                for wanted in (_wanted(bundle, response, some) for some in parts)
            ]
        )
    measured, expected = response.left_out(rows)
    some = response.process.conditions.rows(rows)
    noise = response.spread * np.sqrt(1.0 / some.n_cells + 1.0 / some.n_controls)[:, None]
    is_sure = (np.abs(expected) > _SURE * noise) & np.isfinite(carried)
    way = (expected - carried)[is_sure]
    found = float((measured - carried)[is_sure] @ way / max(float(way @ way), 1e-12))
    return min(max(found, least), 1.0)


def _strongest(response: MeanResponse, strata: set[tuple[int, int]]) -> np.ndarray:
    """Return the conditions whose effects stand out most, of each perturbation one first."""
    process = response.process
    known = process.conditions
    of_each = zip(known.batch.tolist(), known.cell_type.tolist(), strict=True)
    rows = np.flatnonzero([stratum in strata for stratum in of_each])
    noise = 1.0 / known.n_cells + 1.0 / known.n_controls
    strength = (process.shift**2).mean(axis=1) / noise
    kind = sets_of(known.p)[1]
    return rows[foremost(kind[rows], strength[rows], _MOST_CONDITIONS)]


def _chosen(response: MeanResponse, rows: np.ndarray, controls: ReferenceCells) -> torch.Tensor:
    """Return the controls that are carried, of each stratum some, in order."""
    some = response.process.conditions.rows(rows)
    strata = set(zip(some.batch.tolist(), some.cell_type.tolist(), strict=True))
    found = [some_controls(controls, *stratum) for stratum in sorted(strata)]
    return torch.cat([one for one in found if one is not None]).sort().values


def _wanted(bundle: Bundle, response: MeanResponse, rows: np.ndarray) -> Wanted:
    some, device = response.process.conditions.rows(rows), bundle.device
    return Wanted(
        torch.from_numpy(response.doses.doses(some.p).astype(np.float32)).to(device),
        torch.from_numpy(some.batch).to(device),
        torch.from_numpy(some.cell_type).to(device),
        pd.Series(np.zeros(len(some), np.int64)),
    )
