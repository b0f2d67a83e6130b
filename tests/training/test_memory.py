"""What a stage is expected to need, and what processes have really needed."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.memory.case import Case, measured
from cfmvc.stages import TrainingCells, fit_flow, fit_joint, fit_vae
from cfmvc.stages.memory import DataShape, vae_memory
from cfmvc.stages.vae import model_sizes
from cfmvc.training.callbacks import NoCallback
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.memory import ExpectedMemory, MemoryEstimate
from cfmvc.training.memory_meter import MemoryNow, left_in_container, memory_now, peak_memory
from tests.training.conftest import LOOP

CPU = torch.device("cpu")
GIB = 1024**3
LARGE = Case(n_cells=2500, n_genes=5000, cells_per_step=2048, hidden_dim=512)  # a step an epoch
CASES = [
    Case(n_cells=2000, n_genes=5000, cells_per_step=512, hidden_dim=512),
    Case(n_cells=5000, n_genes=500, cells_per_step=4096, hidden_dim=512),
    Case("flow", n_cells=2000, n_genes=500, cells_per_step=512, lambda_dist=1.0),
]
SLOW = [
    LARGE,
    replace(LARGE, n_parts=4),
    Case("flow", 2500, 5000, cells_per_step=256),
    Case("joint", 2000, 5000, cells_per_step=512, lambda_dist=1.0),
]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *SLOW], ids=lambda case: f"{case.stage}-{case.n_genes}")
def test_a_process_needs_what_was_expected(case: Case) -> None:
    outcome = measured(case)
    # Far below that, pages of code and the interpreter's own are a large part of so little.
    assert outcome.measured > 100
    assert outcome.expected == pytest.approx(outcome.measured, rel=0.25), outcome.table


class Told(NoCallback):
    def __init__(self) -> None:
        self.expected: list[ExpectedMemory] = []

    def on_memory(self, expected: ExpectedMemory) -> None:
        self.expected.append(expected)


def test_every_stage_says_it_before_it_trains(
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
) -> None:
    told = Told()
    joint = JointConfig(**LOOP, beta=1.0, tech_penalty=1.0, lambda_flow=1.0)
    bundle, _ = fit_vae(cells, vae_config, CPU, [told])
    bundle, _ = fit_flow(bundle, cells, flow_config, CPU, [told])
    fit_joint(bundle, cells, joint, flow_config, CPU, [told])
    assert [e.estimate.stage for e in told.expected] == ["train_vae", "train_flow", "train_joint"]
    assert all(e.peak_gib * GIB >= e.now.used for e in told.expected)
    assert not any(e.is_too_much for e in told.expected)


def estimate(vae: VaeConfig, engine: Engine, cells: TrainingCells) -> MemoryEstimate:
    shape = DataShape((100_000, 10_000), (10**8, 10**7), 20_000, 5)
    sizes = {**model_sizes(cells, vae, None), "n_genes": 20_000}
    return vae_memory(shape, sizes, vae, engine, CPU)


def test_what_is_advised_helps(cells: TrainingCells, vae_config: VaeConfig) -> None:
    large = vae_config.model_copy(update={"cells_per_step": 16_384, "hidden_dim": 2048})
    before = estimate(large, Engine(), cells)
    for change in ({"cells_per_step": 1024}, {"hidden_dim": 256}):
        less = estimate(large.model_copy(update=change), Engine(), cells)
        assert less.total < before.total
    assert estimate(large, Engine(n_parts=8), cells).total < before.total
    assert "compute.n_parts" in before.advice


def test_too_much_is_a_warning_that_says_what_to_lower() -> None:
    needed = MemoryEstimate("train_vae", "training", {"all": 8.0 * GIB}, 1.0 * GIB, "lower a.b")
    expected = ExpectedMemory(needed, MemoryNow(2.0 * GIB, 3.0 * GIB, 4.0 * GIB))
    assert expected.is_too_much
    assert expected.peak_gib == pytest.approx(9.0)
    assert "only 4 GiB are available: lower a.b" in expected.line()
    enough = replace(expected, now=MemoryNow(2.0 * GIB, 12.0 * GIB, 7.5 * GIB))
    assert "warning" not in enough.line()
    assert enough.peak_gib == pytest.approx(12.0)  # it has been that large already


def test_the_table_adds_up() -> None:
    needed = MemoryEstimate("s", "p", {"a": 2.0 * 1024**2, "b": 1024.0**2})
    assert [line.split()[-2] for line in needed.table().splitlines()[1:]] == ["2.0", "1.0", "3.0"]


def test_what_the_kernel_keeps_of_files_is_there_for_who_asks(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{7 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {5 * GIB}\n")
    names = ("memory.max", "memory.current", "inactive_file")
    assert left_in_container(tmp_path, *names) == 6 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert left_in_container(tmp_path, *names) is None


def test_the_process_knows_its_memory() -> None:
    now = memory_now(CPU)
    assert 0 < now.used <= now.peak
    assert now.available is not None
    assert now.available > 0
    held = torch.ones(100 * 1024**2 // 4)
    assert memory_now(CPU).used - now.used > 90 * 1024**2
    assert peak_memory(CPU)["peak_rss_gib"] * GIB >= now.used + held.nbytes * 0.9
