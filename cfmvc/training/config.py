"""The ``vae``, ``flow`` and ``joint`` sections of ``params.yaml``."""

import math
from typing import Literal

from pydantic import Field

from cfmvc.config import Section

Precision = Literal["float32", "tf32", "bfloat16"]
"""Of matrix products in training."""

# Of a VAE whose epochs are not given; chosen on Kang and simulated cells, with cell types held out.
_EPOCHS, _LEAST_STEPS = 80, 4000


class LoopConfig(Section):
    """What every training stage sets."""

    n_epochs: int = Field(ge=0)
    cells_per_step: int = Field(ge=2, description="cells in one optimiser step")
    lr: float = Field(gt=0, description="peak learning rate (AdamW)")
    weight_decay: float = Field(ge=0)
    lr_warmup: float = Field(ge=0, lt=1, description="share of the steps with a rising rate")
    lr_end: float = Field(ge=0, le=1, description="final rate, as a share of lr (cosine)")
    grad_clip_max_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1, description="of the averaged weights; 0: no averaging")
    patience: int = Field(ge=1, description="validations without progress before stopping")
    validate_every: int = Field(ge=1, description="epochs between validations")
    nan_check_interval: int = Field(ge=1, description="steps between reads of the NaN flags")
    nan_policy: Literal["skip", "rollback", "abort"] = Field(
        description="after a vetoed update: go on, go back to the last good state with half the "
        "rate, or stop"
    )
    max_consecutive_vetoes: int = Field(ge=1, description="vetoed updates in a row before an error")
    seed: int = Field(ge=0)


class VaeConfig(LoopConfig):
    """Stage 1: the NB-VAE; with 0 epochs it has as many as :meth:`for_cells` says."""

    dim_int: int = Field(ge=1, description="width of the intrinsic state")
    dim_tech: int = Field(ge=1, description="width of the technical latent")
    hidden_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0, description="weight of the KL terms")
    tech_penalty: float = Field(ge=0, description="weight of KL_tech, relative to KL_int")
    kl_warmup: float = Field(ge=0, le=1, description="share of the epochs in which beta rises")
    lambda_batch: float = Field(
        ge=0, description="strength with which batches are drawn together in z_int"
    )
    lambda_adv: float = Field(
        ge=0, description="weight of the adversary that reads the perturbation from z_int"
    )

    def for_cells(self, n_cells: int) -> "VaeConfig":
        """Return the same with a number of epochs: where cells are few, more than where many.

        Patience grows with them, and lasts for the same share of the training: in epochs it would
        end while beta still rises.
        """
        if self.n_epochs:
            return self
        n_steps = max(math.ceil(n_cells / self.cells_per_step), 1)
        n_epochs = max(_EPOCHS, math.ceil(_LEAST_STEPS / n_steps))
        patience = round(self.patience * n_epochs / _EPOCHS)
        return self.model_copy(update={"n_epochs": n_epochs, "patience": patience})


class FlowConfig(LoopConfig):
    """Stage 2: the conditional flow."""

    source: Literal["noise", "control"]
    coupling: Literal["ot", "independent"] = Field(description="of control source and target")
    mean_response: float = Field(
        ge=0,
        le=1,
        description="how far, at least, the mean of virtual cells is brought from where the flow "
        "carries them to where related conditions let it be expected; farther, where the flow "
        "misses what it was trained on; 0: the flow alone",
    )
    recouple_every: int = Field(ge=1, description="epochs between new couplings")
    hidden_dim: int = Field(ge=1, description="width of the velocity field's trunk")
    hidden_ctx: int = Field(ge=1, description="width of the context encoder")
    n_basis: int = Field(ge=1)
    n_neighbours: int = Field(
        ge=0,
        description="where cells have coordinates: nearest controls of their batch whose mean "
        "latent is a part of the context; 0: the coordinates alone",
    )
    times: Literal["uniform", "logit_normal"]
    divergence: Literal["energy", "mmd"]
    lambda_dist: float = Field(ge=0, description="weight of the distribution matching")
    lambda_reg: float = Field(ge=0, description="weight of E|alpha|^2")
    dropout: float = Field(ge=0, lt=1)
    label_dropout: float = Field(ge=0, lt=1, description="share of cells with hidden covariates")


class JointConfig(LoopConfig):
    """Stage 3, optional: encoder, decoder and flow together; 0 epochs turn it off."""

    beta: float = Field(ge=0, description="weight of the KL terms")
    tech_penalty: float = Field(ge=0, description="weight of KL_tech, relative to KL_int")
    lambda_flow: float = Field(ge=0, description="weight of the flow's loss beside the ELBO")
