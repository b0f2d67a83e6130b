"""One of several processes that train a VAE and flows together; the first writes what came out."""

import json
import sys
from pathlib import Path

import torch

from cfmvc.shards import process_group
from cfmvc.stages import fit_flow, fit_vae
from cfmvc.training.config import FlowConfig, VaeConfig
from tests.training.conftest import training_cells

if __name__ == "__main__":
    out, vae, *flows = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
    torch.set_num_threads(1)
    with process_group() as shard:
        # Of 129 training cells the last step has one, for two processes.
        cells, device = training_cells(162, 12), torch.device("cpu")
        bundle, first = fit_vae(cells, VaeConfig(**vae), device)
        trained = [fit_flow(bundle, cells, FlowConfig(**flow), device) for flow in flows]
        if shard.is_first:
            rows = [history.rows for history in (first, *(history for _, history in trained))]
            out.write_text(json.dumps({"n_ranks": shard.n_ranks, "rows": rows}))
