"""A training that is stopped anywhere goes on to the same bits."""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cfmvc.errors import CheckpointError, NonFiniteError, Preempted, StoppedEarly
from cfmvc.models import CFMVCModel
from cfmvc.stages import TrainingCells, fit_flow, fit_vae
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.checkpoint import Checkpoints
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.events import TrainingEvent
from cfmvc.training.history import History
from cfmvc.training.loop import train
from cfmvc.training.objectives import VaeObjective
from cfmvc.training.sources import TableSource
from cfmvc.training.termination import asked_to_stop

CPU = torch.device("cpu")


class Stopped(Exception):  # noqa: N818
    """Stands for the end of the process."""


def engine(folder: Path) -> Engine:
    """Return an engine that saves after every step."""
    return Engine(checkpoints=lambda stage: Checkpoints(folder / stage, "same", 0.0))


class StopAt:
    """A source that ends the process, so to speak, before one of its steps."""

    def __init__(self, inner: TableSource, step: int) -> None:
        self.inner, self.left = inner, step
        self.n_cells, self.n_steps = inner.n_cells, inner.n_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Any:
        for cells in self.inner.epoch(epoch, first_step):
            if self.left == 0:
                raise Stopped
            self.left -= 1
            yield cells


def trained(
    cells: TrainingCells,
    config: VaeConfig,
    how: Engine | None,
    stop_at: int | None = None,
    watching: Any = (),
    source: Any = None,
) -> tuple[dict[str, torch.Tensor], History]:
    torch.manual_seed(0)
    source = source or TableSource(cells.train, 16, 0, CPU)
    sizes = (cells.train.n_genes, 2, 2, 3)
    model = CFMVCModel(*sizes, 4, 2, 16, dropout_vae=0.2)
    if stop_at is not None:
        source = StopAt(source, stop_at)
    objective = VaeObjective(model, 1.0, 0.3, lambda_adv=0.1, lambda_batch=0.1)
    history = train(
        "train_vae",
        objective,
        source,
        TableSource(cells.val, 16, 0, CPU),
        config,
        CPU,
        watching,
        how,
    )
    return model.state_dict(), history


def without_clock(history: History) -> list[dict[str, float]]:
    machine = ("cells_per_second", "step_seconds", "peak_rss_gib")
    return [{k: v for k, v in row.items() if k not in machine} for row in history.rows]


@pytest.mark.parametrize("stop_at", [1, 7, 8, 13, 23])
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(
    stop_at: int, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    config = vae_config.model_copy(update={"ema_decay": 0.9})
    expected, course = trained(cells, config, None)
    with pytest.raises(Stopped):
        trained(cells, config, engine(tmp_path), stop_at)
    found, resumed = trained(cells, config, engine(tmp_path))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert without_clock(resumed) == without_clock(course)
    engine(tmp_path).checkpoints("train_vae").clear()
    assert not list(tmp_path.rglob("*.safetensors"))  # nothing is left of what is finished


def test_flow_stopped_between_epochs_goes_on_to_the_same_bits(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig, tmp_path: Path
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    expected, _ = fit_flow(bundle, cells, flow_config, CPU)

    class Stop(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            if state.epoch == 2:
                raise Stopped

    with pytest.raises(Stopped):
        fit_flow(bundle, cells, flow_config, CPU, [Stop()], engine(tmp_path))
    found, _ = fit_flow(bundle, cells, flow_config, CPU, (), engine(tmp_path))
    for name, value in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


@pytest.fixture
def _ctrl_c_is_heard() -> Iterator[None]:
    """A suite in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
@pytest.mark.parametrize(("sent", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_saves_between_steps_and_ends(
    sent: signal.Signals, name: str, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    expected, _ = trained(cells, vae_config, None)
    slow = Engine(checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 3600.0))
    before = signal.getsignal(sent)

    class Stopping(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            if state.epoch == 1:
                os.kill(os.getpid(), sent)

    with pytest.raises(Preempted, match=f"stopped by {name} after step 8") as ended:
        trained(cells, vae_config, slow, watching=[Stopping()])
    assert ended.value.exit_code == 128 + sent
    assert signal.getsignal(sent) == before
    found, _ = trained(cells, vae_config, slow)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("_ctrl_c_is_heard")
@pytest.mark.parametrize("n_times", [1, 2])
def test_ctrl_c_waits_for_nothing_without_checkpoints_or_said_twice(
    n_times: int, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    slow = Engine(checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 3600.0))

    class Stopping(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            for _ in range(n_times):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(cells, vae_config, slow if n_times == 2 else None, watching=[Stopping()])
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_a_signal_is_not_lost_where_a_training_ends_otherwise(
    cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    """A look at a model takes seconds, and may prune its trial: the next one is not to begin."""
    slow = Engine(checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 3600.0))

    class Pruned(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            raise StoppedEarly("worse than the others")

    with pytest.raises(KeyboardInterrupt):
        trained(cells, vae_config, slow, watching=[Pruned()])


def test_where_nothing_can_be_saved_a_signal_does_not_hide_it(
    cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    slow = Engine(checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 3600.0))

    class Unmounted(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            shutil.rmtree(tmp_path / "train_vae", ignore_errors=True)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(CheckpointError, match="could not be written") as raised:
        trained(cells, vae_config, slow, watching=[Unmounted()])
    failed = RuntimeError("a trial")
    failed.__cause__ = raised.value
    assert asked_to_stop(failed) == signal.SIGTERM, "a study is not to begin the next trial"
    assert asked_to_stop(RuntimeError("of itself")) is None


def test_sigterm_in_the_last_epoch_is_not_lost(
    cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    expected, _ = trained(cells, vae_config, None)

    class Terminated(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            if state.epoch == vae_config.n_epochs:
                os.kill(os.getpid(), signal.SIGTERM)

    slow = Engine(checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 3600.0))
    with pytest.raises(Preempted, match="after step 24; started again"):
        trained(cells, vae_config, slow, watching=[Terminated()])
    found, _ = trained(cells, vae_config, slow)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_comes_after_a_training_may_be_killed_and_the_training_is_not_repeated(
    cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    """Until whoever has asked for it has kept what was trained."""

    class Counting(NoCallback):
        n_epochs = 0

        def on_epoch_end(self, state: TrainingState) -> None:
            self.n_epochs += 1

    kept = engine(tmp_path)
    counted = [Counting(), Counting(), Counting()]
    first, _ = trained(cells, vae_config, kept, watching=[counted[0]])
    again, history = trained(cells, vae_config, kept, watching=[counted[1]])
    assert (counted[0].n_epochs, counted[1].n_epochs) == (vae_config.n_epochs, 0)
    assert len(history.rows) == vae_config.n_epochs
    assert all(torch.equal(again[name], value) for name, value in first.items())
    for folder in tmp_path.iterdir():
        Checkpoints(folder, "same", 0.0).clear()
    trained(cells, vae_config, kept, watching=[counted[2]])
    assert counted[2].n_epochs == vae_config.n_epochs


# The fault comes once: what goes on from before the rollback meets it again.
@pytest.mark.parametrize(("stop_at", "n_left"), [(9, 1), (11, 1), (13, 0)])
def test_a_stop_around_a_rollback_changes_nothing(
    stop_at: int, n_left: int, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    config = vae_config.model_copy(update={"nan_policy": "rollback"})
    expected, course = trained(cells, config, None, source=spoilt(cells, 1))
    with pytest.raises(Stopped):
        trained(cells, config, engine(tmp_path), stop_at, source=spoilt(cells, 1))
    found, resumed = trained(cells, config, engine(tmp_path), source=spoilt(cells, n_left))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert without_clock(resumed) == without_clock(course)


def spoilt(cells: TrainingCells, n_times: int) -> Any:
    """Return an objective's source of NaN: the first ``n_times`` it meets step 5, it is spoilt."""

    class Spoilt(TableSource):
        left = n_times

        def epoch(self, epoch: int, first_step: int = 0) -> Any:
            for number, step in enumerate(super().epoch(epoch, first_step), first_step):
                if epoch == 1 and number == 2 and Spoilt.left:
                    Spoilt.left -= 1
                    yield replace(step, take=lambda part, step=step: nan_in(step.take(part)))
                else:
                    yield step

    return Spoilt(cells.train, 16, 0, CPU)


def nan_in(cells: Any) -> Any:
    x = cells.x.clone()
    x[0, 0] = float("nan")
    return replace(cells, x=x)


def test_rollback_goes_back_with_half_the_rate(cells: TrainingCells, vae_config: VaeConfig) -> None:
    config = vae_config.model_copy(update={"nan_policy": "rollback", "lr_end": 1.0})
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    history = train("s", VaeObjective(model, 1.0), spoilt(cells, 1), None, config, CPU)
    assert [event.kind for event in history.events] == ["nan", "rollback"]
    assert history.events[1].action == "back to step 8, learning rate times 0.5"
    assert history.rows[-1]["lr"] == pytest.approx(config.lr / 2)
    assert [row["step"] for row in history.rows] == [8, 16, 24]


def test_the_first_bad_step_is_the_first_whatever_comes_after_a_rollback(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"nan_policy": "rollback"})
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    history = train("s", VaeObjective(model, 1.0), spoilt(cells, 3), None, config, CPU)
    vetoed = [event.step for event in history.events if event.kind == "nan"]
    assert len(vetoed) == 3
    assert history.nan_step == vetoed[0]


def test_rollback_gives_up_on_what_does_not_go_away(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"nan_policy": "rollback"})
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    with pytest.raises(NonFiniteError, match="went back 8 times"):
        train("s", VaeObjective(model, 1.0), spoilt(cells, 99), None, config, CPU)


def test_a_training_that_goes_back_lets_go_of_the_cells_that_it_was_at(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    """An epoch that is left holds what is read ahead of it."""
    n_open: list[int] = [0]
    most: list[int] = [0]
    source = spoilt(cells, 6)

    class Counted(type(source)):
        def epoch(self, epoch: int, first_step: int = 0) -> Any:
            n_open[0] += 1
            most[0] = max(most[0], n_open[0])
            try:
                yield from super().epoch(epoch, first_step)
            finally:
                n_open[0] -= 1

    config = vae_config.model_copy(update={"nan_policy": "rollback"})
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    counted = Counted(cells.train, 16, 0, CPU)
    history = train("s", VaeObjective(model, 1.0), counted, None, config, CPU)
    assert [event.kind for event in history.events].count("rollback") == 6
    assert (most[0], n_open[0]) == (1, 0)


def test_abort_stops_at_the_first(cells: TrainingCells, vae_config: VaeConfig) -> None:
    config = vae_config.model_copy(update={"nan_policy": "abort"})
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    with pytest.raises(NonFiniteError, match=r"step 10 \(first non-finite: input\)"):
        train("s", VaeObjective(model, 1.0), spoilt(cells, 1), None, config, CPU)


class Told(NoCallback):
    """Keeps what it is told, of before and after a stop."""

    def __init__(self) -> None:
        self.rows: list[float] = []
        self.events: list[tuple[str, int, bool]] = []

    def on_resume(self, state: TrainingState, history: History) -> None:
        self.rows += [row["train_loss"] for row in history.rows]
        self.on_events(state, history.events)

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        self.events += [(event.kind, event.step, bool(event.black_box)) for event in events]

    def on_epoch_end(self, state: TrainingState) -> None:
        self.rows.append(state.metrics["train_loss"])


@pytest.mark.parametrize("stop_at", [3, 13])
def test_who_watches_is_told_all_that_was_before_the_stop(
    stop_at: int, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    cells.train.counts.data[3] = float("nan")
    whole, resumed = Told(), Told()
    boxes = {name: Engine(black_boxes=tmp_path / name) for name in ("whole", "resumed")}
    trained(cells, vae_config, boxes["whole"], watching=[whole])
    saving = replace(boxes["resumed"], checkpoints=engine(tmp_path / "kept").checkpoints)
    with pytest.raises(Stopped):
        trained(cells, vae_config, saving, stop_at)
    trained(cells, vae_config, saving, watching=[resumed])
    assert resumed.rows == whole.rows
    assert resumed.events == whole.events
    assert sum(has_box for _, _, has_box in resumed.events) == 1
