"""Peak memory of the process and of the GPU."""

import resource
import sys

import torch

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB on Linux
_GIB = 1024**3


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peaks in GiB: RSS of the process, and on CUDA what was allocated and reserved."""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    peaks = {"peak_rss_gib": rss / _GIB}
    if device.type == "cuda":
        peaks["peak_gpu_allocated_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
        peaks["peak_gpu_reserved_gib"] = torch.cuda.max_memory_reserved(device) / _GIB
    return peaks
