"""Virtual cells of the conditions asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from pydantic import Field
from scipy.sparse import csr_matrix, vstack

from cfmvc.config import Section
from cfmvc.errors import DataError
from cfmvc.flow.solvers import NonFiniteVelocity
from cfmvc.models.bundle import Bundle
from cfmvc.models.calibration import Virtual, scaled
from cfmvc.models.counterfactual import counterfactual_mean, counterfactual_sample
from cfmvc.models.encoder import draw
from cfmvc.models.likelihoods import nb_sample
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.arithmetic import LatentArithmetic
from cfmvc.stages.background import (
    Background,
    background_of,
    expect_controls,
    kept_background,
)
from cfmvc.stages.compute import seeded
from cfmvc.stages.conditions import LABELS, check_conditions, labels_of
from cfmvc.stages.expectation import Asked, factors_of_conditions

_CHUNK = 4096  # cells generated at a time
_ROWS = 256  # cells made sparse at a time


class GenerateConfig(Section):
    """How virtual cells are generated."""

    n_cells: int = Field(
        ge=1, description="virtual cells of each held-out condition, at least (whole rounds)"
    )
    n_steps: int = Field(ge=1, description="steps of the integration")
    method: str = Field(description="euler, midpoint, rk4 (fixed steps) or dopri5 (adaptive)")
    seed: int


@dataclass
class Prediction:
    """Generated cells, and what happened on the way.

    Parameters
    ----------
    cells
        ``layers["counts"]`` (sampled, int32 CSR), ``layers["mean"]`` (expectation, float32),
        ``obs`` as asked, one row a cell.
    events
        Non-finite velocities, with the condition's label.
    """

    cells: AnnData
    events: list[dict[str, Any]] = field(default_factory=list)


def predict_cells(
    bundle: Bundle,
    conditions: pd.DataFrame,
    controls: AnnData | None = None,
    *,
    seed: int,
    n_steps: int,
    method: str = "euler",
    by: Literal["flow", "arithmetic"] = "flow",
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
    progress
        Told the number of cells done, and of all.

    Raises
    ------
    UnknownLabelError
        If a label was not in the training; the known ones are listed.
    DataError
        If genes differ, or a stratum has no controls to start from.
    """
    if by == "flow" and "flow" not in bundle.settings:
        raise DataError("this model has no trained flow; give the folder that train_flow has made")
    asked = check_conditions(conditions)
    vocabulary, device = bundle.vocabulary, bundle.device
    doses = asked["dose"].to_numpy(float) if "dose" in asked else None
    p = torch.from_numpy(vocabulary.perturbation_matrix(asked["perturbation"].to_numpy(), doses))
    batch = torch.from_numpy(vocabulary.batch_codes(asked["batch"].to_numpy()))
    cell_type = torch.from_numpy(vocabulary.cell_type_codes(asked["cell_type"].to_numpy()))
    with seeded(seed, device), torch.no_grad():
        background = (
            kept_background(bundle) if controls is None else background_of(bundle, controls)
        )
        arithmetic = _arithmetic(bundle) if by == "arithmetic" else None
        if bundle.model.source == "control" or arithmetic is not None:
            expect_controls(background, asked, batch, cell_type)
        wanted = _Wanted(p.to(device), batch.to(device), cell_type.to(device), asked["n_cells"])
        generator = _Generator(bundle, background, n_steps, method, arithmetic)
        parts, means = generator.generate(wanted, progress)
    labels = labels_of(asked)
    events = [
        {**event, "condition": labels[row]}
        for chunk, (_, seen) in enumerate(parts)
        for row, event in _by_condition(seen, wanted.row[_CHUNK * chunk :].cpu())
    ]
    counts = vstack([counts for counts, _ in parts], format="csr")
    return Prediction(_assemble(bundle, asked, wanted.row.cpu().numpy(), counts, means), events)


def _arithmetic(bundle: Bundle) -> LatentArithmetic:
    if bundle.model.reference is None:
        raise DataError("this model keeps no training cells, which arithmetic takes its shifts of")
    return LatentArithmetic(bundle.model.reference)


Part = tuple[csr_matrix, list[NonFiniteVelocity]]


class _Wanted:
    """The conditions asked for, and which of them each cell is of.

    Conditions are rows of a table, because thousands of cells times thousands of perturbations
    would not fit.
    """

    def __init__(
        self,
        p: torch.Tensor,
        batch: torch.Tensor,
        cell_type: torch.Tensor,
        n_cells: pd.Series,
    ) -> None:
        self.p, self.batch, self.cell_type = p, batch, cell_type
        self.n_cells = n_cells.tolist()
        rows = np.repeat(np.arange(len(p)), n_cells.to_numpy())
        self.row = torch.from_numpy(rows).to(p.device)

    def __len__(self) -> int:
        return len(self.row)

    def conditions(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return vectors, batches and cell types of some rows of the table."""
        return self.p[rows], self.batch[rows], self.cell_type[rows]

    def drawn_from(self, pool: ReferenceCells, unperturbed: bool = False) -> torch.Tensor:
        """Draw a cell of ``pool`` for each cell: of its condition, or a control of its stratum."""
        p = torch.zeros_like(self.p) if unperturbed else self.p
        strata = zip(self.batch.tolist(), self.cell_type.tolist(), self.n_cells, strict=True)
        return torch.cat(
            [pool.drawn(p[row], *stratum_and_n) for row, stratum_and_n in enumerate(strata)]
        )


@dataclass
class _Generator:
    bundle: Bundle
    background: Background | None
    n_steps: int
    method: str
    arithmetic: LatentArithmetic | None

    def generate(
        self, wanted: _Wanted, progress: Callable[[int, int], None]
    ) -> tuple[list[Part], np.ndarray]:
        """Return sampled counts and events, a chunk of cells at a time, and all expectations."""
        # For all cells at once, so that each control serves about equally often.
        origins = self._origins(wanted)
        library = self._libraries(wanted, origins)
        factors = self._factors(wanted)
        parts = []
        means = np.empty((len(wanted), len(self.bundle.gene_names)), dtype=np.float32)
        for start in range(0, len(wanted), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            row, start_from = wanted.row[chunk], None if origins is None else origins[chunk]
            events: list[NonFiniteVelocity] = []
            cells = self._carried(wanted.conditions(row), library[chunk], start_from, events)
            if factors is not None:
                cells = replace(cells, after=scaled(cells.after, factors[row]))
            parts.append((_sampled(cells, torch.from_numpy(means[chunk])), events))
            progress(start + len(row), len(wanted))
        return parts, means

    def _origins(self, wanted: _Wanted) -> torch.Tensor | None:
        """Draw a control cell of its stratum for each cell."""
        if self.background is None:
            return None
        return wanted.drawn_from(self.background.cells, unperturbed=True)

    def _factors(self, wanted: _Wanted) -> torch.Tensor | None:
        """Return the logarithms of the factors that bring each condition to its mean response."""
        if self.arithmetic is not None:
            return None

        def carried(rows: torch.Tensor, controls: torch.Tensor | None) -> Virtual:
            library = torch.full_like(rows, self.bundle.median_library, dtype=torch.float32)
            if controls is not None and self.background is not None:
                library = self.background.cells.library[controls]
            # What is not finite is told of when the cells themselves are carried.
            return self._carried(wanted.conditions(rows), library, controls, [])

        asked = Asked(wanted.p, wanted.batch, wanted.cell_type)
        return factors_of_conditions(self.bundle, self.background, asked, carried)

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
            z_tech = drawn.tech_mean + drawn.tech_std * torch.randn_like(drawn.tech_mean)
            spatial = drawn.spatial
            if model.source == "control" or self.arithmetic is not None:
                z_0 = drawn.int_mean + drawn.int_std * torch.randn_like(drawn.int_mean)
                counts = self.background.dense_counts(origins)
        if self.arithmetic is not None and z_0 is not None:
            z_1 = self.arithmetic.moved(z_0, *conditions)
        else:
            z_1 = model.sample_z1_from_flow(
                *conditions, spatial, self.n_steps, z_0=z_0, method=self.method, events=events
            )
        after, theta = model.decoder.means(z_1, z_tech, library), model.decoder.theta
        if counts is None or z_0 is None:
            return Virtual(None, None, after, theta)
        return Virtual(counts, model.decoder.means(z_0, z_tech, counts.sum(1)), after, theta)

    def _libraries(self, wanted: _Wanted, origins: torch.Tensor | None) -> torch.Tensor:
        """Return total counts: of the condition's training cells, or else of the control cell.

        A control cell keeps its rank among the others, so that a deep one stays deep.
        """
        pool = self.bundle.model.reference
        if origins is None or self.background is None:
            assert pool is not None
            return pool.library[wanted.drawn_from(pool)]
        library = self.background.cells.library[origins]
        if pool is None:
            return library
        strata = zip(wanted.batch.tolist(), wanted.cell_type.tolist(), strict=True)
        for row, (batch, cell_type) in enumerate(strata):
            trained = pool.of_condition(wanted.p[row], batch, cell_type)
            if trained.any() and wanted.p[row].any():
                mine = (wanted.row == row).nonzero().reshape(-1)
                ranks = (library[mine].argsort().argsort() + 0.5) / len(mine)
                library[mine] = torch.quantile(pool.library[trained], ranks)
        return library


def _sampled(cells: Virtual, expected: torch.Tensor) -> csr_matrix:
    """Return counts of virtual cells; write their expectation, on the host."""
    if cells.counts is None or cells.before is None:
        expected.copy_(cells.after)
        return _sparse(nb_sample(cells.after, cells.theta).cpu().numpy())
    known = (cells.counts, cells.before, cells.after, cells.theta)
    expected.copy_(counterfactual_mean(*known))
    return _sparse(counterfactual_sample(*known).cpu().numpy())


def _sparse(counts: np.ndarray) -> csr_matrix:
    """Return counts as int32; SciPy's own way by coordinates takes several times as long."""
    sizes, values, genes = [np.zeros(1, np.int64)], [], []
    for start in range(0, len(counts), _ROWS):
        some = counts[start : start + _ROWS]
        is_there = some != 0
        at, n = np.flatnonzero(is_there), np.count_nonzero(is_there, axis=1)
        first = np.repeat(np.arange(len(some)) * some.shape[1], n)
        sizes.append(n)
        values.append(some.reshape(-1)[at].astype(np.int32))
        genes.append((at - first).astype(np.int32))
    bounds = np.concatenate(sizes).cumsum()
    return csr_matrix((np.concatenate(values), np.concatenate(genes), bounds), shape=counts.shape)


def _assemble(
    bundle: Bundle, asked: pd.DataFrame, rows: np.ndarray, counts: csr_matrix, means: np.ndarray
) -> AnnData:
    obs = asked.drop(columns="n_cells").iloc[rows].reset_index(drop=True)
    obs.index = pd.Index([f"virtual-{number}" for number in range(len(obs))], dtype=object)
    for name in LABELS:
        obs[name] = obs[name].astype("category")
    cells = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(bundle.gene_names, dtype=object)))
    cells.layers["counts"], cells.layers["mean"] = counts, means
    return cells


def _by_condition(
    seen: list[NonFiniteVelocity], row: torch.Tensor
) -> list[tuple[int, dict[str, Any]]]:
    """Return one entry a step and condition: the condition's row, and the event's figures."""
    entries = []
    for event in seen:
        rows, n_cells = row[torch.tensor(event.cells)].unique(return_counts=True)
        for condition, n in zip(rows.tolist(), n_cells.tolist(), strict=True):
            figures = {
                "place": "velocity",
                "step": event.step,
                "t": event.t,
                "n_cells": n,
                "action": "velocity replaced by 0",
            }
            entries.append((condition, figures))
    return entries
