"""Stages: config, data and model to the loop; nothing else.

The names are loaded at first use, so that predicting does not import the training.
"""

from importlib import import_module
from typing import Any

_OWNERS = {
    "GenerateConfig": "cfmvc.stages.predict",
    "Prediction": "cfmvc.stages.predict",
    "RegionChange": "cfmvc.stages.region",
    "TrainingCells": "cfmvc.stages.vae",
    "fit_flow": "cfmvc.stages.flow",
    "fit_joint": "cfmvc.stages.flow",
    "fit_vae": "cfmvc.stages.vae",
    "perturb_region": "cfmvc.stages.region",
    "predict_cells": "cfmvc.stages.predict",
}

__all__ = list(_OWNERS)


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)
