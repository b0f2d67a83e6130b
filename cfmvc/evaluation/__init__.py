"""Scores of predicted cells against real ones, simple baselines and the data's own ceiling.

The names are loaded at first use: who asks for a metric's direction need not wait for scikit-learn.
"""

from importlib import import_module
from typing import Any

_OWNERS = {
    "METRICS": "cfmvc.evaluation.metrics",
    "EvaluateConfig": "cfmvc.evaluation.config",
    "Evaluation": "cfmvc.evaluation.result",
    "View": "cfmvc.evaluation.result",
}

__all__ = ["METRICS", "EvaluateConfig", "Evaluation", "View"]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)
