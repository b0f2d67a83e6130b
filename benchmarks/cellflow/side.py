"""The other side of a fold: cells that CellFlow predicts, kept, and scored as ours are."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.reference.asked import PROJECT, Asked, asked
from cfmvc.benchmark.cells import BenchmarkCells
from cfmvc.benchmark.folds import Fold
from cfmvc.config import section_of
from cfmvc.data.config import SplitConfig
from cfmvc.data.normalise import log_normalise
from cfmvc.evaluation.baselines import Prediction
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.exam import Exam
from cfmvc.evaluation.generated import counts_of
from cfmvc.evaluation.metrics import METRICS
from cfmvc.files import atomic_path, json_text, read_json

RIVAL = "cellflow"
PYTHON = PROJECT / ".venv-cellflow" / "bin" / "python"
_REQUIREMENTS = PROJECT / "benchmarks" / "environments" / "cellflow.txt"
_WORKER = PROJECT / "benchmarks" / "cellflow" / "worker.py"
_CELLS, _TOLD = "cells.npz", "told.json"


@dataclass(frozen=True)
class Training:
    """How CellFlow is trained; ``docs/evaluation.md`` says why so."""

    n_iterations: int = 500
    n_components: int = 50
    cells_per_step: int = 256
    lr: float = 1e-4
    width: int = 256


@dataclass
class Rival:
    """CellFlow on the folds of a data set.

    Parameters
    ----------
    data
        The cells.
    params
        All parameters, of which ``split`` and ``evaluate`` matter.
    training
        How it is trained.
    kept
        Folder of predicted cells, by the hash of what they depend on; may be deleted.
    python
        Of its environment; started when something is missing.
    """

    data: BenchmarkCells
    params: Mapping[str, Any]
    training: Training
    kept: Path
    python: Path = PYTHON
    _stack: ExitStack = field(default_factory=ExitStack)
    _worker: Asked | None = None
    _versions: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def working(self) -> Iterator["Rival"]:
        """End the worker, if one was started, at the end of the block."""
        with self._stack:
            yield self

    def scores(self, fold: Fold, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return every metric, one row a condition of the fold, and what the training told."""
        cells, sha256 = self.data.split(fold, section_of(self.params, "split", SplitConfig))
        design = self.data.design
        config = section_of(self.params, "evaluate", EvaluateConfig)
        exam = Exam.of(cells, config, design.control, design.separator)
        folder = self.kept / self._key(sha256, seed)
        if not (folder / _TOLD).is_file():
            self._predict(exam, folder, seed)
        with np.load(folder / _CELLS) as arrays:
            predicted = [arrays[f"arr_{number}"] for number in range(len(exam.truth))]
        return scored(exam, predicted), read_json(folder / _TOLD)

    def _predict(self, exam: Exam, folder: Path, seed: int) -> None:
        worker = self._started()
        asked_for = [
            {
                "perturbation": condition.treatment.perturbation,
                "batch": condition.stratum.batch,
                "cell_type": condition.stratum.cell_type,
            }
            for condition in exam.truth
        ]
        with tempfile.TemporaryDirectory() as name, atomic_path(folder) as made:
            made.mkdir()
            file = Path(name) / "training.h5ad"
            training_cells(exam).write_h5ad(file)
            told = worker.ask(
                cells=str(file),
                out=str(made / _CELLS),
                asked=asked_for,
                seed=seed,
                **asdict(self.training),
            )
            (made / _TOLD).write_text(json_text({**told, "versions": self._versions}))

    def _started(self) -> Asked:
        if self._worker is None:
            start = asked(self.python, "benchmarks.cellflow.worker", "cellflow-tools")
            self._worker = self._stack.enter_context(start)
            self._versions = self._worker.ask()
        return self._worker

    def _key(self, split_sha256: str, seed: int) -> str:
        code = [_WORKER.read_text(), _REQUIREMENTS.read_text()]
        facts = [self.data.identity, split_sha256, asdict(self.training), seed, code]
        return hashlib.sha256(json_text(facts).encode()).hexdigest()[:32]


def training_cells(exam: Exam) -> ad.AnnData:
    """Return all cells that are not held out, as the metrics see them: in log space."""
    is_seen = (exam.cells.obs["split"].astype(str) != "test").to_numpy()
    names = ["perturbation", "batch", "cell_type"]
    obs = exam.cells.obs.loc[is_seen, names].astype(str)
    obs = obs.assign(is_control=obs["perturbation"] == exam.control)
    counts = counts_of(exam.cells, "real cells")[is_seen]
    logged = log_normalise(counts, exam.library).toarray().astype(np.float32)
    return ad.AnnData(logged, obs=obs, var=pd.DataFrame(index=exam.cells.var_names))


def scored(exam: Exam, predicted: list[NDArray[np.float32]]) -> pd.DataFrame:
    """Score predicted cells of each condition, which are in log space already.

    As for the baselines nothing is clipped: a value below 0 stays what it is.
    """
    rows = []
    for condition, cells in zip(exam.truth, predicted, strict=True):
        target = exam.target(condition, n_draws=0)
        case = next(exam.scorer.cases(RIVAL, target, Prediction(cells.astype(np.float64))))
        scores = exam.scorer.scores(RIVAL, target, case)
        rows.append({"method": RIVAL, "condition": str(condition), **scores})
    return pd.DataFrame(rows, columns=["method", "condition", *METRICS])
