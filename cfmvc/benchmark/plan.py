"""What a benchmark consists of: folds and seeds, each under the hash of all that shapes it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

import cfmvc
from cfmvc.benchmark.cells import BenchmarkCells, cells_of
from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Fold
from cfmvc.benchmark.score import SEEDED
from cfmvc.benchmark.tasks import chosen, folds_of
from cfmvc.config import section_of
from cfmvc.data.config import SplitConfig
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.files import json_text

# Rooms of the package in which scores are made; tables, runs and commands are not among them.
_SHAPING = ("data", "flow", "models", "training", "stages", "evaluation", "benchmark")
_SHAPING_FILES = ("shards.py", "tuning/trainer.py")
_WORDS = ["owner", "picture", "plan", "report", "run", "spread", "summary", "text", "work"]
_TELLING = {f"benchmark/{name}.py" for name in _WORDS}
_SECTIONS = (*SEEDED, "evaluate", "split")


@dataclass(frozen=True)
class Job:
    """A fold and a seed, to be trained and scored.

    Parameters
    ----------
    fold, seed
        Which.
    number
        Of the fold within its task, from 1.
    key
        Hash of data, split, parameters, code and seed.
    """

    fold: Fold
    seed: int
    number: int
    key: str

    @property
    def words(self) -> str:
        """For the user."""
        return f"{self.fold.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A benchmark: one task on some cells.

    Parameters
    ----------
    task
        Its name.
    data
        The cells.
    params
        All parameters.
    folds
        Those asked for, with their numbers within the task.
    seeds
        Of the trainings.
    left_out
        Names of folds of which nothing could be scored.
    """

    task: str
    data: BenchmarkCells
    params: Mapping[str, Any]
    folds: list[tuple[int, Fold]]
    seeds: list[int]
    left_out: list[str]

    @classmethod
    def of(
        cls,
        task: str,
        path: Path | None,
        params: Mapping[str, Any],
        asked: Sequence[str],
        seeds: Sequence[int],
    ) -> "Plan":
        """Read or simulate the cells, and make the folds.

        Parameters
        ----------
        task
            Its name.
        path
            The cells; None: simulate.
        params
            All parameters.
        asked
            Names or numbers of folds; none: all.
        seeds
            Of the trainings; none: as many as ``benchmark.n_seeds`` says.

        Raises
        ------
        ConfigError
            If there is no such task or fold.
        NotAllowed
            If the data have no fold.
        """
        config = section_of(params, "benchmark", BenchmarkConfig)
        data = cells_of(path, task, params)
        least = section_of(params, "evaluate", EvaluateConfig).min_cells
        folds, left_out = folds_of(task, data.design, config, least)
        names = {fold.name for fold in chosen(folds, asked)}
        numbered = [(n, fold) for n, fold in enumerate(folds, start=1) if fold.name in names]
        return cls(task, data, params, numbered, list(seeds or range(config.n_seeds)), left_out)

    @cached_property
    def jobs(self) -> list[Job]:
        """Every fold with the first seed, then every fold with the next one."""
        split = section_of(self.params, "split", SplitConfig)
        hashes = {fold.name: self.data.split(fold, split)[1] for _, fold in self.folds}
        return [
            Job(fold, seed, number, self._key(fold, hashes[fold.name], seed))
            for seed in self.seeds
            for number, fold in self.folds
        ]

    @cached_property
    def key(self) -> str:
        """Hash of the whole benchmark."""
        return _hash([self.task, self.data.name, [job.key for job in self.jobs]])

    def _key(self, fold: Fold, split_sha256: str, seed: int) -> str:
        compute = self.params["compute"]
        region = None if fold.region is None else [fold.region.low, fold.region.high]
        return _hash(
            {
                "data": self.data.identity,
                "task": [self.task, fold.name],
                "split": split_sha256,
                "region": region,
                "seed": seed,
                "params": {name: _unseeded(self.params, name) for name in _SECTIONS},
                "compute": [compute["precision"], compute["device"]],
                "code": _code(),
                "torch": torch.__version__,
            }
        )


def hash_of_params(params: Mapping[str, Any]) -> str:
    """Return a hash of the parameters that a score hangs on, the seeds aside."""
    return _hash({name: _unseeded(params, name) for name in _SECTIONS})


def _unseeded(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section without the seed that the benchmark's own replaces."""
    drop = {"seed"} if name in SEEDED else set()
    return {key: value for key, value in params[name].items() if key not in drop}


@cache
def _code() -> str:
    package = Path(cfmvc.__file__).parent
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        is_shaping = name.partition("/")[0] in _SHAPING or name in _SHAPING_FILES
        if is_shaping and name not in _TELLING:
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def _hash(values: Any) -> str:
    return hashlib.sha256(json_text(values).encode()).hexdigest()[:32]
