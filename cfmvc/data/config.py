"""The ``data`` and ``split`` sections of ``params.yaml``."""

from typing import Literal

from pydantic import Field

from cfmvc.config import Section


class DataConfig(Section):
    """Where the counts are, and what the user's columns are called."""

    path: str = Field(description="canonical .h5ad file, the pipeline's input")
    counts_layer: str = Field(description="layer of raw counts; 'X' for the matrix itself")
    perturbation: str = Field(description="obs column of the perturbation")
    batch: str = Field(description="obs column of the technical batch, donor or replicate")
    cell_type: str = Field(description="obs column of the cell type or state")
    dose: str = Field(description="obs column of the dose; used where it exists")
    spatial: str = Field(description="obsm key of the coordinates; used where it exists")
    control: str = Field(description="label of the unperturbed cells")
    separator: str = Field(description="joins the parts of a combination; empty: never split")
    min_cells_per_stratum: int = Field(ge=1, description="fewer cells raise a warning")


class SplitConfig(Section):
    """Which cells are held out for the test, and which validate the training."""

    kind: Literal["auto", "random", "held_out_cell_type", "held_out_batch", "held_out_combination"]
    held_out: list[dict[str, str]] | None = Field(
        description="conditions to hold out, e.g. {perturbation: IFNb, cell_type: B cells}; "
        "null: chosen, the largest conditions first"
    )
    test_fraction: float = Field(gt=0, lt=1, description="of the conditions (random: of the cells)")
    val_fraction: float = Field(gt=0, lt=1, description="of each training condition's cells")
    seed: int
