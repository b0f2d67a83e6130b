"""The one stack of layers that encoder, decoder and velocity field are made of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def mlp(n_in: int, hidden: int, n_layers: int, dropout: float = 0.0) -> nn.Sequential:
    """Return ``n_layers`` of linear, layer norm, SiLU and dropout, Xavier initialised.

    Parameters
    ----------
    n_in
        Width of the input.
    hidden
        Width of every layer.
    n_layers
        How many.
    dropout
        Share of hidden units dropped in training.
    """
    layers: list[nn.Module] = []
    for layer in range(n_layers):
        linear = nn.Linear(n_in if layer == 0 else hidden, hidden)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LayerNorm(hidden), nn.SiLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class LabelEmbedding(nn.Embedding):
    """Label embedding that starts near zero and is dropped at random in training.

    A label whose context was never trained (a cell type seen as control alone, say) then acts as
    "no label" instead of as noise, and what the field learns leans on the cell's state first.
    """

    def __init__(self, n_labels: int, dim: int, label_dropout: float = 0.0) -> None:
        super().__init__(n_labels, dim)
        nn.init.normal_(self.weight, std=0.02)
        self.label_dropout = label_dropout

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels' vectors, ``(B, dim)``."""
        vectors = super().forward(labels)
        if self.training and self.label_dropout > 0:
            keep = torch.rand(len(labels), 1, device=vectors.device) >= self.label_dropout
            vectors = vectors * keep
        return vectors


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into ``eval()`` inside the block, and each back into the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training
