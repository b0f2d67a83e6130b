"""The one stack of layers that encoder, decoder and velocity field are made of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cfmvc.shards import uniform_like


class Dropout(nn.Module):
    """Sets a share of the values to 0 in training and scales up the others.

    Unlike torch's own it draws for all processes that train together (:mod:`cfmvc.shards`).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, ``(B, n)``, that are left."""
        if not self.training or self.share == 0:
            return values
        kept = uniform_like(values) >= self.share
        return values * (kept * (1.0 / (1.0 - self.share)))

    def extra_repr(self) -> str:
        """Show the share where a module is printed."""
        return f"{self.share}"


def mlp(n_in: int | None, hidden: int, n_layers: int, dropout: float = 0.0) -> nn.Sequential:
    """Return ``n_layers`` of linear, layer norm, SiLU and dropout, Xavier initialised.

    Parameters
    ----------
    n_in
        Width of the input; None where the caller has the first linear layer.
    hidden
        Width of every layer.
    n_layers
        How many.
    dropout
        Share of hidden units dropped in training.
    """
    layers: list[nn.Module] = []
    for layer in range(n_layers):
        width = n_in if layer == 0 else hidden
        if width is not None:
            linear = nn.Linear(width, hidden)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers.append(linear)
        layers += [nn.LayerNorm(hidden), nn.SiLU()]
        if dropout > 0:
            layers.append(Dropout(dropout))
    return nn.Sequential(*layers)


def run_in_place(layers: nn.Sequential, values: torch.Tensor) -> torch.Tensor:
    """Return ``layers(values)``, without a gradient: activations are overwritten, not kept."""
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.SiLU):
            values = nn.functional.silu(values, inplace=number > 0)
        else:
            values = layer(values)
    return values


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
            vectors = vectors * (uniform_like(vectors[:, :1]) >= self.label_dropout)
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
