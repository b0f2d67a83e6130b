"""One stage on cells of a given shape, in a process of its own: expected and measured peak.

python -m benchmarks.memory.case '{"stage": "vae", "n_cells": 2000, "n_genes": 500}'

On a CPU the measured peak is the growth of the resident set (``VmHWM``, Linux) above the process
after its imports; the tables of the cells are made after that, and count. On a GPU it is
``max_memory_allocated`` above the same moment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

_MIB = 1024**2


@dataclass(frozen=True)
class Case:
    """Shapes of a stage.

    Parameters
    ----------
    stage
        ``vae``, ``flow`` or ``joint``.
    n_cells, n_genes, density, n_perturbations
        Of the data; a tenth of the cells are for validation.
    cells_per_step, hidden_dim
        Of the stage's section.
    n_parts, recompute, precision
        Of the section ``compute``.
    dropout, nan_policy, lambda_dist
        What else decides which arrays there are.
    device, n_threads
        Where.
    """

    stage: str = "vae"
    n_cells: int = 2000
    n_genes: int = 2000
    density: float = 0.1
    n_perturbations: int = 6
    cells_per_step: int = 64
    hidden_dim: int = 256
    n_parts: int = 1
    recompute: bool = False
    precision: str = "float32"
    dropout: float = 0.1
    nan_policy: str = "skip"
    lambda_dist: float = 0.0
    device: str = "cpu"
    n_threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """Both peaks, in MiB, and the estimate's table."""

    expected: float
    measured: float
    table: str

    @property
    def ratio(self) -> float:
        """Expected over measured."""
        return self.expected / self.measured


def measured(case: Case) -> Outcome:
    """Run a case in a fresh process.

    Raises
    ------
    RuntimeError
        With its last words, where it fails.
    """
    command = [sys.executable, "-m", "benchmarks.memory.case", json.dumps(asdict(case))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.n_threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    case = Case(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(_run(case))))


def _run(case: Case) -> Outcome:
    import torch

    from cfmvc.stages.flow import fit_flow, fit_joint
    from cfmvc.stages.vae import fit_vae
    from cfmvc.training.callbacks import NoCallback
    from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
    from cfmvc.training.engine import Engine

    torch.set_num_threads(case.n_threads)
    device = torch.device(case.device)
    peak = _meter(device)
    seen: list[Any] = []

    class Seen(NoCallback):
        def on_memory(self, expected: Any) -> None:
            seen.append(expected.estimate)

    sections = sections_of(case)
    vae = VaeConfig(**sections["vae"])
    engine = Engine(case.precision, case.n_parts, case.recompute)  # type: ignore[arg-type]
    cells = cells_of(case)
    if case.stage == "vae":
        fit_vae(cells, vae, device, [Seen()], engine=engine)
        return Outcome(seen[0].total / _MIB, peak() / _MIB, seen[0].table())
    flow = FlowConfig(**sections["flow"])
    bundle = _untrained(cells, vae, device, None if case.stage == "flow" else flow)
    if case.stage == "flow":
        fit_flow(bundle, cells, flow, device, [Seen()], engine)
    else:
        joint = JointConfig(**sections["joint"])
        fit_joint(bundle, cells, joint, flow, device, [Seen()], engine)
    return Outcome(seen[0].total / _MIB, peak() / _MIB, seen[0].table())


def _meter(device: Any) -> Callable[[], float]:
    """Return what says how far the memory has risen since now, in bytes."""
    import torch

    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) - before
    from cfmvc.training.memory_meter import memory_now

    start = memory_now(device).used
    return lambda: memory_now(device).peak - start


def sections_of(case: Case) -> dict[str, dict[str, Any]]:
    """Return the sections as shipped, but for what the case says, and two epochs."""
    from cfmvc.config import default_params_file, read_yaml

    params = read_yaml(default_params_file())
    changed = {"n_epochs": 2, "validate_every": 1, "nan_policy": case.nan_policy}
    own = {**changed, "cells_per_step": case.cells_per_step}
    wide = {"hidden_dim": case.hidden_dim, "dropout": case.dropout}
    of_vae = own if case.stage == "vae" else changed
    return {
        "vae": {**params["vae"], **of_vae, **wide},
        "flow": {**params["flow"], **own, "lambda_dist": case.lambda_dist},
        "joint": {**params["joint"], **own},
    }


def _untrained(cells: Any, vae: Any, device: Any, flow: Any = None) -> Any:
    """Return a model as the stage before would leave it, made without that stage's peak."""
    from cfmvc.models.bundle import Bundle
    from cfmvc.models.cfmvc import CFMVCModel
    from cfmvc.stages.vae import model_sizes

    model = CFMVCModel(**model_sizes(cells, vae, flow)).to(device).eval()
    return Bundle(model, cells.vocabulary, cells.gene_names, 1000.0, {})


def cells_of(case: Case) -> Any:
    """Make the cells piece by piece, so that it takes no more memory than they do."""
    import numpy as np

    from cfmvc.data.vocabulary import Vocabulary
    from cfmvc.stages.vae import TrainingCells

    n_val = case.n_cells // 10
    names = [f"p{n}" for n in range(case.n_perturbations)]
    vocabulary = Vocabulary.of(names, ["b0", "b1", "b2"], ["t0", "t1"], "p0")
    rng = np.random.default_rng(0)
    tables = [_table(case, n, rng) for n in (case.n_cells - n_val, n_val)]
    genes = [f"g{n}" for n in range(case.n_genes)]
    return TrainingCells(tables[0], tables[1], vocabulary, genes)


def _table(case: Case, n: int, rng: Any) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix

    from cfmvc.data.dataset import CellTable

    a_cell = max(int(case.n_genes * case.density), 1)
    columns = (np.arange(a_cell) * (case.n_genes // a_cell)).astype(np.int32)
    values = np.empty(n * a_cell, np.float32)
    for start in range(0, len(values), 1 << 18):
        piece = values[start : start + (1 << 18)]
        piece[:] = rng.poisson(1.0, len(piece)) + 1
    where = np.arange(n + 1, dtype=np.int32) * a_cell
    counts = csr_matrix((values, np.tile(columns, n), where), (n, case.n_genes))
    vectors = np.eye(case.n_perturbations, dtype=np.float32)
    vectors[0] = 0.0
    codes = [rng.integers(0, most, n) for most in (case.n_perturbations, 3, 2)]
    return CellTable(counts, vectors, *codes)


def cases(**changed: Any) -> list[Case]:
    """Return the cases of the table."""
    shapes = [
        Case(n_cells=n_cells, n_genes=n_genes, cells_per_step=step, hidden_dim=hidden)
        for n_cells, n_genes, step, hidden in (
            (2000, 500, 64, 256),
            (2000, 2000, 512, 128),
            (10_000, 500, 4096, 512),
            (10_000, 2000, 64, 256),
            (10_000, 2000, 4096, 128),
            (2000, 5000, 512, 512),
            (10_000, 5000, 64, 128),
            (10_000, 5000, 512, 512),
            (10_000, 5000, 4096, 512),
            (20_000, 2000, 64, 256),
        )
    ]
    large = Case(n_cells=5000, n_genes=5000, cells_per_step=2048, hidden_dim=512)
    shapes += [
        replace(large, n_parts=4),
        replace(large, recompute=True),
        replace(large, precision="bfloat16"),
        replace(large, dropout=0.0, nan_policy="rollback"),
        Case("flow", 10_000, 5000, cells_per_step=256),
        Case("flow", 10_000, 500, cells_per_step=512, lambda_dist=1.0),
        Case("joint", 10_000, 2000, cells_per_step=512, lambda_dist=0.0),
        Case("joint", 10_000, 5000, cells_per_step=256, lambda_dist=1.0),
    ]
    return [replace(case, **changed) for case in shapes]


if __name__ == "__main__":
    main()
