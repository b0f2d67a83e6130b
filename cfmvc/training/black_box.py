"""The NaN black box: everything that it takes to do the first non-finite step again elsewhere.

A folder with ``report.json`` (where, what, why, on what machine) and ``state.safetensors`` (weights
before the step, cells as the objective saw them, states of the random generators).
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from cfmvc.data.dataset import Cells
from cfmvc.errors import CfmvcError
from cfmvc.files import atomic_path, read_json
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.likelihoods import nan_causes
from cfmvc.shards import of_step
from cfmvc.training.checkpoint_file import under
from cfmvc.training.config import Precision
from cfmvc.training.engine import autocast
from cfmvc.training.objectives import (
    OBJECTIVES,
    LatentCells,
    Objective,
    copied_buffers,
    learning_parameters,
    set_buffers,
)
from cfmvc.training.randomness import RandomState

FORMAT = 1
REPORT, STATE = "report.json", "state.safetensors"
_CELLS = {"cells": Cells, "latents": LatentCells}


@dataclass(frozen=True)
class Part:
    """Cells of one part of a step, as they were when the objective was called.

    Parameters
    ----------
    cells
        The cells.
    random
        States of the generators just before the objective drew from them.
    weight
        Its share of the step's cells.
    """

    cells: Any
    random: RandomState
    weight: float


@dataclass(frozen=True)
class Findings:
    """What a step gave when it was done again.

    Parameters
    ----------
    module
        The first module whose output was not finite, in the order of computation; None where all
        outputs were.
    gradient_norms
        Norm of the gradient of each module's own parameters; None where not finite.
    loss_parts
        Parts of the loss of each part of the step, as hexadecimal numbers: to the bit.
    gradient_hash
        SHA-256 of all gradients.
    causes
        What :func:`~cfmvc.models.diagnose_nan` says of the likelihood's inputs.
    """

    module: str | None
    gradient_norms: dict[str, float | None]
    loss_parts: list[dict[str, str]]
    gradient_hash: str
    causes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(self.__dict__)


def replayed(
    objective: Objective, parts: list[Part], device: torch.device, precision: Precision
) -> Findings:
    """Do a step again, with an eye on every module; weights and generators stay as they are.

    Parameters
    ----------
    objective
        With the weights from before the step; left in training mode.
    parts
        Cells and random states of the step.
    device, precision
        As the step was computed.
    """
    named = learning_parameters(objective)
    before, buffers = RandomState.now(device), copied_buffers(objective)
    gradients = {name: torch.zeros_like(value) for name, value in named.items()}
    losses, first, causes = [], list[str](), list[str]()
    for part in parts:
        part.random.restore(device)
        with of_step(len(part.cells), part.weight):
            with autocast(device, precision), _watched(objective, first):
                loss = objective(part.cells)
            found = torch.autograd.grad(loss.total, list(named.values()), allow_unused=True)
        for total, gradient in zip(gradients.values(), found, strict=True):
            total.add_(gradient if gradient is not None else 0.0, alpha=part.weight)
        losses.append({name: _hex(value) for name, value in loss.parts.items()})
        causes += [cause for cause in _causes(objective, part.cells) if cause not in causes]
    set_buffers(objective, buffers)
    before.restore(device)
    digest = hashlib.sha256(b"".join(g.cpu().numpy().tobytes() for g in gradients.values()))
    module = first[0] if first else None
    return Findings(module, _norms(gradients), losses, digest.hexdigest(), causes)


def write_black_box(
    folder: Path,
    objective: Objective,
    parts: list[Part],
    findings: Findings,
    told: dict[str, Any],
) -> None:
    """Write the folder, whole or not at all.

    Parameters
    ----------
    folder
        Where; replaced if it is there.
    objective, parts
        The step, with the weights from before.
    findings
        What it gave.
    told
        The event, and how the step was computed.
    """
    tensors = {f"model.{name}": value for name, value in objective.model.state_dict().items()}
    tensors |= {f"objective.{name}": value for name, value in objective.buffers().items()}
    for name, extra in objective.extras().items():
        tensors |= {f"extra.{name}.{key}": value for key, value in extra.state_dict().items()}
    described = []
    for number, part in enumerate(parts):
        kind = "cells" if isinstance(part.cells, Cells) else "latents"
        described.append({"kind": kind, "weight": part.weight})
        held = {f.name: getattr(part.cells, f.name) for f in fields(part.cells)}
        kept = {name: v for name, v in held.items() if isinstance(v, torch.Tensor)}
        tensors |= {f"part{number}.{name}": value for name, value in kept.items()}
        tensors |= {f"part{number}.{n}": v for n, v in part.random.as_tensors().items()}
    report = {
        "format": FORMAT,
        **told,
        "objective": objective.describe(),
        "sizes": objective.model.sizes,
        "parts": described,
        "findings": findings.as_json(),
        "machine": {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "n_threads": torch.get_num_threads(),
        },
    }
    with atomic_path(folder) as made:
        made.mkdir()
        kept = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
        (made / STATE).write_bytes(save(kept))
        (made / REPORT).write_text(json.dumps(report, indent=2) + "\n")


def replay_black_box(folder: Path) -> tuple[dict[str, Any], Findings]:
    """Do the step of a black box again, on this machine's CPU.

    Returns
    -------
    report : dict
        What was written when it happened.
    findings : Findings
        What the step gave here.

    Raises
    ------
    CfmvcError
        If the folder is no black box, or of another format.
    """
    try:
        report = read_json(folder / REPORT)
        tensors = load_file(folder / STATE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CfmvcError(
            f"{folder}: not a NaN black box (expected {REPORT} and {STATE}): {error}"
        ) from error
    if report.get("format") != FORMAT:
        raise CfmvcError(
            f"{folder}: black box of format {report.get('format')}, this cfmvc reads {FORMAT}"
        )
    torch.set_num_threads(report["machine"]["n_threads"])
    objective = _rebuilt(report, tensors)
    parts = [
        _part(described, under(f"part{number}.", tensors))
        for number, described in enumerate(report["parts"])
    ]
    return report, replayed(objective, parts, torch.device("cpu"), report["precision"])


def _rebuilt(report: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Objective:
    model = CFMVCModel(**report["sizes"])
    model.load_state_dict(under("model.", tensors))
    described = report["objective"]
    objective = OBJECTIVES[described["kind"]](model, **described["settings"])
    for name, value in described["moment"].items():
        setattr(objective, name, value)
    set_buffers(objective, under("objective.", tensors))
    for name, extra in objective.extras().items():
        extra.load_state_dict(under(f"extra.{name}.", tensors))
    for module in objective.modules():
        module.train()
    return objective


def _part(described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Part:
    kind = _CELLS[described["kind"]]
    held = {f.name: tensors.get(f.name) for f in fields(kind)}
    random = RandomState.of_tensors(tensors)
    return Part(kind(**held), replace(random, device=None), described["weight"])


@contextmanager
def _watched(objective: Objective, first: list[str]) -> Iterator[None]:
    """Append the names of modules whose output is not finite; only a replay pays for this."""
    with ExitStack() as stack:
        for top in objective.modules():
            for path, module in top.named_modules():
                name = f"{type(top).__name__}.{path}" if path else type(top).__name__

                def look(_m: nn.Module, _i: Any, output: Any, name: str = name) -> None:
                    outputs = output if isinstance(output, tuple) else (output,)
                    if not all(torch.isfinite(value).all() for value in outputs):
                        first.append(name)

                stack.callback(module.register_forward_hook(look).remove)
        yield


def _norms(gradients: dict[str, torch.Tensor]) -> dict[str, float | None]:
    squares: dict[str, float] = {}
    for name, gradient in gradients.items():
        module = name.rpartition(".")[0]
        squares[module] = squares.get(module, 0.0) + float(gradient.double().square().sum())
    return {n: s**0.5 if torch.isfinite(torch.tensor(s)) else None for n, s in squares.items()}


@torch.no_grad()
def _causes(objective: Objective, cells: Any) -> list[str]:
    if not isinstance(cells, Cells):
        return []
    model = objective.model
    encoder, decoder = model.encoder, model.decoder
    q = encoder.posterior(cells.x, cells.batch, cells.cell_type)
    mean, theta = decoder(q.int_mean, q.tech_mean, cells.x.clamp_min(0.0).sum(1))
    return nan_causes(cells.x, mean, theta)


def _hex(value: torch.Tensor) -> str:
    return float(value.detach()).hex()
