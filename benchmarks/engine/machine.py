"""The machine, the versions and the code under a result."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_SHOWN = ("cfmvc", "torch", "numpy", "scipy", "anndata", "pandas", "mlflow")
_HERE = Path(__file__).resolve().parent


def machine() -> dict[str, Any]:
    """Return what a result depends on and a commit does not say."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: v for name in _SHOWN if (v := _version(name)) is not None},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def when() -> dict[str, Any]:
    """Return date, commit, and how busy the machine is before the measurement."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    named = facts.get("model name") or platform.machine()
    numbers = [f"{k} {facts[k]}" for k in ("cpu family", "model", "stepping") if k in facts]
    return f"{named} ({', '.join(numbers)})" if numbers else named


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_HERE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ":!/benchmarks/results"
        )
        return git("rev-parse", "--short=10", "HEAD") + (" with local changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
