"""What came of one fold and seed, and the folder that keeps it: written once, read many times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cfmvc.benchmark.truth import ERRORS
from cfmvc.errors import DataError, listed
from cfmvc.evaluation.metrics import METRICS
from cfmvc.files import atomic_path, json_text, read_json

_TABLES = ("averages", "per_condition", "draws", "skipped")
_FACTS = "facts.json"
_NUMBERS = {*METRICS, *ERRORS, "dose", "n_true", "n_predicted", "draw"}


@dataclass(frozen=True)
class FoldScores:
    """Every method on one fold, the model trained with one seed.

    Parameters
    ----------
    averages
        Index: methods. Columns: metrics; means over the fold's conditions.
    per_condition
        One row a method and condition.
    draws
        The metrics with other cells, one row a method, condition and ``draw``.
    skipped
        ``condition, n_true, reason`` of conditions that were not scored.
    facts
        Task, fold, seed, data, costs, and the run in MLflow: what JSON takes.
    """

    averages: pd.DataFrame
    per_condition: pd.DataFrame
    draws: pd.DataFrame
    skipped: pd.DataFrame
    facts: dict[str, Any]

    @property
    def fold(self) -> str:
        """Name of the fold."""
        return str(self.facts["fold"])

    @property
    def seed(self) -> int:
        """Seed of the trainings."""
        return int(self.facts["seed"])

    def write(self, folder: Path) -> None:
        """Write a folder of CSV files and ``facts.json``; it is there as a whole or not at all."""
        with atomic_path(folder) as made:
            made.mkdir()
            for name in _TABLES:
                table: pd.DataFrame = getattr(self, name)
                table.to_csv(made / f"{name}.csv", index=name == "averages")
            (made / _FACTS).write_text(json_text(self.facts))

    @classmethod
    def read(cls, folder: Path) -> "FoldScores":
        """Read what :meth:`write` has written."""
        tables = {name: _read(folder / f"{name}.csv") for name in _TABLES}
        tables["averages"] = tables["averages"].set_index("method")
        return cls(**tables, facts=read_json(folder / _FACTS))


class ScoreStore:
    """Scores by the hash of everything that they depend on; may be deleted at any time.

    Parameters
    ----------
    folder
        Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: str) -> bool:
        """Return whether a fold and seed is there."""
        return (self._folder / key / _FACTS).is_file()

    def get(self, key: str) -> FoldScores:
        """Return what is there."""
        return FoldScores.read(self._folder / key)

    def put(self, key: str, scores: FoldScores) -> None:
        """Keep scores."""
        scores.write(self._folder / key)

    @contextmanager
    def claimed(self, key: str, timeout: float) -> Iterator[bool]:
        """Keep others from the same work; False if another process is at it after ``timeout``.

        Parameters
        ----------
        key
            Of the work.
        timeout
            Seconds to wait; -1: until the other one is done, or dead.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{key}.lock")
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def scores_below(folders: list[Path]) -> list[FoldScores]:
    """Read all scores in some folders and the folders in these.

    Raises
    ------
    DataError
        If there are none, they are of several tasks, data sets or parameters, or one is there
        twice.
    """
    found = sorted({path.resolve() for folder in folders for path in folder.rglob(_FACTS)})
    scores = {path.parent: FoldScores.read(path.parent) for path in found}
    where = ", ".join(map(str, folders))
    if not scores:
        raise DataError(f"{where}: no scores of a benchmark there; `cfmvc benchmark` makes them")
    about = sorted(
        {
            f"{one.facts['task']} on {one.facts['data']} ({one.facts.get('data_sha256', '')[:8]})"
            for one in scores.values()
        }
    )
    if len(about) > 1:
        raise DataError(f"{where}: scores of several benchmarks: {'; '.join(about)}; name one's")
    by_params, by_fold = dict[str, list[str]](), dict[tuple[str, int], Path]()
    for path, one in scores.items():
        by_params.setdefault(str(one.facts.get("params")), []).append(path.name)
        first = by_fold.setdefault((one.fold, one.seed), path)
        if first != path:
            raise DataError(f"fold '{one.fold}', seed {one.seed}: is there twice: {first}, {path}")
    if len(by_params) > 1:
        kinds = "; ".join(listed(sorted(names), 4) for names in by_params.values())
        raise DataError(
            f"{where}: scores with several sets of parameters (those of an earlier run stay in its "
            f"folder): {kinds}; remove some, or name folders of one set"
        )
    return list(scores.values())


def _read(path: Path) -> pd.DataFrame:
    """Read a table of labels and numbers; no label (NA, None) is taken for a missing number."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in _NUMBERS.intersection(table.columns):
        table[name] = [float(text) if text else float("nan") for text in table[name]]
    return table
