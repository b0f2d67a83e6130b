"""Generation of 10,000 cells: the engine, against batches of 64 with a context at each step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from benchmarks.engine.cells import CPU, BenchCells, bench_cells, flow_config, vae_config
from benchmarks.engine.profiling import profile_of
from benchmarks.engine.roofline import roofline
from benchmarks.engine.rounds import Contest, ratios, spread, threads
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from benchmarks.reference.generate import CELLS_AT_A_TIME, reference_counts, reference_means
from cfmvc.models import Bundle
from cfmvc.stages import fit_flow, fit_vae, predict_cells

BAR = Bar(30.0, "at_least")
N_CELLS, N_STEPS = 10_000, 20
TOLERANCE = 1e-4
_SHORT = 640


@dataclass
class Asked:
    """Virtual cells asked for: conditions, sources, technical latents and library sizes."""

    p: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    z_0: torch.Tensor
    z_tech: torch.Tensor
    library: torch.Tensor

    @classmethod
    def of(cls, bundle: Bundle, cells: BenchCells, n_cells: int) -> "Asked":
        """Draw conditions and controls of the training cells, with a fixed seed."""
        reference = bundle.model.reference
        assert reference is not None
        torch.manual_seed(0)
        kept = reference.select(~reference.is_control)
        rows = torch.randint(len(kept), (n_cells,))
        asked = kept.select(rows)
        controls = reference.select(reference.is_control)
        origin = controls.select(torch.randint(len(controls), (n_cells,)))
        return cls(
            asked.p,
            asked.batch,
            asked.cell_type,
            origin.int_mean,
            origin.tech_mean,
            origin.library,
        )

    def first(self, n: int) -> "Asked":
        """Return the first cells, for a short try."""
        return Asked(*(value[:n] for value in self.__dict__.values()))

    def to(self, device: torch.device) -> "Asked":
        """Return the same on a device."""
        return Asked(*(value.to(device) for value in self.__dict__.values()))


def trained(cells: BenchCells) -> Bundle:
    """Return a model that knows enough for its velocities to be other than noise."""
    bundle, _ = fit_vae(cells.training, vae_config(2), CPU)
    return fit_flow(bundle, cells.training, flow_config(2), CPU)[0]


def our_means(bundle: Bundle, asked: Asked, n_steps: int = N_STEPS) -> torch.Tensor:
    """Return the means of all cells by the engine, ``(n_cells, n_genes)``."""
    return bundle.model.generate_expression(
        asked.p,
        asked.batch,
        asked.cell_type,
        n_steps=n_steps,
        library=asked.library,
        z_0=asked.z_0,
        z_tech=asked.z_tech,
    )


def their_means(bundle: Bundle, asked: Asked, n_steps: int = N_STEPS) -> torch.Tensor:
    """Return the means of all cells by the reference."""
    return reference_means(
        bundle.model,
        asked.p,
        asked.batch,
        asked.cell_type,
        n_steps,
        asked.z_0,
        asked.z_tech,
        asked.library,
    )


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference of means, relative to means above one count."""
    return float(((ours - theirs).abs() / theirs.abs().clamp_min(1.0)).max())


def conditions_of(cells: BenchCells, n_cells: int) -> pd.DataFrame:
    """Return a table of perturbed conditions for ``predict_cells``, ``n_cells`` in all."""
    obs = cells.train_adata.obs[["perturbation", "batch", "cell_type"]].astype(str)
    kinds = obs[obs["perturbation"] != "control"].drop_duplicates().reset_index(drop=True)
    kinds = kinds.head(n_cells)
    sizes = np.full(len(kinds), n_cells // len(kinds))
    sizes[: n_cells - sizes.sum()] += 1
    return kinds.assign(n_cells=sizes)


def run(setting: Setting) -> list[Row]:
    """Measure the means alone (the same output on both sides), and the whole prediction."""
    cells = bench_cells()
    bundle = trained(cells)
    asked = Asked.of(bundle, cells, N_CELLS)
    difference = largest_difference(our_means(bundle, asked), their_means(bundle, asked))
    few = asked.first(_SHORT)
    means = _contest(
        setting.n_rounds,
        {"ours": lambda: our_means(bundle, asked), "reference": lambda: their_means(bundle, asked)},
        {"ours": lambda: our_means(bundle, few), "reference": lambda: their_means(bundle, few)},
    )
    row = Row(
        f"inference of {N_CELLS:,} cells, {N_STEPS} Euler steps, CPU: means",
        spread(means.best("ours")),
        spread(means.best("reference")),
        "s",
        "64 at a time, context at each step",
        ratios(means.best("reference"), means.best("ours")),
        BAR,
        {f"same z_0, same means to {TOLERANCE:g}": difference <= TOLERANCE},
        [
            "given: conditions, encoded sources, technical latents, library sizes; made: the "
            f"means, {N_CELLS:,} x {cells.train.n_genes:,} (flow and decoder)",
            means.note(1.0, " s"),
            f"largest difference of the means: {difference:.1e} (relative above one count)",
            *roofline(bundle.model, N_CELLS, N_STEPS, spread(means.best("reference")).median),
        ],
    )
    with threads(means.threads["ours"]):
        explained = row.explained(lambda: profile_of(lambda: our_means(bundle, asked), 1, "call"))
    return [explained, _whole(setting, cells, bundle, asked)]


def _whole(setting: Setting, cells: BenchCells, bundle: Bundle, asked: Asked) -> Row:
    conditions, few = conditions_of(cells, N_CELLS), conditions_of(cells, _SHORT)
    fewer = asked.first(_SHORT)

    def ours(table: pd.DataFrame) -> AnnData:
        return predict_cells(bundle, table, seed=0, n_steps=N_STEPS).cells

    contest = _contest(
        setting.n_rounds,
        {"ours": lambda: ours(conditions), "reference": lambda: _their_cells(bundle, asked)},
        {"ours": lambda: ours(few), "reference": lambda: _their_cells(bundle, fewer)},
    )
    return Row(
        f"inference of {N_CELLS:,} cells, CPU: predict_cells, whole",
        spread(contest.best("ours")),
        spread(contest.best("reference")),
        "s",
        "64 at a time, context at each step",
        ratios(contest.best("reference"), contest.best("ours")),
        notes=[
            f"{len(conditions)} conditions; made: means, counts drawn from the negative binomial "
            "(CSR), an AnnData; sources are the controls that the model keeps. The reference "
            "draws counts batch by batch and is given its sources",
            contest.note(1.0, " s"),
        ],
    )


def _their_cells(bundle: Bundle, asked: Asked) -> AnnData:
    means = their_means(bundle, asked)
    theta = bundle.model.decoder.theta.detach()
    parts = [
        csr_matrix(reference_counts(mean, theta).numpy().astype(np.int32))
        for mean in means.split(CELLS_AT_A_TIME)
    ]
    return AnnData(layers={"counts": vstack(parts, format="csr"), "mean": means.numpy()})


def _contest(
    n_rounds: int,
    sides: dict[str, Callable[[], Any]],
    short: dict[str, Callable[[], Any]],
) -> Contest:
    contest = Contest(
        {name: timed(work) for name, work in sides.items()},
        {name: timed(work) for name, work in short.items()},
    )
    contest.run(n_rounds)
    return contest


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that does the work and returns its seconds."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return run
