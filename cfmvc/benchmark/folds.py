"""A fold: which cells a training does not see, and is asked to predict."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.data.prepared import LEAST_CONTROLS, control_of, separator_of
from cfmvc.data.vocabulary import split_label
from cfmvc.errors import DataError, listed

Mask = NDArray[np.bool_]


class NotAllowed(DataError):  # noqa: N818 - of a task, which other data would allow
    """The data do not have what a task needs; the message says what."""


@dataclass(frozen=True)
class Region:
    """A part of the tissue.

    Parameters
    ----------
    is_inside
        Which cells are there, ``(n_cells,)``.
    low, high
        Bounds of the first coordinate.
    """

    is_inside: Mask
    low: float
    high: float


@dataclass(frozen=True)
class Fold:
    """What is held out.

    Parameters
    ----------
    name
        As ``--folds`` takes it, unique within its task.
    held_out
        In words.
    is_test
        The held-out cells, ``(n_cells,)``; controls are none of them.
    region
        Where these cells are, if that is what sets them apart: they are then predicted from, and
        compared with, the controls of this region.
    """

    name: str
    held_out: str
    is_test: Mask
    region: Region | None = None


def dealt(folds: list[Fold], most: int) -> list[Fold]:
    """Put folds together where they are more than ``most``, as cards are dealt.

    A screen of hundreds of combinations would else take hundreds of trainings.
    """
    if len(folds) <= most:
        return folds
    return [
        Fold(
            f"group {number + 1} of {most}",
            listed(fold.name for fold in group),
            np.any([fold.is_test for fold in group], axis=0),
        )
        for number, group in enumerate(folds[first::most] for first in range(most))
    ]


FoldMaker = Callable[["Design", BenchmarkConfig], list[Fold]]
"""Makes a task's folds.

Raises :class:`NotAllowed` if there is none.
"""


@dataclass(frozen=True)
class Design:
    """The labels of canonical cells, as folds are made of them.

    Parameters
    ----------
    cells
        Canonical cells.
    """

    cells: AnnData

    @cached_property
    def control(self) -> str:
        """Label of the unperturbed cells."""
        return control_of(self.cells)

    @cached_property
    def separator(self) -> str:
        """What joins the parts of a combination."""
        return separator_of(self.cells)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """Columns ``perturbation, batch, cell_type``, of text."""
        return self.cells.obs[["perturbation", "batch", "cell_type"]].astype(str)

    @cached_property
    def is_control(self) -> Mask:
        """The unperturbed cells."""
        return (self.labels["perturbation"] == self.control).to_numpy()

    @cached_property
    def is_measured(self) -> Mask:
        """The perturbed cells whose stratum has controls: others show no effect."""
        strata = pd.MultiIndex.from_frame(self.labels[["batch", "cell_type"]])
        return np.asarray(strata.isin(strata[self.is_control])) & ~self.is_control

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Each label of the perturbed cells, taken apart."""
        perturbed = self.labels["perturbation"][~self.is_control]
        return {label: split_label(label, self.separator) for label in sorted(set(perturbed))}

    def where(self, column: str, value: str) -> Mask:
        """Return the perturbed cells with a label."""
        return (self.labels[column] == value).to_numpy() & ~self.is_control

    def seen_elsewhere(self, is_test: Mask) -> Mask:
        """Return of the test cells those whose perturbation is measured outside the test as well.

        The rest stays in training, where it is no answer to what is asked.
        """
        perturbation = self.labels["perturbation"]
        kept = set(perturbation[self.is_measured & ~is_test])
        return is_test & perturbation.isin(kept).to_numpy()

    def n_scorable(self, fold: Fold, min_cells: int) -> int:
        """Return how many conditions of a fold have so many cells and controls beside them."""
        controls = self.is_control if fold.region is None else fold.region.is_inside
        strata = pd.MultiIndex.from_frame(self.labels[["batch", "cell_type"]])
        n_controls = strata[controls & self.is_control].value_counts()
        with_enough = n_controls[n_controls >= LEAST_CONTROLS].index
        test = self.labels[fold.is_test & np.asarray(strata.isin(with_enough))]
        if "dose" in self.cells.obs:
            test = test.assign(dose=self.cells.obs["dose"])
        return int((test.value_counts() >= min_cells).sum())
