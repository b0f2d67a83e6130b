"""Training: one loop, its objectives and sources of cells, and the doors that users know.

The doors are loaded at first use, so that who reads a section's types does not import the loop.
"""

from typing import Any

__all__ = ["train_flow_stage", "train_vae_stage"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cfmvc.training import doors

    return getattr(doors, name)
