"""One of several processes that train a VAE and flows together; the first writes what came out."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cfmvc.shards import process_group
from cfmvc.stages import TrainingCells, fit_flow, fit_vae
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.engine import Engine
from tests.training.conftest import training_cells


def with_a_cell_of_nan(cells: TrainingCells) -> TrainingCells:
    """Return cells of which the last of the training has a count that is none."""
    rows = np.arange(len(cells.train))
    counts = cells.train.rows(rows).astype(np.float32)
    counts.data[-1] = np.nan
    return replace(cells, train=replace(cells.train, counts=counts))


if __name__ == "__main__":
    out, vae, *flows = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
    torch.set_num_threads(1)
    with process_group() as shard:
        # Of 129 training cells the last step has one, for two processes.
        cells, device = training_cells(162, 12), torch.device("cpu")
        bundle, first = fit_vae(cells, VaeConfig(**vae), device)
        _, in_parts = fit_vae(cells, VaeConfig(**vae), device, engine=Engine(n_parts=3))
        _, vetoed = fit_vae(with_a_cell_of_nan(cells), VaeConfig(**vae), device)
        trained = [fit_flow(bundle, cells, FlowConfig(**flow), device) for flow in flows]
        if shard.is_first:
            courses = (first, in_parts, *(history for _, history in trained))
            events = [event.as_json() for event in vetoed.events]
            rows = [history.rows for history in courses]
            out.write_text(json.dumps({"n_ranks": shard.n_ranks, "rows": rows, "events": events}))
