"""Trained VAEs by the hash of everything that they depend on: the same one is trained once."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from cfmvc.files import read_json, write_json
from cfmvc.models import Bundle, load_bundle, save_bundle

_BUNDLE, _COURSE = "bundle", "course.json"


@dataclass(frozen=True)
class VaeCourse:
    """What is known of a VAE's training.

    Parameters
    ----------
    looks
        Number and figures of each look at it on its way.
    seconds
        That it took.
    peak_memory_gib
        That it was expected to need.
    nan_steps
        Updates that were vetoed.
    """

    looks: list[tuple[int, dict[str, float]]]
    seconds: float
    peak_memory_gib: float
    nan_steps: int


@dataclass(frozen=True)
class StoredVae:
    """A VAE that trials share.

    Parameters
    ----------
    bundle, course
        The model, and how it was trained.
    key
        The hash that it is stored by.
    was_trained
        Whether it was trained just now.
    """

    bundle: Bundle
    course: VaeCourse
    key: str
    was_trained: bool


class VaeStore:
    """A folder of trained VAEs; may be deleted at any time, at the cost of training them again.

    Parameters
    ----------
    folder
        Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(
        self,
        key: str,
        device: torch.device,
        train: Callable[[Path], tuple[Bundle, VaeCourse]],
    ) -> StoredVae:
        """Return the VAE of a key; who comes first trains it, and others wait for it.

        Parameters
        ----------
        key
            Hash of data, split, code and parameters.
        device
            Where it is to be.
        train
            Trains it; told a folder for its checkpoints, which outlives a kill.
        """
        entry = self._folder / key
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{entry}.lock"):
            if (entry / _COURSE).is_file():
                course = _course(read_json(entry / _COURSE))
                return StoredVae(load_bundle(entry / _BUNDLE, device), course, key, False)
            checkpoints = self._folder / "checkpoints" / key
            bundle, course = train(checkpoints)
            save_bundle(bundle, entry / _BUNDLE)
            write_json(entry / _COURSE, course.__dict__)  # last: it says that the rest is whole
            shutil.rmtree(checkpoints, ignore_errors=True)
            return StoredVae(bundle, course, key, True)


def _course(values: dict[str, Any]) -> VaeCourse:
    looks = [(int(number), dict(figures)) for number, figures in values.pop("looks")]
    return VaeCourse(looks, **values)
