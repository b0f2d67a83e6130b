"""The cells that trials are trained and scored on: those of the test are not among them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from cfmvc.config import section_of
from cfmvc.data.config import SplitConfig
from cfmvc.data.prepared import control_of, load_prepared, separator_of
from cfmvc.data.splits import Split, assign_split
from cfmvc.errors import DataError
from cfmvc.files import md5_of_file, read_json


@dataclass(frozen=True)
class TuningCells:
    """Prepared cells with a split, and where they come from.

    Parameters
    ----------
    cells
        Canonical cells with ``obs["split"]``; its ``test`` is what trials are scored on.
    data_md5
        Of the prepared cells.
    split_sha256
        Of the split of these cells.
    held_out
        The validation conditions in words.
    """

    cells: AnnData
    data_md5: str
    split_sha256: str
    held_out: str


def validation_of(
    prepared: Path, split_file: Path, params: dict[str, Any], fraction: float
) -> TuningCells:
    """Hold conditions out of the training cells, by the rule that chose those of the test.

    Parameters
    ----------
    prepared, split_file
        Prepared cells, and the split's record.
    params
        All parameters.
    fraction
        Of the training conditions, to hold out (of the cells, where the split is a random one).

    Raises
    ------
    DataError
        If there are no prepared cells, or nothing can be held out of the training cells.
    """
    for path in (prepared, split_file):
        if not path.is_file():
            raise DataError(f"{path}: no such file; `dvc repro prepare` makes it")
    cells = load_prepared(prepared)
    rest = cells[(cells.obs["split"] != "test").to_numpy()].copy()
    split = _inner_split(rest, str(read_json(split_file)["kind"]), params, fraction)
    rest.obs["split"] = pd.Categorical(split.labels)
    held_out = "; ".join(" ".join(entry.values()) for entry in split.held_out)
    words = held_out or f"{fraction:.0%} of each condition's cells"
    return TuningCells(rest, md5_of_file(prepared), split.sha256, words)


def outer_split_of(prepared: Path, split_file: Path) -> TuningCells:
    """Return all prepared cells, with their own split."""
    record = read_json(split_file)
    held_out = "; ".join(" ".join(entry.values()) for entry in record["held_out"])
    return TuningCells(
        load_prepared(prepared), md5_of_file(prepared), str(record["sha256"]), held_out
    )


def _inner_split(rest: AnnData, kind: str, params: dict[str, Any], fraction: float) -> Split:
    outer = section_of(params, "split", SplitConfig)
    inner = {"kind": kind, "held_out": None, "test_fraction": fraction}
    names = separator_of(rest), control_of(rest)
    try:
        return assign_split(rest.obs, outer.model_copy(update=inner), *names)
    except DataError as error:
        if kind == "random":
            raise DataError(f"tune.validation_fraction: {error}") from error
        # The test has taken the only condition of its kind that training could spare.
        return assign_split(rest.obs, outer.model_copy(update={**inner, "kind": "random"}), *names)
