"""A small trained-looking model, and the stores of the tracking tests."""

from pathlib import Path

import pytest
import torch

from cfmvc.data import Vocabulary
from cfmvc.models import Bundle, CFMVCModel, save_bundle
from cfmvc.models.reference import ReferenceCells
from tests.tracking.conftest import _own_store, store, template_store, workspace

__all__ = ["_own_store", "store", "template_store", "workspace"]

VOCABULARY = Vocabulary(("control", "a", "b"), ("x", "y"), ("p", "q"))
N_GENES, DIM_INT, DIM_TECH, N_REFERENCE = 12, 6, 3, 40


@pytest.fixture
def bundle(workspace: Path) -> Path:
    """Return the folder of a model that generates cells."""
    return make_bundle(workspace / "models" / "flow", seed=0)


def make_bundle(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = CFMVCModel(N_GENES, 2, 2, 3, DIM_INT, DIM_TECH, 16, 8, 16, 4, source="control")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    vector = torch.zeros(N_REFERENCE, dtype=torch.int64)
    vector[:20] = 1 + torch.arange(20) % 2
    model.reference = ReferenceCells(
        torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        vector,
        torch.arange(N_REFERENCE) % 2,
        torch.arange(N_REFERENCE) // 2 % 2,
        torch.full((N_REFERENCE,), 200.0),
        torch.randn(N_REFERENCE, DIM_INT),
        torch.full((N_REFERENCE, DIM_INT), 0.1),
        torch.randn(N_REFERENCE, DIM_TECH),
        torch.full((N_REFERENCE, DIM_TECH), 0.1),
    )
    genes = [f"gene-{number}" for number in range(N_GENES)]
    save_bundle(Bundle(model.eval(), VOCABULARY, genes, 200.0, {"flow": {}}), folder)
    return folder
