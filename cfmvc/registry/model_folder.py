"""A bundle as an MLflow model folder: signature, example, requirements, and the code."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import cfmvc
from cfmvc.errors import TrackingError
from cfmvc.models import Bundle, load_bundle
from cfmvc.registry.hashes import sha256_of_folder

# Defaults of the names that users know (SPEC section 5): generate_expression(..., n_steps=20).
DEFAULTS = {"seed": 0, "use_mean": False, "n_steps": 20, "method": "euler"}
_EXAMPLE_CELLS = 3
_PACKAGE = Path(cfmvc.__file__).parent


@contextmanager
def packaged(bundle: Path, description: Any) -> Iterator[Path]:
    """Yield a temporary folder with the MLflow model.

    Parameters
    ----------
    bundle
        Folder of a trained model.
    description
        MLflow's ``Model``, which names the run and the logged model.
    """
    import mlflow

    trained = load_bundle(bundle)
    with tempfile.TemporaryDirectory(prefix="cfmvc-model-") as name:
        folder = Path(name)
        # Under fixed names, whatever the bundle's folder is called; and no compiled code.
        shutil.copytree(bundle, folder / "bundle")
        code = folder / "cfmvc"
        shutil.copytree(_PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        mlflow.pyfunc.save_model(
            folder / "model",
            mlflow_model=description,
            python_model=str(code / "registry" / "served_model.py"),
            artifacts={"bundle": str(folder / "bundle")},
            code_paths=[str(code)],
            signature=_signature(trained),
            input_example=(_example(trained), dict(DEFAULTS)),
            pip_requirements=requirements(),
        )
        yield folder / "model"


def requirements() -> list[str]:
    """Return what the served model needs, in the versions that are installed.

    Raises
    ------
    TrackingError
        If cfmvc runs from a folder without being installed, so that nothing says what it needs.
    """
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("cfmvc") or []
    except metadata.PackageNotFoundError as error:
        raise TrackingError(
            "cfmvc is not installed, so its requirements are not known; pip install -e ."
        ) from error
    needed = [Requirement(line) for line in declared]
    names = [need.name for need in needed if need.marker is None or need.marker.evaluate()]
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in [*names, "mlflow"]]


def code_sha256() -> str:
    """Return a hash of the package's Python files, which are a part of the model."""
    return sha256_of_folder(_PACKAGE, "*.py")


def _example(bundle: Bundle) -> Any:
    import pandas as pd

    vocabulary, batch, cell_type = bundle.vocabulary, 0, 0
    reference = bundle.model.reference
    if reference is not None and reference.is_control.any():  # a stratum that has controls
        first = int(reference.is_control.nonzero()[0])
        batch, cell_type = int(reference.batch[first]), int(reference.cell_type[first])
    return pd.DataFrame(
        {
            "perturbation": vocabulary.perturbations[-1:],
            "batch": vocabulary.batches[batch : batch + 1],
            "cell_type": vocabulary.cell_types[cell_type : cell_type + 1],
            "n_cells": [_EXAMPLE_CELLS],
        }
    )


def _signature(bundle: Bundle) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    labels = [ColSpec(DataType.string, name) for name in ("perturbation", "batch", "cell_type")]
    dose = ColSpec(DataType.double, "dose", required=False)
    genes = [ColSpec(DataType.float, name) for name in bundle.gene_names]
    types = {int: DataType.long, bool: DataType.boolean, str: DataType.string}
    return ModelSignature(
        inputs=Schema([*labels, ColSpec(DataType.long, "n_cells"), dose]),
        outputs=Schema([*labels, dose, *genes]),
        params=ParamSchema(
            [ParamSpec(name, types[type(value)], value) for name, value in DEFAULTS.items()]
        ),
    )
