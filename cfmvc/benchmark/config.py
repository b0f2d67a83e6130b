"""The ``benchmark`` section of ``params.yaml``."""

from typing import Any

from pydantic import Field

from cfmvc.config import Section


class BenchmarkConfig(Section):
    """How a task's folds are made."""

    n_seeds: int = Field(ge=1, description="trainings of each fold; their seeds are 0, 1, ...")
    n_knock_outs: int = Field(
        ge=1, description="held_out_batch: of each batch, the perturbations with most shifted genes"
    )
    min_cells_to_rank: int = Field(
        ge=2, description="held_out_batch: those with fewer cells in the batch are not considered"
    )
    max_folds: int = Field(
        ge=2,
        description="combinations, doses, unseen perturbations: where they are more they are dealt "
        "into so many folds",
    )
    n_regions: int = Field(
        ge=2, description="spatial_region: strips of the tissue along the first coordinate"
    )
    combinations: dict[str, Any] = Field(
        description="held_out_combination: of the simulation, where `simulate` has less than 3; "
        "keys are those of `simulate`"
    )
    doses: list[float] = Field(
        min_length=2, description="held_out_dose: of the simulation, where `simulate` names none"
    )
    embedding_dim: int = Field(
        ge=1, description="unseen_perturbation: of the simulation, where `simulate` has none"
    )
