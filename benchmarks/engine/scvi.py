"""Stage 1, a step: the engine against ``SCVI`` of scvi-tools, of the same widths."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.engine.cells import CPU, SHORT_CELLS, BenchCells, bench_cells, vae_config
from benchmarks.engine.profiling import profile_of
from benchmarks.engine.rounds import Contest, ratios, spread, threads
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from benchmarks.engine.stage1 import validation_loss
from benchmarks.reference.asked import PROJECT, Asked, asked
from cfmvc.stages import fit_vae

BAR = Bar(2.0, "at_least")
WHAT = "stage 1, CPU, one optimiser step of 64 cells: against scvi-tools"
_TIMED_EPOCHS = 1
_SCORED_EPOCHS = 6
PYTHON = PROJECT / ".venv-scvi" / "bin" / "python"


@contextmanager
def scvi_of(cells: BenchCells, python: Path = PYTHON) -> Iterator[tuple[Asked, dict[str, str]]]:
    """Start the other side with these cells; yield it, and its versions."""
    vae = vae_config(1)
    with tempfile.TemporaryDirectory() as name:
        files = {part: str(Path(name) / f"{part}.h5ad") for part in ("train", "val")}
        cells.train_adata.write_h5ad(files["train"])
        cells.val_adata.write_h5ad(files["val"])
        with asked(python, "benchmarks.reference.scvi_worker", "scvi-tools") as side:
            versions = side.ask(
                **files,
                n_hidden=vae.hidden_dim,
                n_latent=vae.dim_int + vae.dim_tech,
                cells_per_step=vae.cells_per_step,
            )
            yield side, versions


@dataclass
class Both:
    """Both sides of the row, and what their runs gave besides the time of a step."""

    cells: BenchCells
    scvi: Asked
    n_cells: int | None = None  # the first ones alone, for a short try
    whole: list[float] = field(default_factory=list)
    n_steps: dict[str, int] = field(default_factory=dict)

    def ours(self) -> float:
        """Train with the engine; return seconds a step."""
        _, history = fit_vae(self.cells.training, vae_config(_TIMED_EPOCHS), CPU)
        self.n_steps["ours"] = int(history.rows[-1]["step"])
        return sum(row["step_seconds"] for row in history.rows) / _TIMED_EPOCHS

    def theirs(self) -> float:
        """Train with scvi-tools; return seconds a step."""
        n_threads = torch.get_num_threads()
        told = self.scvi.ask(n_epochs=_TIMED_EPOCHS, n_threads=n_threads, n_cells=self.n_cells)
        self.n_steps["scvi-tools"] = int(told["n_steps"])
        self.whole.append(told["whole_seconds"] / told["n_steps"])
        return float(told["step_seconds"])


def run(setting: Setting, python: Path = PYTHON) -> list[Row]:
    """Measure the row, if the other side's environment is there."""
    if not python.is_file():
        return [Row(WHAT, bar=BAR, missing="run `make bench-env`")]
    return [measured(bench_cells(), setting.n_rounds)]


def measured(cells: BenchCells, n_rounds: int) -> Row:
    """Measure the row on these cells."""
    with scvi_of(cells) as (scvi, versions):
        # The short tries warm up both sides as well.
        both, short = Both(cells, scvi), Both(cells.few(SHORT_CELLS), scvi, SHORT_CELLS)
        contest = Contest(
            {"ours": both.ours, "scvi-tools": both.theirs},
            {"ours": short.ours, "scvi-tools": short.theirs},
        )
        contest.run(n_rounds)
        best = contest.threads
        theirs = scvi.ask(n_epochs=_SCORED_EPOCHS, n_threads=best["scvi-tools"], is_scored=True)
    with threads(best["ours"]):
        bundle, _ = fit_vae(cells.training, vae_config(_SCORED_EPOCHS), CPU)
    vae = vae_config(1)
    ours = validation_loss(bundle.model, cells.val, vae.beta, vae.tech_penalty)[1]
    row = Row(
        WHAT,
        spread(contest.best("ours"), 1e3),
        spread(contest.best("scvi-tools"), 1e3),
        "ms",
        f"SCVI of scvi-tools {versions['scvi-tools']}",
        ratios(contest.best("scvi-tools"), contest.best("ours")),
        BAR,
        {"-log p of validation cells equal or better": ours <= theirs["minus_log_p"]},
        _notes(both, contest, versions, ours, theirs["minus_log_p"]),
    )
    with threads(best["ours"]):
        steps = both.n_steps["ours"]
        work = lambda: fit_vae(cells.training, vae_config(1), CPU)  # noqa: E731
        return row.explained(lambda: profile_of(work, steps))


def _notes(
    both: Both, contest: Contest, versions: dict[str, str], ours: float, theirs: float
) -> list[str]:
    steps = ", ".join(f"{name} {n}" for name, n in both.n_steps.items())
    vae = vae_config(1)
    return [
        f"{both.cells.describe()}; steps a round: {steps}",
        f"SCVI(n_hidden={vae.hidden_dim}, n_layers=2, n_latent={vae.dim_int + vae.dim_tech}, "
        "gene_likelihood='nb', dispersion='gene'), batch_key='batch', batch_size="
        f"{vae.cells_per_step}, train_size=1.0; no validation, bar, logger, checkpoint; "
        f"torch {versions['torch']}",
        contest.note(1e3, " ms"),
        "a step of scvi-tools is timed by callback over the epochs of the public train(); with "
        f"the setting up of its trainer {spread(both.whole, 1e3).text(' ms')} (all threads tried)",
        f"-log p of validation cells after {_SCORED_EPOCHS} epochs (each model's own negative "
        "binomial, observed library sizes, latents at the posterior's means, float64): ours "
        f"{ours:.2f}, scvi-tools {theirs:.2f} nats a cell; each with its own schedule of KL "
        "weight and learning rate, as shipped",
    ]
