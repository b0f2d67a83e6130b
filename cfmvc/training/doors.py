"""The functions that users call by hand with their own loaders; thin doors to the one engine."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from cfmvc.errors import ConfigError
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.neighbours import with_neighbours
from cfmvc.models.reference import KEPT_PER_CONDITION, encode_cells
from cfmvc.training.config import LoopConfig
from cfmvc.training.loop import train
from cfmvc.training.objectives import FlowObjective, JointObjective, VaeObjective
from cfmvc.training.sources import LatentSource, LoaderSource

Loader = Iterable[Mapping[str, Any]]


def train_vae_stage(
    model: CFMVCModel,
    train_loader: Loader,
    val_loader: Loader | None = None,
    n_epochs: int = 50,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-5,
    beta: float = 1.0,
    grad_clip_max_norm: float = 1.0,
    nan_check_interval: int = 10,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Train encoder and decoder (stage 1).

    Parameters
    ----------
    model
        Changed in place; with ``val_loader`` it ends with the weights of the best epoch.
    train_loader, val_loader
        Loaders of :class:`~cfmvc.data.SingleCellDataset` with ``collate_fn_cfm``.
    n_epochs, learning_rate, weight_decay, beta, grad_clip_max_norm
        Of the optimisation.
    nan_check_interval
        Steps between looks at the NaN flags.
    device
        The model's own if not given.

    Returns
    -------
    dict
        ``train_loss`` and ``val_loss`` (lists, one value an epoch), ``nan_step`` (first vetoed
        step, or None) and ``nan_events``.
    """
    where = _place(model, device)
    config = _loop_config(
        n_epochs, learning_rate, weight_decay, grad_clip_max_norm, nan_check_interval
    )
    source = LoaderSource(train_loader, where)
    validation = _source(val_loader, where)
    history = train("train_vae", VaeObjective(model, beta), source, validation, config, where)
    _settle(model, source)
    _remember(model, source)
    return history.as_dict()


def train_flow_stage(
    model: CFMVCModel,
    train_loader: Loader,
    val_loader: Loader | None = None,
    n_epochs: int = 50,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-5,
    lambda_dist: float = 0.0,
    freeze_vae: bool = True,
    beta: float = 1.0,
    grad_clip_max_norm: float = 1.0,
    nan_check_interval: int = 10,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Train the flow on the encoded cells (stage 2), or all parts together (stage 3).

    Parameters
    ----------
    model
        Changed in place.
    lambda_dist
        Weight of the distribution matching.
    freeze_vae
        True: cells are encoded once and the VAE is left alone. False: encoder, decoder and flow
        learn together, with the ELBO (weight ``beta`` on its KL) in the loss.
    train_loader, val_loader, n_epochs, learning_rate, weight_decay, grad_clip_max_norm
        As in :func:`train_vae_stage`.
    beta, nan_check_interval, device
        As in :func:`train_vae_stage`.

    Returns
    -------
    dict
        As from :func:`train_vae_stage`.

    Raises
    ------
    ConfigError
        If all parts are to learn and the flow is told who is around a cell.
    """
    where = _place(model, device)
    config = _loop_config(
        n_epochs, learning_rate, weight_decay, grad_clip_max_norm, nan_check_interval
    )
    loaders = [LoaderSource(train_loader, where)]
    if (validation := _source(val_loader, where)) is not None:
        loaders.append(validation)
    if not freeze_vae and model.n_neighbours:
        raise ConfigError(
            "n_neighbours: a loader's cells do not say who is around while the encoder learns; "
            "freeze the VAE"
        )
    encoded = [encode_cells(model.encoder, loader.all_cells()) for loader in loaders]
    encoded = [with_neighbours(some, encoded[0], model.n_neighbours) for some in encoded]
    model.fit_standardisation(encoded[0])
    model.context.calibrate(encoded[0].vectors, encoded[0].place)
    if not freeze_vae:
        joint = JointObjective(model, beta, lambda_dist=lambda_dist)
        for module in joint.modules():
            module.requires_grad_(True)  # a caller may have frozen the VAE for stage 2
        history = train("train_joint", joint, loaders[0], _second(loaders), config, where)
        _remember(model, loaders[0])
        return history.as_dict()
    cells_per_step = getattr(train_loader, "batch_size", None) or config.cells_per_step
    sources = [
        LatentSource(latents, model, cells_per_step, config.seed, controls=encoded[0])
        for latents in encoded
    ]
    flow = FlowObjective(model, lambda_dist)
    history = train("train_flow", flow, sources[0], _second(sources), config, where)
    _remember(model, loaders[0])
    return history.as_dict()


def _settle(model: CFMVCModel, source: LoaderSource) -> None:
    """Centre the batches in ``z_int`` by all training cells."""
    seen = encode_cells(model.encoder, source.all_cells())
    model.encoder.centring.settle(
        seen.int_mean, seen.vector, seen.is_control, seen.batch, seen.cell_type
    )


def _remember(model: CFMVCModel, source: LoaderSource) -> None:
    """Keep encoded training cells: library sizes and controls to generate from."""
    encoded = encode_cells(model.encoder, source.all_cells())
    encoded = with_neighbours(encoded.select(encoded.is_finite), encoded, model.n_neighbours)
    if len(encoded) == 0:
        return
    model.reference = encoded.bounded(KEPT_PER_CONDITION)
    model.decoder.reference_library.fill_(float(encoded.library.median().clamp_min(1.0)))
    model.eval()


def _source(loader: Loader | None, where: torch.device) -> LoaderSource | None:
    """Return the cells of a validation; None, if there are none."""
    source = None if loader is None else LoaderSource(loader, where)
    return source if source is not None and source.n_cells else None


def _second(sources: list[Any]) -> Any:
    return sources[1] if len(sources) > 1 and sources[1].n_cells else None


def _place(model: CFMVCModel, device: torch.device | str | None) -> torch.device:
    where = model.latent_mean.device if device is None else torch.device(device)
    model.to(where)
    return where


def _loop_config(
    n_epochs: int, lr: float, weight_decay: float, max_norm: float, nan_check_interval: int
) -> LoopConfig:
    """Return a plain schedule: constant rate, no averaging, no early stop."""
    return LoopConfig(
        n_epochs=n_epochs,
        cells_per_step=64,
        lr=lr,
        weight_decay=weight_decay,
        lr_warmup=0.0,
        lr_end=1.0,
        grad_clip_max_norm=max_norm,
        ema_decay=0.0,
        patience=max(n_epochs, 1),
        validate_every=1,
        nan_check_interval=nan_check_interval,
        nan_policy="skip",
        max_consecutive_vetoes=50,
        seed=0,
    )
