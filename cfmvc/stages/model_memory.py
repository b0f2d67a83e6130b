"""What a model holds in memory while it computes, as arrays that the code makes."""

from typing import Any, Literal

import torch
from torch import nn

from cfmvc.flow.divergences import MOST_COMPARED
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.training.memory import NUMBER, Arrays

Moment = Literal["forward", "backward", "validation"]

# Besides the counts. Encoder: log1p(x). Decoder: logits. models/nb_loss.py: limited, share, ratio,
# spread, weight, and where the gradient is masked a copy of it and a mask of bytes. Of these
# log1p(x), the gradient and its multiple are left when the layers' gradients are made, and without
# a gradient log1p(x) is not kept.
_OF_GENES: dict[Moment, float] = {"forward": 8.25, "backward": 3.0, "validation": 7.25}
_OF_LATENTS = 10  # moments, draws, divergences, covariates: arrays as wide as the latents
_OF_TALLY = 17 * 12 + 15 * 4 * 8  # bytes a gene: tally, at_least, and what _terms_of_tally makes
_N_LAYERS = 4  # as wide as hidden_vae: two of the encoder, two of the decoder


class ModelMemory:
    """Sizes of a model, counted on one that is made for it and forgotten.

    Parameters
    ----------
    sizes
        What the model's constructor takes.
    """

    def __init__(self, sizes: dict[str, Any]) -> None:
        # Not on the device `meta`, whose initialisers load torch's compiler: seconds of each start.
        with torch.random.fork_rng(devices=[]):
            model = CFMVCModel(**sizes)
        self.sizes = sizes
        self.n_vae = _n_numbers(model.encoder) + _n_numbers(model.decoder)
        self.n_flow = _n_numbers(model.context) + _n_numbers(model.field)
        self.n_latent = 2 * (sizes["dim_int"] + sizes["dim_tech"])
        self.n_place = len(model.context.centre)

    @property
    def per_latent(self) -> int:
        """Bytes of an encoded cell: moments, library, place, three codes (models/reference.py)."""
        # of neighbours and coordinates the parts and the whole
        n_place = self.n_place * (2 if self.n_place > (self.sizes["spatial_dim"] or 0) else 1)
        return (self.n_latent + 1 + n_place) * NUMBER + 3 * 8

    def weights(self) -> list[Arrays]:
        """Return the weights; half of them are the encoder's matrix, half the decoder's."""
        return [Arrays("weights", (self.n_vae + self.n_flow) * NUMBER / 2, 2)]

    def vae(self, n: int, moment: Moment, precision: str) -> list[Arrays]:
        """Return what encoder, decoder and likelihood hold for ``n`` cells, besides the counts."""
        is_half = precision == "bfloat16" and moment != "validation"
        # Of a layer: linear, norm, activation; with dropout, linear, norm, mask, product.
        n_kept = _N_LAYERS * (4 if self.sizes["dropout_vae"] > 0 else 3)
        n_hidden = 2 if moment == "validation" else n_kept / 2 if is_half else n_kept
        n_genes = self.sizes["n_genes"]
        return [
            Arrays("arrays of cells x genes", n * n_genes * NUMBER, _OF_GENES[moment]),
            Arrays("hidden layers", n * self.sizes["hidden_vae"] * NUMBER, n_hidden),
            Arrays("hidden layers", n * self.n_latent * NUMBER / 2, _OF_LATENTS),
            Arrays("tally of the counts", n_genes * _OF_TALLY),
            Arrays("weights in half precision", self.n_vae * NUMBER / 4, 2 if is_half else 0),
        ]

    def flow(self, n: int, moment: Moment, lambda_dist: float) -> list[Arrays]:
        """Return what context, field and distribution matching hold for ``n`` cells."""
        sizes = self.sizes
        # Trunk: three layers as above. Field: basis fields, and a copy each way for their product.
        width = 3 * 4 * sizes["hidden_flow"] + 3 * sizes["n_basis"] * sizes["dim_int"]
        width += 10 * sizes["hidden_ctx"] + _OF_LATENTS * sizes["dim_int"]
        held = [Arrays("flow's layers", n * width * NUMBER)]
        if lambda_dist == 0 or moment == "forward":
            return held
        # Three sets of differences of which two are kept, with their squares' gradients; and which
        # pairs agree in every column of p, some columns at a time.
        pairs = Arrays("pairs of cells", n * n * sizes["dim_int"] * NUMBER, 5)
        compared = min(n * n * sizes["n_perts"], max(n * n, MOST_COMPARED))
        return [*held, pairs, Arrays("pairs of cells", compared)]

    def encoding(self, n: int, n_all: int) -> list[Arrays]:
        """Return what it takes to encode ``n_all`` cells, ``n`` at a time (models/reference.py)."""
        wide = [(self.sizes["n_genes"], 2), (self.sizes["n_perts"], 3)]
        return [
            # Counts, and log1p(x); the vectors and their sorted copies.
            *(Arrays("cells that are encoded", n * w * NUMBER, times) for w, times in wide),
            Arrays("latents", n_all * self.per_latent),
        ]


def _n_numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
