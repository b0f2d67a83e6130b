"""The ``data`` and ``split`` sections of ``params.yaml``."""

from typing import Annotated, Literal

from pydantic import Field

from cfmvc.config import Section

# A label as YAML has it: `batch: 1` means the batch that the data call 1.
Label = Annotated[str, Field(coerce_numbers_to_str=True)]


class DataConfig(Section):
    """Where the counts are, and what the user's columns are called."""

    path: str = Field(description="canonical .h5ad file, the pipeline's input")
    counts_layer: str = Field(description="layer of raw counts; 'X' for the matrix itself")
    perturbation: str = Field(description="obs column of the perturbation")
    batch: str = Field(description="obs column of the technical batch, donor or replicate")
    cell_type: str = Field(description="obs column of the cell type or state")
    dose: str = Field(description="obs column of the dose; used where it exists; empty: none")
    spatial: str = Field(
        description="obsm key of the coordinates; used where it exists; empty: none"
    )
    embeddings: str = Field(
        description="uns or obsm key of the perturbations' embeddings; used where it exists; "
        "empty: none"
    )
    control: Label = Field(description="label of the unperturbed cells")
    separator: str = Field(description="joins the parts of a combination; empty: never split")
    min_cells_per_stratum: int = Field(ge=1, description="fewer cells raise a warning")


class SplitConfig(Section):
    """Which cells are held out for the test, and which validate the training."""

    kind: Literal["auto", "random", "held_out_cell_type", "held_out_batch", "held_out_combination"]
    held_out: list[dict[str, Label]] | None = Field(
        description="conditions to hold out, e.g. {perturbation: IFNb, cell_type: B cells}; "
        "null: chosen, the largest conditions first"
    )
    test_fraction: float = Field(gt=0, lt=1, description="of the conditions (random: of the cells)")
    val_fraction: float = Field(gt=0, lt=1, description="of each training condition's cells")
    seed: int = Field(ge=0)
