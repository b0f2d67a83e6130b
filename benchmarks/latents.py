"""Print how well batch, cell type and perturbation are read from z_int and z_tech, and from a PCA.

    python -m benchmarks.latents [--bundle models/flow] [--cells data/prepared/cells.h5ad]
    python -m benchmarks.latents --data FOLDER_OF_THE_H5AD_FILES

The first form reads a trained model; the second trains stage 1 as shipped on two published data
sets and on the simulator's default. Training cells only; balanced accuracy of a linear classifier,
cross-validated. The principal components, as many as z_int has dimensions, are those of the
log-normalised counts of the same cells.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import TruncatedSVD

from benchmarks.reference_folds import kang_folds, papalexi_folds
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data import CellTable
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.data.prepared import load_prepared
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import validation_cells
from cfmvc.evaluation.disentangling import readable_labels
from cfmvc.models import Bundle, load_bundle
from cfmvc.stages import fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import VaeConfig

LABELS = ("batch", "cell_type", "perturbation")


def readable(bundle: Bundle, cells: ad.AnnData) -> pd.DataFrame:
    """Return accuracies of labels (rows) from latents (columns), of the cells not held out."""
    seen = cells[(cells.obs["split"] != "test").to_numpy()]
    table = CellTable.from_adata(seen, bundle.vocabulary)
    encoded = encode_table(bundle.model, table, torch.device("cpu"))
    z_int, z_tech = encoded.int_mean.numpy(), encoded.tech_mean.numpy()
    logged = log_normalise(table.counts, median_library(table.counts))
    components = TruncatedSVD(z_int.shape[1], random_state=0).fit_transform(logged)
    latents = {"z_int": z_int, "z_tech": z_tech, "PCA": components}
    labels = {name: np.asarray(seen.obs[name], str) for name in LABELS}
    # Batches are centred by their controls: what is left in these, and what in the others?
    rows = ~table.conditions[table.condition].any(axis=1)
    controls = {name: latent[rows] for name, latent in latents.items()}
    of_controls = readable_labels(controls, {"batch, of controls": labels["batch"][rows]})
    return pd.concat([readable_labels(latents, labels), of_controls])


def trained(cells: ad.AnnData) -> Bundle:
    """Train stage 1 as shipped on cells whose test cells are marked."""
    params = read_yaml(default_params_file())
    rest = (cells.obs["split"] != "test").to_numpy()
    is_val = np.zeros(cells.n_obs, dtype=bool)
    is_val[rest] = validation_cells(
        cells.obs[rest], parse_section(SplitConfig, params["split"], "split")
    )
    cells.obs["split"] = np.where(is_val, "val", cells.obs["split"])
    compute = parse_section(ComputeConfig, params["compute"], "compute")
    device = use("cpu", compute.n_threads)
    vae = parse_section(VaeConfig, params["vae"], "vae")
    return fit_vae(training_cells(cells), vae, device)[0]


def data_sets(folder: Path) -> Iterator[tuple[str, ad.AnnData]]:
    """Yield the first fold of each published data set, and simulated cells."""
    yield "Kang, first fold", next(kang_folds(folder))
    yield "Papalexi, first fold", next(papalexi_folds(folder))
    params = read_yaml(default_params_file())
    cells, _ = simulate(parse_section(SimulateConfig, params["simulate"], "simulate"))
    cells.obs["split"] = "train"
    yield "simulated", cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/flow"))
    parser.add_argument("--cells", type=Path, default=Path("data/prepared/cells.h5ad"))
    parser.add_argument("--data", type=Path, help="folder of the .h5ad files")
    arguments = parser.parse_args()
    if arguments.data is None:
        table = readable(load_bundle(arguments.bundle), load_prepared(arguments.cells))
        print(table.round(3).to_string())
        return
    for name, cells in data_sets(arguments.data):
        print(f"{name}\n{readable(trained(cells), cells).round(3).to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
