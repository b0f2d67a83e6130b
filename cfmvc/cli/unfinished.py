"""What ``cfmvc fit`` keeps beside its target until it is done, so that ``--resume`` can go on."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cfmvc.cli.targets import unfinished_folder
from cfmvc.errors import CheckpointError
from cfmvc.files import atomic_path
from cfmvc.models import Bundle, load_bundle, save_bundle
from cfmvc.stages.checkpointing import CheckpointConfig, engine_of
from cfmvc.stages.compute import ComputeConfig
from cfmvc.training.alone import alone
from cfmvc.training.callbacks import Callback, TrainingState
from cfmvc.training.engine import Engine
from cfmvc.training.history import History

if TYPE_CHECKING:
    from cfmvc.tracking.resumption import Resumption

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
    resumption
        The run that it belongs to, where one is kept.
    """

    folder: Path
    fingerprint: str
    is_resumed: bool
    resumption: "Resumption | None" = None

    @classmethod
    @contextmanager
    def beside(
        cls, out: Path, fingerprint: str, is_resumed: bool, track: bool
    ) -> Iterator["Unfinished"]:
        """Yield what was left of a fit to ``out``, if that is asked for; no other fit may use it.

        Raises
        ------
        CheckpointError
            If another process is at it.
        """
        folder = unfinished_folder(out)
        left = cls(folder, fingerprint, is_resumed, _resumption(folder, fingerprint, track))
        with alone(left.folder.with_suffix(".lock"), f"--out {out}"):
            if not is_resumed:
                left.remove()
            yield left

    def engine(self, compute: ComputeConfig, checkpoint: CheckpointConfig) -> Engine:
        """Return the engine whose checkpoints are here."""
        return engine_of(
            compute,
            checkpoint,
            self.folder,
            self.fingerprint,
            self.is_resumed,
            self.folder.with_suffix(".nan"),
            self._keep_run,
        )

    def once(
        self,
        stage: str,
        device: torch.device,
        fit: Callable[[], Trained],
        watching: Iterable[Callback] = (),
    ) -> Trained:
        """Train a stage, or take it from where it was finished before; who watches is told.

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
                    "since; bring back what it was made with (--set and --map too), or start anew "
                    "and lose it (--force, without --resume)"
                )
            history = History.from_json(told["history"])
            for callback in watching:
                callback.on_resume(TrainingState(stage, len(history.rows)), history)
            return load_bundle(folder, device), history
        bundle, history = fit()
        self._keep_run()
        save_bundle(bundle, folder)
        with atomic_path(course) as made:
            told = {"fingerprint": self.fingerprint, "history": history.as_json()}
            made.write_text(json.dumps(told))
        shutil.rmtree(self.folder / f"train_{stage}", ignore_errors=True)  # its checkpoints
        return bundle, history

    def _keep_run(self) -> None:
        if self.resumption is not None:
            self.resumption.keep()

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _resumption(folder: Path, fingerprint: str, track: bool) -> "Resumption | None":
    """Return the run of a fit; who keeps none needs none of the packages."""
    if not track:
        return None
    from cfmvc.tracking.resumption import Resumption

    return Resumption(folder, fingerprint)
