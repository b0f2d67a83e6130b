"""Small models and cells."""

import pytest
import torch

from cfmvc.models import CFMVCModel

N_GENES, N_BATCH, N_CT, N_PERTS = 30, 3, 4, 5


@pytest.fixture(params=["noise", "control"])
def model(request: pytest.FixtureRequest) -> CFMVCModel:
    torch.manual_seed(0)
    model = CFMVCModel(N_GENES, N_BATCH, N_CT, N_PERTS, 6, 3, 16, 8, 16, 4, source=request.param)
    for parameter in model.parameters():  # label embeddings start at zero: fill them
        torch.nn.init.normal_(parameter, std=0.3)
    model.latent_mean.normal_()
    model.latent_std.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def conditions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    p = torch.zeros(40, N_PERTS)
    p[torch.arange(40), torch.randint(1, N_PERTS, (40,))] = 1.0
    return p, torch.randint(N_BATCH, (40,)), torch.randint(N_CT, (40,))
