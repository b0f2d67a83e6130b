"""Data: contract, vocabulary, splits, simulator, and the cells that the model is fed with.

The names are loaded at first use, so that checking a file does not import torch.
"""

from importlib import import_module
from typing import Any

_OWNERS = {
    "CellTable": "cfmvc.data.dataset",
    "Cells": "cfmvc.data.dataset",
    "SingleCellDataset": "cfmvc.data.dataset",
    "collate_fn_cfm": "cfmvc.data.dataset",
    "Vocabulary": "cfmvc.data.vocabulary",
}

__all__ = ["CellTable", "Cells", "SingleCellDataset", "Vocabulary", "collate_fn_cfm"]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)
