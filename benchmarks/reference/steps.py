"""What both stages of the reference do at each optimiser step, and how it is timed."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from cfmvc.data import SingleCellDataset, collate_fn_cfm

NAN_CHECK_INTERVAL = 10
LARGE_GRADIENT = 100.0
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-5  # of `train_vae_stage` and `train_flow_stage`

Batch = Mapping[str, Any]


@dataclass
class Course:
    """What a reference training took.

    Parameters
    ----------
    seconds
        Of all steps, the loading of their cells included.
    loading_seconds
        Of these, waiting for the loader.
    losses
        Of each step.
    suspicious
        Names of gradients that were not finite or above 100, by step.
    """

    seconds: float = 0.0
    loading_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    suspicious: dict[int, list[str]] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        """Mean time of a step."""
        return self.seconds / len(self.losses)


def loader_of(dataset: SingleCellDataset, cells_per_step: int) -> DataLoader[Any]:
    """Return the loader that users are told to make."""
    return DataLoader(dataset, batch_size=cells_per_step, shuffle=True, collate_fn=collate_fn_cfm)


def optimise(
    named: Mapping[str, torch.nn.Parameter],
    loss_of: Callable[[Batch], torch.Tensor],
    loader: DataLoader[Any],
    n_steps: int,
    max_norm: float,
) -> Course:
    """Minimise ``loss_of`` on the loader's batches, over as many epochs as ``n_steps`` need."""
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    course = Course()
    batches = _endless(loader)
    started = time.perf_counter()
    for step in range(n_steps):
        waited = time.perf_counter()
        batch = next(batches)
        course.loading_seconds += time.perf_counter() - waited
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        clip_grad_norm_(parameters, max_norm)
        if step % NAN_CHECK_INTERVAL == 0:
            found = suspicious_gradients(named)
            if found:
                course.suspicious[step] = found
        optimizer.step()
        course.losses.append(loss.item())
    course.seconds = time.perf_counter() - started
    return course


def suspicious_gradients(named: Mapping[str, torch.nn.Parameter]) -> list[str]:
    """Return the names of gradients that are not finite, or above 100 in magnitude."""
    found = []
    for name, parameter in named.items():
        if parameter.grad is None:
            continue
        is_finite = bool(torch.isfinite(parameter.grad).all())
        if not is_finite or parameter.grad.abs().max().item() > LARGE_GRADIENT:
            found.append(name)
    return found


def _endless(loader: DataLoader[Any]) -> Iterator[Batch]:
    while True:
        yield from loader
