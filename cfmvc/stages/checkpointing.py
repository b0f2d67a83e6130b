"""The ``checkpoint`` section, and the engine that a stage is trained with."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

import cfmvc
from cfmvc.config import Section
from cfmvc.files import md5_of_file
from cfmvc.stages.compute import ComputeConfig
from cfmvc.training.checkpoint import Checkpoints
from cfmvc.training.engine import Engine

# Rooms of the package in which weights are made.
_TRAINING = ("data", "flow", "models", "stages", "training")


class CheckpointConfig(Section):
    """How often a training saves what it needs to go on; shapes no result."""

    every_seconds: float = Field(ge=0, description="seconds between checkpoints, at least")
    n_kept: int = Field(ge=1, description="checkpoints that are kept")


def engine_of(
    compute: ComputeConfig,
    checkpoint: CheckpointConfig,
    folder: Path,
    fingerprint: str,
    must_resume: bool = False,
    black_boxes: Path | None = None,
    before_first: Callable[[], None] | None = None,
) -> Engine:
    """Return the engine for trainings whose checkpoints are in ``folder``, by stage.

    Parameters
    ----------
    compute, checkpoint
        Sections of ``params.yaml``.
    folder
        Where checkpoints are kept.
    fingerprint
        From :func:`fingerprint_of`: only checkpoints of the same are gone on from.
    must_resume
        Whether checkpoints of something else are an error, and not passed over.
    black_boxes
        Folder of NaN black boxes.
    before_first
        Called before the first checkpoint of a training is written.
    """
    return replace(
        plain_engine(compute, black_boxes),
        checkpoints=lambda stage: Checkpoints(
            folder / stage, fingerprint, checkpoint.every_seconds, checkpoint.n_kept, before_first
        ),
        must_resume=must_resume,
    )


def plain_engine(compute: ComputeConfig, black_boxes: Path | None = None) -> Engine:
    """Return the engine for trainings that keep no checkpoints."""
    return Engine(
        precision=compute.precision,
        n_parts=compute.n_parts,
        recompute=compute.recompute,
        black_boxes=black_boxes,
        gradient_picture=compute.gradient_picture,
        whole_steps=None if compute.cuda_graphs else False,
    )


def fingerprint_of(files: Iterable[Path], values: Mapping[str, Any]) -> str:
    """Hash everything that the weights of a training depend on.

    Parameters
    ----------
    files
        Its data.
    values
        Its parameters, as JSON has them.
    """
    parts = {
        "files": [md5_of_file(path) for path in files],
        "values": values,
        "code": code_hash(_TRAINING),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_hash(rooms: Iterable[str]) -> str:
    """Hash the code of some of the package's rooms, and what all of them share."""
    code, package = hashlib.sha256(), Path(cfmvc.__file__).parent
    found = {path for room in rooms for path in (package / room).rglob("*.py")}
    for path in sorted(found | set(package.glob("*.py"))):
        code.update(path.read_bytes())
    return code.hexdigest()
