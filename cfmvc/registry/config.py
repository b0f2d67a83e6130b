"""The ``register`` and ``gate`` sections of ``params.yaml``."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from cfmvc.config import Section
from cfmvc.errors import listed, suggest
from cfmvc.evaluation.metrics import METRICS

CHAMPION, PREVIOUS = "champion", "previous"
REGISTER_AGAIN = "`dvc repro --force --single-item register` registers it anew"


class RegisterConfig(Section):
    """Under which name a model enters the registry."""

    # It becomes a part of addresses, models:/NAME/3, and of MLflow's conditions.
    name: str = Field(
        pattern=r"^[^/:.@%?#\"'\x00-\x1f]+$", description="name of the registered model"
    )
    alias: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z_-]*$", description="alias that points to the newest version"
    )

    @field_validator("alias")
    @classmethod
    def _is_no_decision(cls, alias: str) -> str:
        if alias in (CHAMPION, PREVIOUS):
            raise ValueError(f"'{alias}' is for `cfmvc registry promote` to set; take another one")
        if alias.lower() == "latest":
            raise ValueError(f"'{alias}' is MLflow's own name of the newest version; take another")
        return alias


class GateConfig(Section):
    """What a version has to show before it becomes champion."""

    metrics: list[str] = Field(
        min_length=1,
        description="each has to be better than every baseline's and than the champion's",
    )
    confidence: float = Field(
        gt=0.5, lt=1.0, description="of a difference above 0, over conditions and cells"
    )
    n_bootstrap: int = Field(ge=100, description="times that other conditions are drawn")
    min_variance_ratio: float = Field(
        ge=0.0, description="generated over real variance; less is a collapse"
    )
    max_variance_ratio: float = Field(
        gt=0.0, description="generated over real variance; more is noise that was added"
    )
    max_nan_steps: int = Field(ge=0, description="updates vetoed for NaN in all of the training")
    max_peak_memory_gib: float = Field(gt=0.0, description="of any stage of the training")
    max_predict_seconds: float = Field(
        gt=0.0, description="to generate 1,000 cells on the machine that decides"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            near = suggest(unknown[0], METRICS)
            raise ValueError(f"no metric '{unknown[0]}'{near}; valid: {listed(METRICS, 40)}")
        if self.min_variance_ratio >= self.max_variance_ratio:
            raise ValueError("min_variance_ratio must be below max_variance_ratio")
        return self
