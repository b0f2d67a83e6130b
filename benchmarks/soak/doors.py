"""The two ways to train that a user has: ``cfmvc fit``, and the pipeline's stages."""

import shutil
from pathlib import Path
from typing import Protocol

_CLI = "from cfmvc.cli import main; main()"


class Door(Protocol):
    """A training in a folder of its own; started again, it goes on where it was."""

    name: str
    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, by stage."""

    def next_command(self) -> list[str] | None:
        """Return what to start next, without Python; None when all is done."""

    def note_success(self) -> None:
        """Take note that the command has ended well."""

    def forget(self) -> None:
        """Throw away what there is to go on from."""

    def outputs(self) -> dict[str, bytes]:
        """Return everything that the training has made, by path."""


class Fit:
    """``cfmvc fit --resume``, which trains both stages in one process."""

    name = "fit"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, by stage."""
        return self.folder / ".model.unfinished"

    def next_command(self) -> list[str] | None:
        """Return what to start next; a model that is there is whole."""
        if (self.folder / "model").exists():
            return None
        words = ["fit", "train.h5ad", "--out", "model", "--params", "params.yaml", "--resume"]
        return ["-c", _CLI, *words]

    def note_success(self) -> None:
        """Take no note: the model says it."""

    def forget(self) -> None:
        """Remove the unfinished fit; of a disk that is mounted there, the contents."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def outputs(self) -> dict[str, bytes]:
        """Return the model's files."""
        return _files(self.folder, "model")


class Stages:
    """``python -m pipelines.train_vae``, then ``train_flow``, as DVC runs them."""

    name = "stages"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left = ["train_vae", "train_flow"]

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, by stage."""
        return self.folder / ".cfmvc" / "checkpoints"

    def next_command(self) -> list[str] | None:
        """Return the stage that has not ended well yet; its outputs go first, as DVC does it."""
        if not self._left:
            return None
        shutil.rmtree(self.folder / "models" / self._left[0][6:], ignore_errors=True)
        return ["-m", f"pipelines.{self._left[0]}"]

    def note_success(self) -> None:
        """Go on to the next stage."""
        del self._left[0]

    def forget(self) -> None:
        """Remove all checkpoints."""
        for folder in self.checkpoints.glob("*"):
            shutil.rmtree(folder, ignore_errors=True)

    def outputs(self) -> dict[str, bytes]:
        """Return models, curves and figures."""
        names = ("models", "results/curves", "results/train_vae.json", "results/train_flow.json")
        return {path: data for name in names for path, data in _files(self.folder, name).items()}


DOORS = {door.name: door for door in (Fit, Stages)}


def _files(folder: Path, name: str) -> dict[str, bytes]:
    top = folder / name
    paths = [top] if top.is_file() else sorted(top.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}
