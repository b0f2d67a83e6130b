"""The ``evaluate`` section of ``params.yaml``."""

from pydantic import Field, model_validator

from cfmvc.config import Section


class EvaluateConfig(Section):
    """How predictions are scored."""

    n_top_genes: int = Field(
        ge=1, description="most shifted genes that get scores of their own; at most half of all"
    )
    n_components: int = Field(
        ge=1, description="principal components in which populations are compared"
    )
    max_cells: int = Field(ge=2, description="cells a side in the distances between populations")
    min_cells: int = Field(
        ge=4, description="test conditions with fewer real cells are listed, not scored"
    )
    n_ceiling_splits: int = Field(
        ge=1, description="random halvings over which the ceiling is averaged; 2 for bounds of it"
    )
    n_draws: int = Field(
        ge=0,
        description="times that other cells of each population are drawn, for intervals; 0: none",
    )
    n_bootstrap: int = Field(ge=100, description="times that other conditions are drawn")
    confidence: float = Field(gt=0.5, lt=1.0, description="of the intervals, e.g. 0.95")
    solved_at: float = Field(
        gt=0.0,
        le=1.0,
        description="a baseline that comes so far from control to ceiling has solved a condition",
    )
    resistant_below: float = Field(
        ge=0.0, lt=1.0, description="a condition where no baseline comes so far resists them"
    )
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "EvaluateConfig":
        if self.resistant_below >= self.solved_at:
            raise ValueError("resistant_below must be below solved_at")
        if self.n_draws == 1:
            raise ValueError("n_draws: of one draw there is no spread; 0, or 2 at least")
        return self
