"""The ``evaluate`` section of ``params.yaml``."""

from pydantic import Field

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
        ge=1, description="random halvings over which the ceiling is averaged"
    )
    seed: int
