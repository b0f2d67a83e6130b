"""The least time that matrix products of given sizes need on this machine."""

import time

import torch
from torch import nn

from benchmarks.engine.rounds import THREADS, threads
from cfmvc.models import CFMVCModel

_SIDE, _N_TRIES, _AT_ONCE = 512, 20, 5


def peak_flops() -> float:
    """Return the floating point operations a second of a square product, at its best."""
    return max(_square_flops(n) for n in THREADS)


def _square_flops(n_threads: int) -> float:
    a, b, out = torch.rand(3, _SIDE, _SIDE)
    best = float("inf")
    with threads(n_threads):
        for _ in range(_N_TRIES):
            started = time.perf_counter()
            for _ in range(_AT_ONCE):
                torch.mm(a, b, out=out)
            best = min(best, (time.perf_counter() - started) / _AT_ONCE)
    return 2.0 * _SIDE**3 / best


def reference_flops(model: CFMVCModel, n_cells: int, n_steps: int) -> float:
    """Return the operations of products if every step of every cell evaluates all of the field."""
    n_basis, n_state = model.field.shape
    a_step = _products(model.context) + _products(model.field) + n_basis * n_state
    return 2.0 * n_cells * (n_steps * a_step + _products(model.decoder))


def folded_flops(model: CFMVCModel, n_cells: int, n_steps: int) -> float:
    """Return the same if what a condition determines is computed once, and counts as nothing."""
    n_state = model.field.shape[1]
    first = model.field.trunk[0]
    assert isinstance(first, nn.Linear)
    hidden = first.out_features
    later = _products(model.field.trunk) - first.weight.numel()
    a_step = n_state * hidden + later + hidden * n_state
    return 2.0 * n_cells * (n_steps * a_step + _products(model.decoder))


def roofline(model: CFMVCModel, n_cells: int, n_steps: int, reference_seconds: float) -> list[str]:
    """Return notes: what the products alone take at least, and the ratios that follow.

    Parameters
    ----------
    model
        Whose sizes count.
    n_cells, n_steps
        Of the generation.
    reference_seconds
        What the reference took.
    """
    peak = peak_flops()
    notes = [f"products of {_SIDE} x {_SIDE} reach {peak / 1e9:.0f} GFLOP/s here, in this run"]
    for name, flops in (
        ("as the reference evaluates it", reference_flops(model, n_cells, n_steps)),
        ("conditions folded in", folded_flops(model, n_cells, n_steps)),
    ):
        least = flops / peak
        notes.append(
            f"matrix products {name}: {flops / 1e9:.0f} GFLOP, {least:.2f} s at least; even if all "
            f"else took no time, {reference_seconds / least:.1f}x the reference"
        )
    return notes


def _products(module: nn.Module) -> int:
    """Return the multiplications of all linear layers, for one row."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)
