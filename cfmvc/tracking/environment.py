"""The machine and the versions under a run."""

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from typing import Any

import psutil

_SHOWN = ("cfmvc", "torch", "numpy", "scipy", "pandas", "anndata", "scikit-learn", "mlflow", "dvc")
_GIB = 1024**3


def environment() -> dict[str, Any]:
    """Return versions of the packages that matter, and the machine in words."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in _SHOWN if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": platform.processor() or platform.machine(),
        "n_cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / _GIB, 1),
        "gpus": _gpus(),
    }


@cache
def requirements() -> str:
    """Return all installed packages as ``name==version`` lines, sorted; read once a process."""
    known = (dist.metadata for dist in metadata.distributions())
    found = {f"{one['Name']}=={one['Version']}" for one in known if one["Name"]}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Ask the driver's tool: asking torch would claim memory on the GPU in stages without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
