"""Virtual cells of the conditions asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from pydantic import Field
from scipy.sparse import csr_matrix

from cfmvc.config import Section
from cfmvc.data.cell_ids import CONTROL_CELL
from cfmvc.errors import DataError
from cfmvc.flow.solvers import NonFiniteVelocity
from cfmvc.models.bundle import Bundle
from cfmvc.models.calibration import Virtual, log_change, scaled
from cfmvc.models.conditions import is_control
from cfmvc.models.counterfactual import counterfactual_mean, counterfactual_sample
from cfmvc.models.encoder import draw
from cfmvc.models.likelihoods import nb_sample
from cfmvc.stages.arithmetic import LatentArithmetic
from cfmvc.stages.background import (
    Background,
    background_of,
    expect_controls,
    kept_background,
)
from cfmvc.stages.compute import seeded
from cfmvc.stages.conditions import check_conditions
from cfmvc.stages.expectation import Asked, Carried, Expectation, expectation_of, flow_shift_of
from cfmvc.stages.prediction import Part, Prediction, assembled, sparse_counts, with_expectation
from cfmvc.stages.wanted import Wanted

_CHUNK = 4096  # cells generated at a time


class GenerateConfig(Section):
    """How virtual cells are generated."""

    n_cells: int = Field(
        ge=1, description="virtual cells of each held-out condition, at least (whole rounds)"
    )
    n_steps: int = Field(ge=1, description="steps of the integration")
    method: str = Field(description="euler, midpoint, rk4 (fixed steps) or dopri5 (adaptive)")
    seed: int


def predict_cells(
    bundle: Bundle,
    conditions: pd.DataFrame,
    controls: AnnData | None = None,
    *,
    seed: int,
    n_steps: int,
    method: str = "euler",
    by: Literal["flow", "arithmetic"] = "flow",
    with_means: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Generate virtual cells; the same seed gives the same cells.

    With control cells as the flow's source, and real controls given, each virtual cell is a real
    control cell with the counts that it would have had under the perturbation
    (:mod:`cfmvc.models.counterfactual`); no perturbation leaves it as it is. Otherwise counts are
    drawn from the decoder's negative binomial.

    Parameters
    ----------
    bundle
        A trained model.
    conditions
        Columns ``perturbation, batch, cell_type, n_cells`` and optionally ``dose``.
    controls
        Canonical cells whose controls are the sources (or the technical background) of their
        stratum; the training controls that the model keeps, if not given.
    seed, n_steps, method
        Of the sampling and the integration.
    by
        What carries the cells: the flow, or arithmetic in the latent space, which the flow is
        compared with.
    with_means
        Whether the cells have ``layers["mean"]``, which is dense: of many cells most of what they
        take.
    progress
        Told the number of cells done, and of all.

    Raises
    ------
    UnknownLabelError
        If a label was not in the training; the known ones are listed.
    DataError
        If genes differ, or a stratum has no controls to start from.
    """
    if by == "flow":
        expect_flow(bundle)
    asked = check_conditions(conditions, bundle.vocabulary.separator)
    wanted = Wanted.of(bundle, asked)
    with seeded(seed, bundle.device), torch.no_grad():
        background = (
            kept_background(bundle) if controls is None else background_of(bundle, controls)
        )
        arithmetic = _arithmetic(bundle) if by == "arithmetic" else None
        if bundle.model.source == "control" or arithmetic is not None:
            expect_controls(background, asked, wanted.batch, wanted.cell_type)
        generator = _Generator(bundle, background, n_steps, method, arithmetic)
        # For all cells at once, so that each control serves about equally often.
        origins = generator.origins(wanted)
        library = generator.libraries(wanted, origins)
        parts, means = generator.carry(wanted, origins, library, progress, with_means)
    made = assembled(bundle.gene_names, asked, wanted.row.cpu(), parts, means)
    if background is not None and origins is not None:
        names = background.names[origins.cpu().numpy()]
        # Noise takes the nearest controls there are; cells are made of those of their strata alone.
        is_own = background.cells.batch[origins] == wanted.batch[wanted.row]
        is_own &= background.cells.cell_type[origins] == wanted.cell_type[wanted.row]
        made.cells.obs[CONTROL_CELL] = pd.Categorical(np.where(is_own.cpu().numpy(), names, None))
    return with_expectation(made, bundle, asked, wanted.p, generator.expectation)


def flow_shifts(
    bundle: Bundle, background: Background, wanted: Wanted, *, seed: int, n_steps: int
) -> np.ndarray:
    """Return how the flow alone shifts the mean log expression of controls, ``(n, G)``.

    Parameters
    ----------
    bundle
        A model with a mean response.
    background
        Encoded control cells of all their strata, with their counts.
    wanted
        Perturbed conditions; of how many cells does not matter.
    seed, n_steps
        As in :func:`predict_cells`.
    """
    with seeded(seed, bundle.device), torch.no_grad():
        generator = _Generator(bundle, background, n_steps, "euler", None)
        return flow_shift_of(bundle, background, *generator.carrier(wanted))


def carry_controls(
    bundle: Bundle,
    conditions: pd.DataFrame,
    background: Background,
    origins: torch.Tensor,
    *,
    seed: int,
    n_steps: int,
    method: str = "euler",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Carry given control cells to perturbations, each once, as the very cell that it is.

    Unlike :func:`predict_cells` it draws no cells, and a cell's total counts are not made those of
    the condition's training cells: of a few cells in one place the ranks say little. No
    perturbation leaves every count as it is, whatever the flow's source. Where that is noise, a
    cell's latent moves by the difference between where the same noise ends with the perturbation
    and without. The flow alone decides: a mean response is that of a whole stratum, and would be
    spread over the places where nothing happens.

    Parameters
    ----------
    bundle
        A trained model.
    conditions
        As in :func:`predict_cells`; ``n_cells`` says how many cells each row takes.
    background
        Encoded control cells with their counts.
    origins
        Which of them, condition after condition, ``(n_cells,)`` int64.
    seed, n_steps, method, progress
        As in :func:`predict_cells`.

    Returns
    -------
    Prediction
        One cell an origin, in their order. Instead of ``layers["mean"]`` they have
        ``layers["change"]``: how their log-normalised expression is expected to change.

    Raises
    ------
    UnknownLabelError
        If a label was not in the training; the known ones are listed.
    DataError
        If the model has no flow.
    """
    expect_flow(bundle)
    asked = check_conditions(conditions, bundle.vocabulary.separator)
    wanted = Wanted.of(bundle, asked)
    with seeded(seed, bundle.device), torch.no_grad():
        generator = _Generator(bundle, background, n_steps, method, None, is_paired=True)
        library = background.cells.library[origins]
        parts, changes = generator.carry(wanted, origins, library, progress)
    made = assembled(bundle.gene_names, asked, wanted.row.cpu(), parts, None)
    made.cells.layers["change"] = changes
    return with_expectation(made, bundle, asked, wanted.p, generator.expectation)


def expect_flow(bundle: Bundle) -> None:
    """Raise a ``DataError`` if the model's flow was never trained."""
    model = bundle.model
    # One that was trained by hand says nothing of that; its latents were standardised for it.
    is_made_by_hand = not bundle.settings and bool((model.latent_std != 1).any())
    if "flow" not in bundle.settings and not is_made_by_hand:
        raise DataError("this model has no trained flow; give the folder that train_flow has made")


def _arithmetic(bundle: Bundle) -> LatentArithmetic:
    if bundle.model.reference is None:
        raise DataError("this model keeps no training cells, which arithmetic takes its shifts of")
    return LatentArithmetic(bundle.model.reference)


@dataclass
class _Generator:
    bundle: Bundle
    background: Background | None
    n_steps: int
    method: str
    arithmetic: LatentArithmetic | None
    is_paired: bool = False  # a noise source moves given cells, too, instead of drawing new ones
    expectation: Expectation | None = None  # of the conditions that were asked for last

    def carry(
        self,
        wanted: Wanted,
        origins: torch.Tensor | None,
        library: torch.Tensor,
        progress: Callable[[int, int], None],
        with_means: bool = True,
    ) -> tuple[list[Part], np.ndarray | None]:
        """Return sampled counts and events, a chunk of cells at a time, and what is told of all.

        From given control cells, or from noise where they are None, and with given total counts.
        """
        self.expectation = self._expectation(wanted)
        parts, means = [], None
        if with_means:
            means = np.empty((len(wanted), len(self.bundle.gene_names)), dtype=np.float32)
        for start in range(0, len(wanted), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            row, start_from = wanted.row[chunk], None if origins is None else origins[chunk]
            events: list[NonFiniteVelocity] = []
            cells = self._carried(wanted.conditions(row), library[chunk], start_from, events)
            if self.expectation is not None:
                factors = self.expectation.log_factors[row]
                cells = replace(cells, after=scaled(cells.after, factors))
            if means is not None:
                torch.from_numpy(means[chunk]).copy_(self._told(cells))
            parts.append((_sampled(cells), events))
            progress(start + len(row), len(wanted))
        return parts, means

    def _told(self, cells: Virtual) -> torch.Tensor:
        """Return what is told of virtual cells beside their counts, ``(B, n_genes)``."""
        if cells.counts is None or cells.before is None:
            return cells.after
        if self.is_paired:
            return log_change(cells, self.bundle.median_library)
        return counterfactual_mean(cells.counts, cells.before, cells.after, cells.theta)

    def origins(self, wanted: Wanted) -> torch.Tensor | None:
        """Draw a control cell of its stratum for each cell."""
        if self.background is None:
            return None
        return wanted.drawn_from(self.background.cells, unperturbed=True)

    def _expectation(self, wanted: Wanted) -> Expectation | None:
        """Return what is expected of each condition, of whole strata: not of cells in a region."""
        if self.arithmetic is not None or self.is_paired:
            return None
        return expectation_of(self.bundle, self.background, *self.carrier(wanted))

    def carrier(self, wanted: Wanted) -> tuple[Asked, Carried]:
        """Return the conditions, and what makes virtual cells of their rows."""

        def carried(rows: torch.Tensor, controls: torch.Tensor | None) -> Virtual:
            rows = rows.to(self.bundle.device)
            library = torch.full_like(rows, self.bundle.median_library, dtype=torch.float32)
            if controls is not None and self.background is not None:
                library = self.background.cells.library[controls]
            # As deep as the cells will be: a measured shift holds the depth of its cells already.
            library = self._as_trained(wanted, rows, library)
            # What is not finite is told of when the cells themselves are carried.
            return self._carried(wanted.conditions(rows), library, controls, [])

        return Asked(wanted.p, wanted.batch, wanted.cell_type), carried

    def _carried(
        self,
        conditions: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        library: torch.Tensor,
        origins: torch.Tensor | None,
        events: list[NonFiniteVelocity],
    ) -> Virtual:
        """Carry some cells, and decode them before and after."""
        model = self.bundle.model
        z_0, spatial, counts = None, None, None
        z_tech = draw(*model.encoder.tech_prior(conditions[1]))
        if self.background is not None and origins is not None:
            drawn = self.background.cells.select(origins)
            of_controls = drawn.tech_mean + drawn.tech_std * torch.randn_like(drawn.tech_mean)
            # The technical latent carries the batch: that of another one's controls would not do.
            is_own = (drawn.batch == conditions[1]) & (drawn.cell_type == conditions[2])
            z_tech = torch.where(is_own[:, None], of_controls, z_tech)
            spatial = drawn.place
            if model.source == "control" or self.arithmetic is not None or self.is_paired:
                z_0 = drawn.int_mean + drawn.int_std * torch.randn_like(drawn.int_mean)
                counts = self.background.dense_counts(origins)
        if self.arithmetic is not None and z_0 is not None:
            z_1 = self.arithmetic.moved(z_0, *conditions)
        elif model.source == "noise" and z_0 is not None:
            z_1 = z_0 + self._shift_of_noise(torch.randn_like(z_0), conditions, spatial, events)
        else:
            z_1 = model.sample_z1_from_flow(
                *conditions, spatial, self.n_steps, z_0=z_0, method=self.method, events=events
            )
        after, theta = model.decoder.means(z_1, z_tech, library), model.decoder.theta
        if counts is None or z_0 is None:
            return Virtual(None, None, after, theta)
        before = model.decoder.means(z_0, z_tech, counts.sum(1))
        # Nothing moves what is not perturbed, however two products of the same numbers are rounded.
        after = torch.where(is_control(conditions[0])[:, None], before, after)
        return Virtual(counts, before, after, theta)

    def _shift_of_noise(
        self,
        noise: torch.Tensor,
        conditions: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        spatial: torch.Tensor | None,
        events: list[NonFiniteVelocity],
    ) -> torch.Tensor:
        """Return how far apart the same noise ends with the perturbation and without."""
        p, batch, cell_type = conditions
        with_it, without = (
            self.bundle.model.sample_z1_from_flow(
                vector,
                batch,
                cell_type,
                spatial,
                self.n_steps,
                z_0=noise,
                method=self.method,
                events=events,
            )
            for vector in (p, torch.zeros_like(p))
        )
        return with_it - without

    def libraries(self, wanted: Wanted, origins: torch.Tensor | None) -> torch.Tensor:
        """Return total counts: of the condition's training cells, or else of the control cell.

        A control cell keeps its rank among the others, so that a deep one stays deep.
        """
        pool = self.bundle.model.reference
        if origins is None or self.background is None:
            assert pool is not None
            return pool.library[wanted.drawn_from(pool)]
        return self._as_trained(wanted, wanted.row, self.background.cells.library[origins])

    def _as_trained(
        self, wanted: Wanted, rows: torch.Tensor, library: torch.Tensor
    ) -> torch.Tensor:
        """Return total counts with the quantiles of training cells, where a condition has some.

        Parameters
        ----------
        wanted
            The conditions.
        rows
            Row of each cell's condition, ``(n,)`` int64.
        library
            Total counts of the cells, ``(n,)``; their order within a condition stays.
        """
        pool, library = self.bundle.model.reference, library.clone()
        if pool is None:
            return library
        for row in rows.unique().tolist():
            where = int(wanted.batch[row]), int(wanted.cell_type[row])
            trained = pool.of_condition(wanted.p[row], *where)
            if trained.any() and wanted.p[row].any():
                mine = (rows == row).nonzero().reshape(-1)
                ranks = (library[mine].argsort().argsort() + 0.5) / len(mine)
                library[mine] = torch.quantile(pool.library[trained], ranks)
        return library


def _sampled(cells: Virtual) -> csr_matrix:
    """Return counts of virtual cells."""
    if cells.counts is None or cells.before is None:
        return sparse_counts(nb_sample(cells.after, cells.theta).cpu().numpy())
    known = (cells.counts, cells.before, cells.after, cells.theta)
    return sparse_counts(counterfactual_sample(*known).cpu().numpy())
