"""The ``data``, ``split`` and ``simulate`` sections of ``params.yaml``."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

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


class SimulateConfig(Section):
    """Size of the simulated data and strength of what is in them (log fold changes: natural)."""

    n_cells: int = Field(ge=1)
    n_genes: int = Field(ge=2)
    n_batches: int = Field(ge=1)
    n_cell_types: int = Field(ge=1)
    n_perturbations: int = Field(ge=1, description="single perturbations, the control not counted")
    n_combinations: int = Field(ge=0, description="pairs of the single perturbations")
    n_interactive: int = Field(ge=0, description="combinations that are not the sum of their parts")
    interaction: Literal["own", "limited", "company"] = Field(
        description="what these are instead: see cfmvc.data.simulate"
    )
    doses: list[float] = Field(description="doses of the perturbed cells; empty: no dose column")
    half_dose: float | None = Field(
        gt=0, description="dose of half of the response; null: it goes with the dose"
    )
    spatial: bool = Field(description="give coordinates, and genes that follow the first")
    embedding_dim: int = Field(
        ge=0, description="width of embeddings that the perturbations' responses follow; 0: none"
    )
    control_fraction: float = Field(gt=0, lt=1, description="share of control cells")
    median_library: float = Field(gt=0, description="counts of a median cell")
    library_spread: float = Field(ge=0, description="standard deviation of log library size")
    inverse_dispersion: float = Field(gt=0, description="median over genes of the NB's theta")
    n_programmes: int = Field(ge=1, description="continuous factors of a cell's state")
    programme_effect: float = Field(ge=0, description="sd of a programme's loadings")
    cell_type_effect: float = Field(ge=0, description="sd of a cell type's own log fold changes")
    batch_effect: float = Field(ge=0, description="sd of a batch's log fold changes")
    perturbed_fraction: float = Field(gt=0, le=1, description="share of genes that respond")
    perturbation_effect: float = Field(ge=0, description="sd of the shared responses")
    specific_effect: float = Field(ge=0, description="sd of a cell type's own responses")
    interaction_effect: float = Field(
        ge=0, description="sd of an interaction's responses; limited: the largest response"
    )
    seed: int = Field(ge=0)

    @property
    def n_sociable(self) -> int:
        """How many perturbations the additive combinations, made of as few as they can, leave."""
        return self.n_perturbations - parts_of(self.n_combinations - self.n_interactive)

    @model_validator(mode="after")
    def _pairs_exist(self) -> "SimulateConfig":
        n_pairs = self.n_perturbations * (self.n_perturbations - 1) // 2
        if self.n_combinations > n_pairs:
            raise ValueError(
                f"n_combinations: {self.n_perturbations} perturbations have {n_pairs} pairs"
            )
        if self.n_interactive > self.n_combinations:
            raise ValueError("n_interactive: more than n_combinations")
        if self.interaction == "company" and self.n_sociable < parts_of(self.n_interactive):
            raise ValueError(
                f"n_perturbations: {self.n_perturbations} are too few for "
                f"{self.n_interactive} interactive combinations of some and "
                f"{self.n_combinations - self.n_interactive} additive ones of others"
            )
        if self.n_interactive and self.interaction == "limited" and not self.interaction_effect:
            raise ValueError("interaction_effect: must be positive where responses are limited")
        if any(not (math.isfinite(dose) and dose > 0) for dose in self.doses):
            raise ValueError("doses: must be positive numbers")
        return self


def parts_of(n_pairs: int) -> int:
    """Return the smallest number of perturbations that has so many pairs."""
    return math.ceil((1 + math.sqrt(1 + 8 * n_pairs)) / 2) if n_pairs else 0
