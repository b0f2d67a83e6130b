"""scvi-tools' SCVI in a process and an environment of its own: one JSON line asks, one answers.

Run by ``benchmarks.engine.scvi`` with the Python of ``make bench-env``; it imports nothing of
cfmvc. The first line is the arguments of :class:`Worker`, each further one those of a training.
"""

import time
import warnings
from importlib.metadata import version
from typing import Any

warnings.filterwarnings("ignore")

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import scvi  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.callbacks import Callback  # noqa: E402

from benchmarks.reference.answering import Answers, answer_lines  # noqa: E402
from benchmarks.reference.likelihood import dense_nb_log_likelihood  # noqa: E402

_SEED = 0


class Stopwatch(Callback):
    """Times the epochs alone, from the first one's start to the last one's end."""

    def __init__(self) -> None:
        self.started, self.seconds, self.n_steps = 0.0, 0.0, 0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 0:
            self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seconds = time.perf_counter() - self.started
        self.n_steps = int(trainer.global_step)


class Worker:
    """The cells, and what is done with them.

    Parameters
    ----------
    train, val
        Files of the cells: ``layers["counts"]`` and ``obs["batch"]``.
    n_hidden, n_latent, cells_per_step
        Sizes.
    """

    def __init__(
        self, train: str, val: str, n_hidden: int, n_latent: int, cells_per_step: int
    ) -> None:
        self.train, self.val = (_readable(path) for path in (train, val))
        self.sizes = {"n_hidden": n_hidden, "n_latent": n_latent, "n_layers": 2}
        self.cells_per_step = cells_per_step

    def answer(
        self, n_epochs: int, n_threads: int, n_cells: int | None = None, is_scored: bool = False
    ) -> dict[str, float]:
        """Train a new model; return what it took, and ``-log p`` of the validation cells.

        Parameters
        ----------
        n_epochs, n_threads
            How long, and how.
        n_cells
            Learn from the first cells only.
        is_scored
            Whether the validation cells are looked at.
        """
        torch.set_num_threads(n_threads)
        scvi.settings.seed = _SEED
        cells = self.train[:n_cells].copy()
        scvi.model.SCVI.setup_anndata(cells, layer="counts", batch_key="batch")
        model = scvi.model.SCVI(cells, gene_likelihood="nb", dispersion="gene", **self.sizes)
        watch, started = Stopwatch(), time.perf_counter()
        model.train(
            max_epochs=n_epochs,
            accelerator="cpu",
            train_size=1.0,
            batch_size=self.cells_per_step,
            check_val_every_n_epoch=None,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        whole = time.perf_counter() - started
        answer = {
            "step_seconds": watch.seconds / watch.n_steps,
            "n_steps": watch.n_steps,
            "whole_seconds": whole,
        }
        return answer | ({"minus_log_p": self._minus_log_p(model)} if is_scored else {})

    @torch.no_grad()
    def _minus_log_p(self, model: Any) -> float:
        """Return nats a cell, latents at the posterior's means, in double precision."""
        z = torch.from_numpy(model.get_latent_representation(self.val, give_mean=True))
        counts = torch.from_numpy(self.val.layers["counts"].toarray())
        manager = model.adata_manager.transfer_fields(self.val)
        batch = torch.from_numpy(np.asarray(manager.get_from_registry("batch"))).long()
        library = counts.sum(1, keepdim=True).log()
        module = model.module.to("cpu").eval()
        px = module.generative(z=z, library=library, batch_index=batch.reshape(-1, 1))["px"]
        log_p = dense_nb_log_likelihood(counts.double(), px.mu.double(), px.theta.double())
        return -float(log_p.sum(1).mean())


def _readable(path: str) -> Any:
    cells = anndata.read_h5ad(path)
    cells.layers["counts"] = cells.layers["counts"].astype(np.float32)
    return cells


def start(**arguments: Any) -> tuple[dict[str, Any], Answers]:
    """Load the cells; answer with the versions first."""
    worker = Worker(**arguments)
    return {"scvi-tools": version("scvi-tools"), "torch": torch.__version__}, worker.answer


if __name__ == "__main__":
    answer_lines(start)
