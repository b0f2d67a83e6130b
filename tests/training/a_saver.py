"""Saves checkpoints for tests, run as a process: ``python -m tests.training.a_saver HOW FOLDER``.

``killed`` kills one saving process after the other, and each time looks at what is left; ``limit``
saves under a limit of the size of a file.
"""

import contextlib
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from cfmvc.errors import CheckpointError
from cfmvc.training.checkpoint import Checkpoint, Checkpoints

N_KILLS = 60


def checkpoint(step: int, n_numbers: int = 1 << 18) -> Checkpoint:
    """Return a checkpoint of which every part says its step."""
    tensors = {f"weights{n}": torch.full((n_numbers,), float(step + n)) for n in range(3)}
    return Checkpoint(tensors, {"step": step, "history": [{"step": step}] * 100})


def is_whole(found: Checkpoint) -> bool:
    """Return whether all parts are of one step."""
    expected = checkpoint(found.step)
    same = all(torch.equal(found.tensors[n], tensor) for n, tensor in expected.tensors.items())
    return same and found.values == expected.values and len(found.tensors) == 3


def open_folder(folder: Path) -> Checkpoints:
    return Checkpoints(folder, "this training", every_seconds=0.0)


def killed(folder: Path) -> None:
    """Kill a process that saves in a loop, again and again; print how many left a torn file."""
    rng, n_torn, last = random.Random(1), 0, -1
    checkpoints = open_folder(folder)
    checkpoints.expect_writable()
    for _ in range(N_KILLS):
        pid = os.fork()
        if pid == 0:
            save_for_ever(folder, last)
        time.sleep(rng.uniform(0.0, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        n_torn += any(folder.glob(".*"))
        found = checkpoints.latest()
        if found is not None:
            assert is_whole(found)
        step = -1 if found is None else found.step
        assert step >= last
        assert len(list(folder.glob("step-*"))) <= 6  # some were killed before an old one went
        assert len(list(folder.glob(".*"))) <= 1
        last = step
    print(n_torn, last)


def save_for_ever(folder: Path, step: int) -> None:
    with contextlib.suppress(BaseException):
        checkpoints = open_folder(folder)
        while True:
            step += 1
            checkpoints.save(checkpoint(step))
    os._exit(1)


def limit(folder: Path) -> None:
    """Save a small checkpoint, then one that is larger than a file may be; print the error."""
    checkpoints = open_folder(folder)
    checkpoints.expect_writable()
    checkpoints.save(checkpoint(1, n_numbers=10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        checkpoints.save(checkpoint(2))
    except CheckpointError as error:
        print(error)


if __name__ == "__main__":
    {"killed": killed, "limit": limit}[sys.argv[1]](Path(sys.argv[2]))
