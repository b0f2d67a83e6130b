"""Print how well batch, cell type and perturbation are read from z_int and from z_tech.

    python -m benchmarks.latents [--bundle models/flow] [--cells data/prepared/cells.h5ad]

Training cells only; balanced accuracy of a linear classifier, cross-validated.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from cfmvc.data import CellTable
from cfmvc.data.prepared import load_prepared
from cfmvc.evaluation.disentangling import readable_labels
from cfmvc.models import load_bundle
from cfmvc.stages.encoding import encode_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("models/flow"))
    parser.add_argument("--cells", type=Path, default=Path("data/prepared/cells.h5ad"))
    arguments = parser.parse_args()
    bundle, cells = load_bundle(arguments.bundle), load_prepared(arguments.cells)
    seen = cells[(cells.obs["split"] != "test").to_numpy()]
    table = CellTable.from_adata(seen, bundle.vocabulary)
    encoded = encode_table(bundle.model, table, torch.device("cpu"))
    latents = {"z_int": encoded.int_mean.numpy(), "z_tech": encoded.tech_mean.numpy()}
    labels = {
        name: seen.obs[name].astype(str).to_numpy(dtype=object)
        for name in ("batch", "cell_type", "perturbation")
    }
    table = readable_labels(latents, {name: np.asarray(v, str) for name, v in labels.items()})
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
