"""Faults really injected: each is vetoed, found in time, and named; the weights stay."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import cfmvc.models.cfmvc as model_module
from cfmvc.errors import NonFiniteError
from cfmvc.models import CFMVCModel
from cfmvc.models.reference import encode_cells
from cfmvc.stages import TrainingCells, fit_flow, fit_vae
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.events import TrainingEvent
from cfmvc.training.loop import train
from cfmvc.training.objectives import FlowObjective, VaeObjective
from cfmvc.training.sources import LatentSource, TableSource

CPU = torch.device("cpu")
BAD_STEP = 6


class Watch(NoCallback):
    """Keeps what it is told, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[int, TrainingEvent]] = []

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        self.events += [(state.step, event) for event in events if event.kind == "nan"]


class Injector:
    """An objective that is spoilt at one step, and remembers the weights around it."""

    def __init__(self, inner: Any, spoil: Callable[[Any], Callable[[], None]]) -> None:
        self.inner, self.spoil, self.step = inner, spoil, 0
        self.weights: list[list[torch.Tensor]] = []

    def modules(self) -> list[torch.nn.Module]:
        return self.inner.modules()

    def buffers(self) -> dict[str, torch.Tensor]:
        return self.inner.buffers()

    def start_epoch(self, progress: float) -> None:
        self.inner.start_epoch(progress)

    def __call__(self, cells: Any) -> Any:
        if not self.modules()[0].training:
            return self.inner(cells)
        self.weights.append(
            [p.detach().clone() for module in self.modules() for p in module.parameters()]
        )
        self.step += 1
        if self.step - 1 != BAD_STEP:
            return self.inner(cells)
        undo = self.spoil(self.inner.model)
        try:
            return self.inner(self.spoilt(cells))
        finally:
            undo()

    def spoilt(self, cells: Any) -> Any:
        return cells


class InputInjector(Injector):
    def spoilt(self, cells: Any) -> Any:
        name = "x" if hasattr(cells, "x") else "z_int"
        values = getattr(cells, name).clone()
        values[0, 0] = float("nan")
        return replace(cells, **{name: values})


def output_of(name: str) -> Callable[[CFMVCModel], Callable[[], None]]:
    """Return a fault: NaN in the output of a module of the model."""

    def spoil(model: CFMVCModel) -> Callable[[], None]:
        module = model.get_submodule(name)

        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return output * torch.tensor([float("nan")] + [1.0] * (output.shape[1] - 1))

        return module.register_forward_hook(hook).remove

    return spoil


def gradient_of(name: str) -> Callable[[CFMVCModel], Callable[[], None]]:
    """Return a fault: infinity in the gradient of one parameter, at this step alone."""

    def spoil(model: CFMVCModel) -> Callable[[], None]:
        parameter = model.get_parameter(name)
        handle = parameter.register_hook(lambda gradient: _once(handle, gradient))
        return lambda: None  # the hook takes itself away when the gradient has passed

    return spoil


def _once(handle: Any, gradient: torch.Tensor) -> torch.Tensor:
    handle.remove()
    return gradient * float("inf")


def likelihood(_model: CFMVCModel) -> Callable[[], None]:
    """Make the likelihood of one cell infinite."""
    honest = model_module.nb_reconstruction

    def broken(*arguments: Any) -> torch.Tensor:
        return honest(*arguments) + float("inf")

    model_module.nb_reconstruction = broken  # type: ignore[assignment]

    def undo() -> None:
        model_module.nb_reconstruction = honest  # type: ignore[assignment]

    return undo


def nothing(_model: CFMVCModel) -> Callable[[], None]:
    return lambda: None


VAE_FAULTS = {
    "input": (InputInjector, nothing, "input"),
    "encoder": (Injector, output_of("encoder.moments"), "encoder"),
    "decoder": (Injector, output_of("decoder.hidden"), "decoder"),
    "likelihood": (Injector, likelihood, "likelihood"),
    "gradient": (Injector, gradient_of("decoder.log_theta"), "gradient"),
}
FLOW_FAULTS = {
    "latents": (InputInjector, nothing, "latents"),
    "velocity": (Injector, output_of("field.basis"), "velocity"),
    "gradient": (Injector, gradient_of("field.mix.weight"), "gradient"),
}


@pytest.mark.parametrize("fault", sorted(VAE_FAULTS))
def test_fault_in_the_vae(fault: str, cells: TrainingCells, vae_config: VaeConfig) -> None:
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU)
    injector, spoil, place = VAE_FAULTS[fault]
    objective = injector(VaeObjective(bundle.model, 1.0), spoil)
    source = TableSource(cells.train, 16, 0, CPU)
    check(objective, source, vae_config, place)


@pytest.mark.parametrize("fault", sorted(FLOW_FAULTS))
def test_fault_in_the_flow(
    fault: str, cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    model, source = flow_source(cells, vae_config, flow_config)
    injector, spoil, place = FLOW_FAULTS[fault]
    check(injector(FlowObjective(model), spoil), source, flow_config, place)


def flow_source(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> tuple[CFMVCModel, LatentSource]:
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU)
    bundle, _ = fit_flow(bundle, cells, flow_config.model_copy(update={"n_epochs": 1}), CPU)
    everything = np.arange(len(cells.train))
    latents = encode_cells(bundle.model.encoder, [cells.train.cells(everything, CPU)])
    return bundle.model, LatentSource(latents, bundle.model, 16, 0)


def check(objective: Injector, source: Any, config: Any, place: str) -> None:
    watch = Watch()
    history = train("stage", objective, source, None, config, CPU, [watch])
    assert len(watch.events) == 1
    told_at, event = watch.events[0]
    assert event.step == BAD_STEP
    assert told_at - BAD_STEP <= config.nan_check_interval
    assert event.place == place
    assert event.action == "update vetoed"
    assert event.parameters or place == "likelihood"  # an added infinity has no gradient
    assert 0 < len(event.cells) <= 16
    assert history.nan_step == BAD_STEP
    before, after = objective.weights[BAD_STEP], objective.weights[BAD_STEP + 1]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    later = objective.weights[BAD_STEP + 2]
    assert not all(torch.equal(a, b) for a, b in zip(after, later, strict=True))
    assert all(torch.isfinite(value).all() for value in objective.weights[-1])
    assert all(np.isfinite(row["train_loss"]) for row in history.rows)


def test_hopeless_training_stops_with_the_weights_from_before(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU)
    before = [p.detach().clone() for p in bundle.model.decoder.parameters()]
    output_of("decoder.hidden")(bundle.model)
    message = (
        r"5 updates in a row .* \(first non-finite: decoder.* training cells of that step, rows "
    )
    with pytest.raises(NonFiniteError, match=message):
        train(
            "train_vae",
            VaeObjective(bundle.model, 1.0),
            TableSource(cells.train, 16, 0, CPU),
            None,
            vae_config,
            CPU,
        )
    after = bundle.model.decoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("has_validation", [True, False])
def test_a_training_that_ends_amid_vetoes_is_no_success(
    has_validation: bool, cells: TrainingCells, vae_config: VaeConfig
) -> None:
    # Fewer steps than `max_consecutive_vetoes`: the limit alone would let it pass.
    config = vae_config.model_copy(update={"max_consecutive_vetoes": 99})
    bundle, _ = fit_vae(cells, config.model_copy(update={"n_epochs": 1}), CPU)
    output_of("decoder.hidden")(bundle.model)
    validation = TableSource(cells.val, 16, 0, CPU) if has_validation else None
    with pytest.raises(NonFiniteError, match="24 updates in a row were not finite"):
        train(
            "train_vae",
            VaeObjective(bundle.model, 1.0),
            TableSource(cells.train, 16, 0, CPU),
            validation,
            config,
            CPU,
        )


def test_a_training_without_any_update_is_no_success(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"max_consecutive_vetoes": 99})
    cells.train.counts.data[:] = np.nan  # the validation is sound, and so are the first weights
    with pytest.raises(NonFiniteError, match=r"24 updates in a row .* \(first non-finite: input"):
        fit_vae(cells, config, CPU)


def test_large_gradients_are_named_and_clipped(cells: TrainingCells, vae_config: VaeConfig) -> None:
    config = vae_config.model_copy(update={"n_epochs": 1, "nan_check_interval": 1})
    bundle, _ = fit_vae(cells, config, CPU)

    class Loud(VaeObjective):
        def __call__(self, cells: Any) -> Any:
            loss = super().__call__(cells)
            return replace(loss, total=1e6 * loss.total)

    history = train(
        "train_vae",
        Loud(bundle.model, 1.0),
        TableSource(cells.train, 16, 0, CPU),
        None,
        config,
        CPU,
    )
    assert {event.kind for event in history.events} == {"large_gradient"}
    assert "DecoderVAE.logits.bias" in history.events[0].parameters
    assert history.nan_step is None
