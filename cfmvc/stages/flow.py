"""Stage 2, and the optional stage 3: config + latents + model -> loop."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from cfmvc.data.dataset import Cells, CellTable
from cfmvc.models.bundle import Bundle
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.compute import seeded
from cfmvc.stages.vae import TrainingCells, flow_shape
from cfmvc.training.callbacks import Callback
from cfmvc.training.config import FlowConfig, JointConfig
from cfmvc.training.loop import History, train
from cfmvc.training.objectives import FlowObjective, JointObjective
from cfmvc.training.sources import LatentSource, TableSource, encode_latents

_ENCODE_CELLS = 4096  # cells encoded at a time
_KEPT_PER_CONDITION = 500  # reference cells that a model keeps of each condition


def fit_flow(
    bundle: Bundle,
    cells: TrainingCells,
    flow: FlowConfig,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
) -> tuple[Bundle, History]:
    """Train the flow in the latents of a trained VAE, which stays as it is.

    Parameters
    ----------
    bundle
        From :func:`~cfmvc.stages.vae.fit_vae`.
    cells, flow, device, callbacks
        As there.

    Returns
    -------
    bundle
        The model, complete: a new flow, and reference cells to generate from.
    history
        The course of the training.
    """
    with seeded(flow.seed, device):
        model = _with_new_flow(bundle.model, flow).to(device)
        latents = [encode_latents(model, _all(table, device)) for table in (cells.train, cells.val)]
        model.fit_standardisation(latents[0].mean, latents[0].std)
        sources = [
            LatentSource(
                some,
                model,
                flow.cells_per_step,
                flow.seed,
                flow.coupling,
                flow.recouple_every,
                controls=latents[0],
            )
            for some in latents
        ]
        history = train(
            "train_flow",
            FlowObjective(model, flow.lambda_dist, flow.lambda_reg),
            sources[0],
            sources[1] if sources[1].n_cells else None,
            flow,
            device,
            callbacks,
        )
        model.reference = reference_cells(model, cells.train, device)
    settings = {**bundle.settings, "flow": flow.model_dump()}
    return _replaced(bundle, model, settings), history


def fit_joint(
    bundle: Bundle,
    cells: TrainingCells,
    joint: JointConfig,
    lambda_dist: float,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
) -> tuple[Bundle, History]:
    """Fine-tune encoder, decoder and flow together, the ELBO still in the loss."""
    with seeded(joint.seed, device):
        model = bundle.model
        history = train(
            "train_joint",
            JointObjective(model, joint.beta, joint.lambda_flow, lambda_dist, joint.tech_penalty),
            TableSource(cells.train, joint.cells_per_step, joint.seed, device),
            TableSource(cells.val, joint.cells_per_step, joint.seed, device)
            if len(cells.val)
            else None,
            joint,
            device,
            callbacks,
        )
        model.reference = reference_cells(model, cells.train, device)
    return _replaced(bundle, model, {**bundle.settings, "joint": joint.model_dump()}), history


@torch.no_grad()
def reference_cells(
    model: CFMVCModel, table: CellTable, device: torch.device, most: int = _KEPT_PER_CONDITION
) -> ReferenceCells:
    """Encode up to ``most`` cells of each condition, for the model to keep.

    Parameters
    ----------
    model
        With a trained VAE.
    table
        Training cells.
    device
        Where the model is.
    most
        Cells of each condition, drawn with a fixed seed.
    """
    rng = np.random.default_rng(0)
    key = np.stack([table.condition, table.batch, table.cell_type], axis=1)
    _, member = np.unique(key, axis=0, return_inverse=True)
    order = rng.permutation(len(table))
    rank = np.empty(len(table), dtype=np.int64)
    by_condition = order[np.argsort(member.reshape(-1)[order], kind="stable")]
    starts = np.searchsorted(member.reshape(-1)[by_condition], np.arange(member.max() + 1))
    rank[by_condition] = np.arange(len(table)) - starts[member.reshape(-1)[by_condition]]
    return encode_reference(model, table.subset(np.flatnonzero(rank < most)), device)


@torch.no_grad()
def encode_reference(model: CFMVCModel, table: CellTable, device: torch.device) -> ReferenceCells:
    """Encode all cells of a table."""
    model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    for some in _all(table, device):
        q = model.encoder.posterior(some.x, some.batch, some.cell_type)
        int_std, tech_std = torch.exp(0.5 * q.int_logvar), torch.exp(0.5 * q.tech_logvar)
        moments = (q.int_mean, int_std, q.tech_mean, tech_std)
        place = () if some.spatial is None else (some.spatial,)
        parts.append((some.p, some.batch, some.cell_type, some.x.sum(1), *moments, *place))
    return ReferenceCells(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _all(table: CellTable, device: torch.device) -> Iterator[Cells]:
    """Yield all cells in order; an empty table yields one empty set of cells."""
    for start in range(0, max(len(table), 1), _ENCODE_CELLS):
        yield table.cells(slice(start, start + _ENCODE_CELLS), device)


def _with_new_flow(trained: CFMVCModel, flow: FlowConfig) -> CFMVCModel:
    """Return a model with the trained VAE and a fresh flow of the shape asked for."""
    model = CFMVCModel(**{**trained.sizes, **flow_shape(flow)})
    model.encoder.load_state_dict(trained.encoder.state_dict())
    model.decoder.load_state_dict(trained.decoder.state_dict())
    return model


def _replaced(bundle: Bundle, model: CFMVCModel, settings: dict[str, object]) -> Bundle:
    return Bundle(
        model.eval(), bundle.vocabulary, bundle.gene_names, bundle.median_library, settings
    )
