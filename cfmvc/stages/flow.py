"""Stage 2, and the optional stage 3: config + latents + model -> loop."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from cfmvc.data.dataset import CellTable
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.errors import ConfigError, DataError
from cfmvc.flow.doses import DoseCurves
from cfmvc.models.bundle import Bundle
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.layers import evaluating
from cfmvc.models.mean_response import MeanResponse
from cfmvc.models.reference import KEPT_PER_CONDITION, ReferenceCells
from cfmvc.stages.compute import seeded
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.memory import DataShape, flow_memory, joint_memory
from cfmvc.stages.response import dose_curves, fit_response
from cfmvc.stages.share import learnt_share
from cfmvc.stages.vae import Look, TrainingCells, flow_shape
from cfmvc.training.callbacks import Callback
from cfmvc.training.config import FlowConfig, JointConfig
from cfmvc.training.engine import Engine
from cfmvc.training.history import History
from cfmvc.training.loop import train
from cfmvc.training.memory import announce
from cfmvc.training.objectives import FlowObjective, JointObjective
from cfmvc.training.pairs import CellPairs, sampled_pairs
from cfmvc.training.sources import LatentSource, TableSource


def fit_flow(
    bundle: Bundle,
    cells: TrainingCells,
    flow: FlowConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    engine: Engine | None = None,
    examine: Look | None = None,
) -> tuple[Bundle, History]:
    """Train the flow in the latents of a trained VAE, which stays as it is.

    Parameters
    ----------
    bundle
        From :func:`~cfmvc.stages.vae.fit_vae`.
    cells, flow, device, callbacks, engine
        As there.
    examine
        Called at each validation with the model as it would be if the training ended there.

    Returns
    -------
    bundle
        The model, complete: a new flow, and reference cells to generate from.
    history
        The course of the training.
    """
    callbacks, engine = list(callbacks), engine or Engine()
    shape, sizes = DataShape.of(cells.train, cells.val), _sizes(bundle.model, flow)
    announce(flow_memory(shape, sizes, flow, engine, device), device, callbacks)
    with seeded(flow.seed, device):
        model = _with_new_flow(bundle.model, flow).to(device)
        train_latents = encode_table(model, cells.train, device)
        latents = [train_latents, encode_table(model, cells.val, device, tissue=train_latents)]
        model.fit_standardisation(latents[0])
        doses = dose_curves([cells.train, cells.val], bundle.median_library)
        model.context.calibrate(latents[0].vectors, latents[0].place, doses)
        if cells.embeddings is not None:
            model.context.embed(vectors_of(cells.embeddings, bundle.vocabulary))
        model.reference = latents[0].bounded(KEPT_PER_CONDITION)
        settings = {**bundle.settings, "flow": flow.model_dump()}
        sources = [
            LatentSource(
                some,
                model,
                flow.cells_per_step,
                flow.seed,
                flow.coupling,
                flow.recouple_every,
                controls=latents[0],
                n_epochs=n_epochs,
            )
            # Validation is always with the pairs of the first epoch.
            for some, n_epochs in zip(latents, (flow.n_epochs, 1), strict=True)
        ]
        history = train(
            "train_flow",
            FlowObjective(model, flow.lambda_dist, flow.lambda_reg),
            sources[0],
            sources[1] if sources[1].n_cells else None,
            flow,
            device,
            callbacks,
            engine,
            None if examine is None else partial(_looked_at, examine, bundle, model, settings),
        )
    bundle = replace(bundle, model=model)
    response = _response(bundle, cells, sources[0].pairs, doses) if flow.mean_response > 0 else None
    bundle = replace(_replaced(bundle, model, settings), response=response)
    return _with_share(bundle, cells.train, train_latents, flow, history), history


def expect_trainable(flow: FlowConfig, joint: JointConfig, cells: TrainingCells) -> None:
    """Raise where a flow could not be trained; ask before anything is.

    Raises
    ------
    ConfigError
        If it is told of neighbours' latents, and is to be trained with the encoder afterwards.
    DataError
        If it starts from controls, and no perturbed cell has any of its own stratum.
    """
    _expect_separable(0 if cells.train.spatial is None else flow.n_neighbours, joint.n_epochs)
    if flow.source == "control" and not _has_a_source(cells.train):
        raise DataError(
            "train_flow: no perturbed cell has a control cell of its own batch and cell type to "
            "start from (flow.source: control), so that the effect of no perturbation can be told "
            "from that of the batch; give controls of the same batches, or merge batches that "
            "are one"
        )


def _has_a_source(cells: CellTable) -> bool:
    is_control = (cells.conditions == 0).all(axis=1)[cells.condition]
    stratum = cells.batch * (cells.cell_type.max(initial=0) + 1) + cells.cell_type
    return bool(np.isin(stratum[~is_control], stratum[is_control]).any())


def _expect_separable(n_neighbours: int, n_joint_epochs: int) -> None:
    if n_neighbours and n_joint_epochs:
        raise ConfigError(
            "joint.n_epochs: with flow.n_neighbours the flow is told latents of the cells around, "
            "which would be others after a fine-tuning; set one of the two to 0"
        )


def fit_joint(
    bundle: Bundle,
    cells: TrainingCells,
    joint: JointConfig,
    flow: FlowConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    engine: Engine | None = None,
) -> tuple[Bundle, History]:
    """Fine-tune encoder, decoder and flow together, the ELBO still in the loss.

    Sources are controls of the step, drawn at random in their strata: while latents move there is
    no pairing that holds. Batches stay centred as they were, for decoder and flow learn with that.

    Parameters
    ----------
    bundle
        From :func:`fit_flow`.
    cells, joint, device, callbacks, engine
        As there.
    flow
        That it was trained with: what its loss has beside the velocity counts here as well.

    Raises
    ------
    ConfigError
        If the flow asks who is around a cell: that would change with the encoder.
    """
    _expect_separable(bundle.model.n_neighbours, joint.n_epochs)
    model, callbacks, engine = bundle.model, list(callbacks), engine or Engine()
    shape = DataShape.of(cells.train, cells.val)
    expected = joint_memory(shape, model.sizes, joint, flow.lambda_dist, engine, device)
    announce(expected, device, callbacks)
    with seeded(joint.seed, device):
        history = train(
            "train_joint",
            JointObjective(
                model,
                joint.beta,
                joint.lambda_flow,
                flow.lambda_dist,
                joint.tech_penalty,
                flow.lambda_reg,
            ),
            TableSource(cells.train, joint.cells_per_step, joint.seed, device),
            TableSource(cells.val, joint.cells_per_step, joint.seed, device)
            if len(cells.val)
            else None,
            joint,
            device,
            callbacks,
            engine,
        )
        encoded = encode_table(model, cells.train, device)
        model.reference = encoded.bounded(KEPT_PER_CONDITION)
    bundle = _replaced(bundle, model, {**bundle.settings, "joint": joint.model_dump()})
    return _with_share(bundle, cells.train, encoded, flow, history), history


def _with_share(
    bundle: Bundle,
    table: CellTable,
    latents: ReferenceCells,
    flow: FlowConfig,
    history: History,
) -> Bundle:
    """Return the bundle with the share that its flow leaves to the mean response; it is noted.

    So is how strongly perturbations act in combinations, if measured ones told it, and a usual one
    at a tenth of its largest dose, where doses were found not to act in proportion.
    """
    if bundle.response is None:
        return bundle
    if (gain := float(bundle.response.gain[0])) != 1.0:
        history.figures["combination_gain"] = gain
    doses = bundle.response.doses
    if doses.saturation[0] > 0.0:  # the control's is the usual one
        history.figures["effect_of_a_tenth"] = float(doses.strength(0.1 * doses.largest)[0])
    share = learnt_share(bundle, table, latents, flow.mean_response, flow.seed)
    history.figures["mean_response_share"] = share
    return replace(bundle, response=bundle.response.with_share(share))


def _looked_at(
    examine: Look, bundle: Bundle, model: CFMVCModel, settings: dict[str, object], epoch: int
) -> Mapping[str, float]:
    """Examine a training's model itself: it is evaluated there, and not changed.

    All of it: what a stage does not learn it does not put into ``eval()`` either.
    """
    with evaluating(model):
        return examine(replace(bundle, model=model, settings=settings), epoch)


def _with_new_flow(trained: CFMVCModel, flow: FlowConfig) -> CFMVCModel:
    """Return a model with the trained VAE and a fresh flow of the shape asked for."""
    model = CFMVCModel(**_sizes(trained, flow))
    model.encoder.load_state_dict(trained.encoder.state_dict())
    model.decoder.load_state_dict(trained.decoder.state_dict())
    return model


def vectors_of(embeddings: pd.DataFrame, vocabulary: Vocabulary) -> torch.Tensor:
    """Return the embeddings as ``(K, E)``, a vector a perturbation column; 0 for the control."""
    ordered = embeddings.reindex(vocabulary.perturbations[1:]).to_numpy()
    return torch.from_numpy(np.vstack([np.zeros((1, ordered.shape[1])), ordered]))


def _response(
    bundle: Bundle, cells: TrainingCells, pairs: CellPairs, doses: DoseCurves
) -> MeanResponse | None:
    context = bundle.model.context
    deviation, zero = (v.double().cpu().numpy() for v in (context.embedding, context.zero))
    tables, some = [cells.train, cells.val], sampled_pairs(pairs)
    return fit_response(tables, bundle.median_library, deviation, some, zero, doses)


def _sizes(trained: CFMVCModel, flow: FlowConfig) -> dict[str, Any]:
    return {**trained.sizes, **flow_shape(flow)}


def _replaced(bundle: Bundle, model: CFMVCModel, settings: dict[str, object]) -> Bundle:
    return replace(bundle, model=model.eval(), settings=settings)
