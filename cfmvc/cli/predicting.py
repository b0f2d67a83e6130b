"""The work behind ``cfmvc predict``."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from anndata import AnnData

from cfmvc.cli.columns import mapped
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.canonical import load_controls, rename_control, write_canonical
from cfmvc.data.check_embeddings import useless
from cfmvc.data.config import DataConfig
from cfmvc.data.embeddings import read_embeddings
from cfmvc.errors import ConfigError, DataError, listed
from cfmvc.models import Bundle, load_bundle
from cfmvc.models.extension import with_embeddings
from cfmvc.progress.cells import CellProgress
from cfmvc.stages.beyond import other_vectors
from cfmvc.stages.compute import Device, use
from cfmvc.stages.conditions import LABELS
from cfmvc.stages.predict import predict_cells
from cfmvc.stages.prediction import asked_of


def predict_file(
    model: str,
    conditions: Path,
    out: Path,
    controls: Path | None,
    seed: int,
    n_steps: int,
    method: str,
    mapping: list[str],
    control: str | None,
    device: str,
    embeddings: Path | None = None,
    with_means: bool = True,
) -> dict[str, Any]:
    """Read model, conditions and controls; write the virtual cells; return what was made."""
    bundle, warnings = opened(model, device, embeddings)
    asked = _read_conditions(conditions)
    given = None if controls is None else read_controls(controls, bundle, mapping, control)
    with CellProgress("generate") as progress:
        prediction = predict_cells(
            bundle,
            asked,
            given,
            seed=seed,
            n_steps=n_steps,
            method=method,
            progress=progress,
            with_means=with_means,
        )
    if given is not None:  # symbols, chromosomes and whatever else the user's file says of genes
        prediction.cells.var = given.var.loc[prediction.cells.var_names]
    if prediction.events:
        prediction.cells.uns["cfmvc_events"] = json.dumps(prediction.events)
    write_canonical(prediction.cells, out)
    return {
        "out": str(out),
        "n_cells": prediction.cells.n_obs,
        "n_conditions": len(asked_of(prediction.cells.obs).drop_duplicates()),
        "n_genes": prediction.cells.n_vars,
        "n_velocity_events": len(prediction.events),
        "warnings": warnings + prediction.warnings,
    }


def opened(model: str, device: str, embeddings: Path | None) -> tuple[Bundle, list[str]]:
    """Return a model on its device, told of more perturbations where there are embeddings.

    And warnings of these.
    """
    if device not in get_args(Device):
        raise ConfigError(f"--device {device}: valid: {listed(get_args(Device))}")
    where = use(device, n_threads=0)  # type: ignore[arg-type]
    bundle = load_bundle(bundle_folder(model), where)
    if embeddings is None:
        return bundle, []
    given = read_embeddings(embeddings)
    wider = with_embeddings(bundle, given)
    warnings = [*useless(given, bundle.vocabulary.control)]
    if others := other_vectors(bundle, given):
        of_these = listed(others, 5)
        warnings.append(
            f"the model keeps the vectors of its training for {of_these}; others are given"
        )
    return wider, [f"{embeddings}: {warning}" for warning in warnings]


def bundle_folder(model: str) -> Path:
    """Return the folder of a model: given, or fetched from an MLflow registry."""
    if model.startswith(("models:/", "runs:/")):
        if find_spec("mlflow") is None:
            raise ConfigError(f"{model}: a registry needs MLflow; pip install 'cfmvc[serve]'")
        from cfmvc.registry.fetch import fetch_bundle

        return fetch_bundle(model)
    if not Path(model).is_dir():
        raise ConfigError(
            f"{model}: no such folder; give a folder made by `cfmvc fit`, or models:/NAME@ALIAS"
        )
    return Path(model)


def _read_conditions(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(LABELS, str),
            keep_default_na=False,
            skipinitialspace=True,
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table: {error}") from error
    if len(table.columns) == 1 and any(mark in table.columns[0] for mark in ";\t"):
        raise DataError(
            f"{path}: its first line is '{table.columns[0]}'; separate the columns with commas"
        )
    return table.rename(columns=str.strip)


def read_controls(path: Path, bundle: Bundle, mapping: list[str], control: str | None) -> AnnData:
    """Read cells, controls among them, with the model's label of the control."""
    data = parse_section(DataConfig, read_yaml(default_params_file())["data"], "data")
    known = bundle.vocabulary.control
    names = mapped(data, mapping, control or known)
    # what joins the parts of a combination is the model's to say, not the shipped parameters'
    names = names.model_copy(update={"separator": bundle.vocabulary.separator})
    cells = load_controls(path, names)
    if control is not None and control != known:
        rename_control(cells, known)
    return cells
