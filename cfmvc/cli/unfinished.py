"""What ``cfmvc fit`` keeps beside its target until it is done, so that ``--resume`` can go on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cfmvc.cli.targets import unfinished_folder
from cfmvc.errors import CheckpointError
from cfmvc.files import atomic_path
from cfmvc.models import Bundle, load_bundle, save_bundle
from cfmvc.stages.checkpointing import CheckpointConfig, engine_of
from cfmvc.stages.compute import ComputeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.history import History

Trained = tuple[Bundle, History]


@dataclass(frozen=True)
class Unfinished:
    """The folder of a fit that is under way.

    Parameters
    ----------
    folder
        Beside the model's.
    fingerprint
        Of data, parameters and code.
    is_resumed
        Whether to go on from what is there; otherwise it is removed.
    """

    folder: Path
    fingerprint: str
    is_resumed: bool

    @classmethod
    def beside(cls, out: Path, fingerprint: str, is_resumed: bool) -> "Unfinished":
        """Return what was left of a fit to ``out``, if that is asked for."""
        left = cls(unfinished_folder(out), fingerprint, is_resumed)
        if not is_resumed:
            left.remove()
        return left

    def engine(self, compute: ComputeConfig, checkpoint: CheckpointConfig) -> Engine:
        """Return the engine whose checkpoints are here."""
        return engine_of(
            compute,
            checkpoint,
            self.folder,
            self.fingerprint,
            self.is_resumed,
            self.folder.with_suffix(".nan"),
        )

    def once(self, stage: str, device: torch.device, fit: Callable[[], Trained]) -> Trained:
        """Train a stage, or take it from where it was finished before.

        Raises
        ------
        CheckpointError
            If what is there belongs to other data, parameters or code.
        """
        folder, course = self.folder / f"{stage}.finished", self.folder / f"{stage}.json"
        if self.is_resumed and course.is_file():
            told: dict[str, Any] = json.loads(course.read_text())
            if told["fingerprint"] != self.fingerprint:
                raise CheckpointError(
                    f"{self.folder}: cannot be gone on from: data, parameters or code have changed "
                    "since; bring back what it was made with, or start again without --resume"
                )
            return load_bundle(folder, device), History.from_json(told["history"])
        bundle, history = fit()
        save_bundle(bundle, folder)
        with atomic_path(course) as made:
            told = {"fingerprint": self.fingerprint, "history": history.as_json()}
            made.write_text(json.dumps(told))
        return bundle, history

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
