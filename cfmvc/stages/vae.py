"""Stage 1: config + data + model -> loop."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cfmvc.data.dataset import CellTable
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.models.bundle import Bundle
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.layers import evaluating
from cfmvc.models.reference import KEPT_PER_CONDITION
from cfmvc.stages.compute import seeded
from cfmvc.stages.encoding import encode_table, settle_centring
from cfmvc.stages.memory import DataShape, vae_memory
from cfmvc.training.callbacks import Callback
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.history import History
from cfmvc.training.loop import train
from cfmvc.training.memory import announce
from cfmvc.training.objectives import VaeObjective
from cfmvc.training.sources import TableSource

Look = Callable[[Bundle, int], Mapping[str, float]]
"""Looks at a model after so many epochs of its training, and returns figures; may raise."""


@dataclass(frozen=True)
class TrainingCells:
    """Cells of the training and of its validation, with what their columns mean.

    ``ids`` are the hashes of them all, sorted, where the data have them; ``embeddings`` those of
    the perturbations, a row a label, as :mod:`cfmvc.data.embeddings` reads them.
    """

    train: CellTable
    val: CellTable
    vocabulary: Vocabulary
    gene_names: list[str]
    ids: NDArray[np.uint64] | None = None
    embeddings: pd.DataFrame | None = None


def fit_vae(
    cells: TrainingCells,
    vae: VaeConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    flow: FlowConfig | None = None,
    engine: Engine | None = None,
    examine: Look | None = None,
) -> tuple[Bundle, History]:
    """Train the NB-VAE.

    Parameters
    ----------
    cells
        Training and validation cells.
    vae
        The stage's parameters.
    device
        Where to train.
    callbacks
        Who is told.
    flow
        Shape of the flow that will be trained in these latents; it may also be given later, to
        :func:`~cfmvc.stages.flow.fit_flow`.
    engine
        How it is computed, and where its checkpoints are.
    examine
        Called at each validation with a copy of the model, as it would be if the training ended
        there, and with training cells to refer to.

    Returns
    -------
    bundle
        The model, its flow untrained.
    history
        The course of the training.
    """
    callbacks, engine = list(callbacks), engine or Engine()
    vae = vae.for_cells(len(cells.train))
    shape, sizes = DataShape.of(cells.train, cells.val), model_sizes(cells, vae, flow)
    announce(vae_memory(shape, sizes, vae, engine, device), device, callbacks)
    with seeded(vae.seed, device):
        model = CFMVCModel(**sizes).to(device)
        library = cells.train.library
        # A cell of NaN, should there be one, is for the guard to veto and name.
        profile = torch.from_numpy(np.nan_to_num(cells.train.mean_counts)).float()
        model.decoder.calibrate(profile, float(np.nanmedian(library)))
        bundle = Bundle(
            model,
            cells.vocabulary,
            cells.gene_names,
            float(np.nanmedian(library)),
            {"vae": vae.model_dump()},
            cells.ids,
        )
        history = train(
            "train_vae",
            VaeObjective(
                model,
                vae.beta,
                vae.kl_warmup,
                vae.lambda_adv,
                vae.tech_penalty,
                vae.lambda_batch,
            ),
            TableSource(cells.train, vae.cells_per_step, vae.seed, device),
            TableSource(cells.val, vae.cells_per_step, vae.seed, device)
            if len(cells.val)
            else None,
            vae,
            device,
            callbacks,
            engine,
            None if examine is None else partial(_looked_at, examine, bundle, cells, device),
        )
        settle_centring(model, cells.train, device)
    model.eval()
    return bundle, history


def _looked_at(
    examine: Look, bundle: Bundle, cells: TrainingCells, device: torch.device, epoch: int
) -> Mapping[str, float]:
    """Examine a copy: what a training ends with changes the model."""
    model = deepcopy(bundle.model)
    settle_centring(model, cells.train, device)
    model.reference = encode_table(model, cells.train, device).bounded(KEPT_PER_CONDITION)
    with evaluating(model):
        return examine(replace(bundle, model=model), epoch)


def model_sizes(cells: TrainingCells, vae: VaeConfig, flow: FlowConfig | None) -> dict[str, Any]:
    """Return what the model's constructor takes, of the data's sizes."""
    spatial = cells.train.spatial
    return {
        "n_genes": cells.train.n_genes,
        "n_batch": len(cells.vocabulary.batches),
        "n_ct": len(cells.vocabulary.cell_types),
        "n_perts": len(cells.vocabulary.perturbations),
        "dim_int": vae.dim_int,
        "dim_tech": vae.dim_tech,
        "hidden_vae": vae.hidden_dim,
        "spatial_dim": None if spatial is None else spatial.shape[1],
        "embedding_dim": None if cells.embeddings is None else cells.embeddings.shape[1],
        "dropout_vae": vae.dropout,
        **({} if flow is None else flow_shape(flow)),
    }


def flow_shape(flow: FlowConfig) -> dict[str, Any]:
    """Return the flow's share of the model's constructor."""
    return {
        "hidden_ctx": flow.hidden_ctx,
        "hidden_flow": flow.hidden_dim,
        "n_basis": flow.n_basis,
        "source": flow.source,
        "divergence": flow.divergence,
        "n_neighbours": flow.n_neighbours,
        "times": flow.times,
        "dropout_flow": flow.dropout,
        "label_dropout": flow.label_dropout,
    }
