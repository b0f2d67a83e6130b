"""Integration of a velocity field from 0 to 1, with a guard on every velocity.

Euler's step is a line and stands here; the other solvers are those of ``torchdiffeq``: fixed steps
(midpoint, RK4) and adaptive (dopri5).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from cfmvc.errors import ConfigError, listed

FIXED_STEP = ("euler", "midpoint", "rk4")
SOLVERS = (*FIXED_STEP, "dopri5")
_RTOL, _ATOL = 1e-5, 1e-6  # of the adaptive solver: single precision has no more to give

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NonFiniteVelocity:
    """Velocities of one evaluation that were not finite, and were replaced by 0."""

    step: int
    t: float
    cells: list[int]

    @property
    def n_cells(self) -> int:
        """How many cells were hit."""
        return len(self.cells)


@dataclass
class _Guard:
    """Replaces non-finite velocities by 0 and remembers where they were."""

    velocity: Velocity
    step: int = 0
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        v = self.velocity(t, z)
        # The largest of a row is finite if all are; `all` of a table of flags takes far longer.
        self.seen.append((self.step, t, ~torch.isfinite(v.abs().amax(dim=1))))
        return torch.nan_to_num(v, nan=0.0, posinf=0.0, neginf=0.0)

    def events(self) -> list[NonFiniteVelocity]:
        """Read the flags back, once, after the integration."""
        if not self.seen or not torch.stack([bad.any() for _, _, bad in self.seen]).any():
            return []
        return [
            NonFiniteVelocity(step, float(t), bad.nonzero().reshape(-1).tolist())
            for step, t, bad in self.seen
            if bad.any()
        ]


def integrate(
    velocity: Velocity, z_0: torch.Tensor, n_steps: int, method: str = "euler"
) -> tuple[torch.Tensor, list[NonFiniteVelocity]]:
    """Solve ``dz/dt = v(t, z)`` from 0 to 1.

    Parameters
    ----------
    velocity
        Called with ``t`` (a scalar tensor) and ``z`` of the shape of ``z_0``.
    z_0
        Start, ``(B, D)``.
    n_steps
        Number of equal steps (fixed-step solvers); the adaptive solver chooses its own.
    method
        One of :data:`SOLVERS`.

    Returns
    -------
    z_1 : torch.Tensor
        End, ``(B, D)``.
    events : list of NonFiniteVelocity
        Non-finite velocities that were replaced by 0; empty where nothing happened.
    """
    if method not in SOLVERS:
        raise ConfigError(f"solver '{method}': unknown; valid: {listed(SOLVERS)}")
    if n_steps < 1:
        raise ConfigError(f"n_steps: must be at least 1 (got {n_steps})")
    guard = _Guard(velocity)
    # The solver's grid is the steps themselves; the adaptive one reports the end alone.
    n_times = n_steps + 1 if method in FIXED_STEP else 2
    times = torch.linspace(0.0, 1.0, n_times, dtype=z_0.dtype, device=z_0.device)
    end = _last(guard, z_0, times, method)
    return end, guard.events()


def _last(velocity: _Guard, z_0: torch.Tensor, times: torch.Tensor, method: str) -> torch.Tensor:
    """Integrate interval by interval, so that the path in between is not kept in memory.

    The displacement from ``z_0`` is integrated, not the state: where the velocity is zero it stays
    exactly zero, in the adaptive solver's interpolation as well.
    """
    moved = torch.zeros_like(z_0)
    for start in range(len(times) - 1):
        velocity.step, interval = start, times[start : start + 2]
        moved = _step(lambda t, d: velocity(t, z_0 + d), moved, interval, method)
    return z_0 + moved


def _step(
    field: Velocity, moved: torch.Tensor, interval: torch.Tensor, method: str
) -> torch.Tensor:
    if method == "euler":
        start, end = interval
        return moved + (end - start) * field(start, moved)
    # With it comes all of scipy.integrate: a prediction by Euler steps need not wait for that.
    from torchdiffeq import odeint

    return odeint(field, moved, interval, rtol=_RTOL, atol=_ATOL, method=method)[-1]
