"""The ``compute`` section: device, threads, and one seed for everything random."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from cfmvc.config import Section
from cfmvc.errors import ConfigError
from cfmvc.training.config import Precision

Device = Literal["auto", "cpu", "cuda"]


class ComputeConfig(Section):
    """Where and how to compute."""

    device: Device
    n_threads: int = Field(ge=0, description="CPU threads; 0: what torch chooses")
    precision: Precision = Field(description="of matrix products in training")
    n_parts: int = Field(ge=1, description="parts in which the cells of a step are computed")
    max_counts_gib: float = Field(
        ge=0, description="larger counts stay on disk, and are read in shuffled blocks of cells"
    )
    cuda_graphs: bool = Field(description="on a GPU, start a whole step at once, as a CUDA graph")
    recompute: bool = Field(description="recompute activations for the gradient, to save memory")
    gradient_picture: bool = Field(
        description="keep the gradient norms of every step, and draw them by module over time"
    )


def use(device: Device, n_threads: int) -> torch.device:
    """Set the number of threads and return the device.

    Raises
    ------
    ConfigError
        If CUDA is asked for and not there.
    """
    if n_threads:
        torch.set_num_threads(n_threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: 'cuda' is not available here; use 'auto' or 'cpu'")
    # The default of a large GPU is 32 MiB a stream, more than all of a training.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    is_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    # The current one: of several processes each has a GPU of its own.
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with every generator seeded, and leave torch's as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may use the global generator
        yield
