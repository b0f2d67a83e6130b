"""Stage 1, a step: the engine against a loop over a ``DataLoader`` with the dense likelihood."""

import time
from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader

from benchmarks.engine.cells import (
    CELLS_PER_STEP,
    CPU,
    SHORT_CELLS,
    BenchCells,
    bench_cells,
    new_model,
    section,
    vae_config,
)
from benchmarks.engine.profiling import profile_of
from benchmarks.engine.rounds import Contest, ratios, spread, threads
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from benchmarks.reference.likelihood import dense_nb_log_likelihood
from benchmarks.reference.steps import Course
from benchmarks.reference.vae import train_reference_vae
from cfmvc.data import SingleCellDataset, collate_fn_cfm
from cfmvc.models import CFMVCModel
from cfmvc.stages import fit_vae
from cfmvc.training.config import FlowConfig

BAR = Bar(1.8, "at_least")
_TIMED_EPOCHS = 1
_SCORED_EPOCHS = 6


@dataclass
class Both:
    """Both sides of the row, and what their last run gave besides its time."""

    cells: BenchCells
    whole: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "reference": []})
    loading: list[float] = field(default_factory=list)

    def ours(self, n_epochs: int = _TIMED_EPOCHS) -> float:
        """Train with the engine; return seconds a step."""
        started = time.perf_counter()
        _, history = fit_vae(self.cells.training, vae_config(n_epochs), CPU)
        self.whole["ours"].append(time.perf_counter() - started)
        assert history.rows[-1]["step"] == n_epochs * self.cells.n_steps
        return sum(row["step_seconds"] for row in history.rows) / n_epochs

    def reference(self, n_epochs: int = _TIMED_EPOCHS) -> float:
        """Train with the reference; return seconds a step."""
        started = time.perf_counter()
        _, course = trained_reference(self.cells, n_epochs)
        self.whole["reference"].append(time.perf_counter() - started)
        self.loading.append(course.loading_seconds / course.seconds)
        return course.step_seconds


def trained_reference(cells: BenchCells, n_epochs: int) -> tuple[CFMVCModel, Course]:
    """Train the reference on the loss that both sides are scored by."""
    config = vae_config(n_epochs)
    model = new_model(cells, config, section("flow", FlowConfig))
    course = train_reference_vae(
        model,
        cells.train,
        n_epochs * cells.n_steps,
        CELLS_PER_STEP,
        config.beta,
        config.tech_penalty,
        config.grad_clip_max_norm,
    )
    return model.eval(), course


@torch.no_grad()
def validation_loss(
    model: CFMVCModel, dataset: SingleCellDataset, beta: float, tech_penalty: float
) -> tuple[float, float]:
    """Return the loss on validation cells and its ``-log p``, in nats a cell, double precision.

    Latents are the posterior's means; one function for both sides.
    """
    model.eval()
    total, reconstruction = 0.0, 0.0
    for batch in DataLoader(dataset, batch_size=500, collate_fn=collate_fn_cfm):
        x = batch["x"]
        z_int, z_tech, kl_int, kl_tech = model.encoder(x, batch["batch"], batch["cell_type"])
        mean, theta = model.decoder(z_int, z_tech, x.sum(1))
        log_p = dense_nb_log_likelihood(x.double(), mean.double(), theta.double()).sum(1)
        reconstruction -= float(log_p.sum())
        total += float((beta * (kl_int + tech_penalty * kl_tech) - log_p).sum())
    return total / len(dataset), reconstruction / len(dataset)


def run(setting: Setting) -> list[Row]:
    """Measure the row."""
    cells = bench_cells()
    both, short = Both(cells), Both(cells.few(SHORT_CELLS))
    contest = Contest(
        {"ours": both.ours, "reference": both.reference},
        {"ours": lambda: short.ours(1), "reference": lambda: short.reference(1)},
    )
    contest.run(setting.n_rounds)
    with threads(contest.threads["ours"]):
        bundle, _ = fit_vae(cells.training, vae_config(_SCORED_EPOCHS), CPU)
    with threads(contest.threads["reference"]):
        plain, _ = trained_reference(cells, _SCORED_EPOCHS)
    config = vae_config(1)
    scores = [
        validation_loss(model, cells.val, config.beta, config.tech_penalty)
        for model in (bundle.model, plain)
    ]
    row = Row(
        "stage 1, CPU, one optimiser step of 64 cells",
        spread(contest.best("ours"), 1e3),
        spread(contest.best("reference"), 1e3),
        "ms",
        "DataLoader and dense lgamma",
        ratios(contest.best("reference"), contest.best("ours")),
        BAR,
        {"validation loss equal or better": scores[0][0] <= scores[1][0]},
        _notes(cells, both, contest, scores),
    )
    with threads(contest.threads["ours"]):
        return [row.explained(lambda: _profile(cells))]


def _profile(cells: BenchCells) -> str:
    return profile_of(lambda: fit_vae(cells.training, vae_config(1), CPU), cells.n_steps)


def _notes(
    cells: BenchCells, both: Both, contest: Contest, scores: list[tuple[float, float]]
) -> list[str]:
    whole = [spread(both.whole[side]).text(" s") for side in ("ours", "reference")]
    return [
        f"{cells.describe()}; {_TIMED_EPOCHS * cells.n_steps} steps a round on each side",
        contest.note(1e3, " ms"),
        f"validation loss after {_SCORED_EPOCHS} epochs (same cells, same function, float64): "
        f"ours {scores[0][0]:.2f}, reference {scores[1][0]:.2f} nats a cell "
        f"(-log p alone: {scores[0][1]:.2f}, {scores[1][1]:.2f})",
        f"of the reference's step, waiting for the loader: {spread(both.loading).median:.0%}",
        f"whole call of {_TIMED_EPOCHS} epoch (ours with its validation and last encoding): "
        f"ours {whole[0]}, reference {whole[1]}",
        "ours as shipped (push between batches, averaged weights, NaN guard at every step); "
        "the reference starts from the same mean profile and minimises the scored loss alone",
    ]
