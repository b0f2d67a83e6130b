"""The cells that a benchmark is about: a file's, or simulated ones."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Design, Fold
from cfmvc.benchmark.tasks import task_of
from cfmvc.config import parse_section, section_of
from cfmvc.data.canonical import check_and_load
from cfmvc.data.config import DataConfig, SimulateConfig, SplitConfig
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import hash_of_split, validation_cells
from cfmvc.errors import DataError
from cfmvc.files import json_text, md5_of_file

SIMULATED = "simulated"
_OPTION = re.compile(r"--(?:map (?P<key>\w+)|(?P<name>control|separator))(?P<sign>[= ])")


@dataclass(frozen=True)
class BenchmarkCells:
    """Canonical cells, and what identifies them.

    Parameters
    ----------
    cells
        Canonical, without a split.
    name
        Of the data, in paths and tables.
    identity
        Hash of the file with the names of its columns, or the simulation's values.
    warnings
        What the data contract finds odd about the file.
    """

    cells: AnnData
    name: str
    identity: str
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """A hash of what the cells are."""
        return hashlib.sha256(self.identity.encode()).hexdigest()

    @cached_property
    def design(self) -> Design:
        """Their labels."""
        return Design(self.cells)

    def split(self, fold: Fold, config: SplitConfig) -> tuple[AnnData, str]:
        """Return the cells with a fold's ``obs["split"]``, and the hash of that split.

        Counts are shared, not copied.
        """
        obs = self.cells.obs.copy()
        is_val = np.zeros(len(obs), dtype=bool)
        is_val[~fold.is_test] = validation_cells(obs[~fold.is_test], config)
        parts = np.where(fold.is_test, "test", np.where(is_val, "val", "train"))
        obs["split"] = pd.Categorical(parts)
        names = obs.index.astype(str).to_numpy(dtype=object)
        return with_obs(self.cells, obs), hash_of_split(names, parts)


def with_obs(cells: AnnData, obs: pd.DataFrame) -> AnnData:
    """Return cells with other labels; nothing else is copied."""
    return AnnData(
        obs=obs,
        var=cells.var,
        layers=dict(cells.layers),
        obsm=dict(cells.obsm),
        uns=dict(cells.uns),
    )


def cells_of(path: Path | None, task: str, params: Mapping[str, Any]) -> BenchmarkCells:
    """Read a file, or simulate what a task needs.

    Parameters
    ----------
    path
        Cells that keep the data contract, named as the section ``data`` says; None: simulate.
    task
        Its name.
    params
        All parameters.

    Raises
    ------
    DataError
        If there is no such file, or it breaks the contract.
    """
    if path is None:
        given = dict(params["simulate"])
        benchmark = section_of(params, "benchmark", BenchmarkConfig)
        changed = {**given, **task_of(task).simulated_with(given, benchmark)}
        simulated = parse_section(SimulateConfig, changed, "simulate")
        return BenchmarkCells(simulate(simulated)[0], SIMULATED, simulated.model_dump_json())
    if not path.exists():
        raise DataError(f"{path}: no such file")
    data = section_of(params, "data", DataConfig)
    names = json_text(data.model_dump(exclude={"path", "min_cells_per_stratum"}))
    identity = f"{md5_of_file(path)} {names}"
    try:
        cells, faults, _ = check_and_load(path, data, math.inf)
    except DataError as error:  # a benchmark has no option of its own for the data
        raise DataError(_OPTION.sub(_as_setting, str(error))) from error
    warnings = tuple(_OPTION.sub(_as_setting, str(fault)) for fault in faults)
    return BenchmarkCells(cells, path.stem, identity, warnings)


def _as_setting(option: re.Match[str]) -> str:
    return f"--set data.{option['key'] or option['name']}{option['sign'].replace(' ', '=')}"
