"""Virtual cells of the conditions asked for."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from pydantic import Field
from scipy.sparse import csr_matrix, vstack

from cfmvc.config import Section
from cfmvc.data.dataset import CellTable
from cfmvc.errors import DataError, listed
from cfmvc.flow.solvers import NonFiniteVelocity
from cfmvc.models.bundle import Bundle
from cfmvc.models.encoder import draw
from cfmvc.models.likelihoods import nb_sample
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.compute import seeded
from cfmvc.stages.flow import encode_table

_CHUNK = 4096  # cells generated at a time
_REQUIRED = ("perturbation", "batch", "cell_type", "n_cells")


class GenerateConfig(Section):
    """How virtual cells are generated."""

    n_cells: int = Field(ge=1, description="virtual cells of each held-out condition")
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
    events: list[dict[str, object]] = field(default_factory=list)


def check_conditions(conditions: pd.DataFrame) -> pd.DataFrame:
    """Return the table of conditions with clean types, or name every fault in it.

    Raises
    ------
    DataError
        If columns are missing, labels are empty, or numbers of cells are not positive integers.
    """
    missing = [name for name in _REQUIRED if name not in conditions]
    if missing:
        raise DataError(
            f"conditions: no column {listed(missing)}; needed: {listed(_REQUIRED)}, optional 'dose'"
        )
    if conditions.empty:
        raise DataError("conditions: no rows; one row is one condition")
    clean = conditions.reset_index(drop=True).copy()
    faults = []
    for name in _REQUIRED[:3]:
        empty = clean[name].isna() | (clean[name].astype(str).str.strip() == "")
        if empty.any():
            faults.append(f"{name}: empty in row {int(np.flatnonzero(empty)[0]) + 1}")
        clean[name] = clean[name].astype(str).str.strip()
    counts = pd.to_numeric(clean["n_cells"], errors="coerce")
    bad = ~((counts >= 1) & (counts == np.floor(counts)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        faults.append(
            f"n_cells: must be a positive integer (row {row + 1}: {clean['n_cells'][row]})"
        )
    if "dose" in clean:
        clean["dose"], bad = _doses(clean["dose"])
        faults += [f"dose: not a number (row {row + 1})" for row in bad]
    if faults:
        raise DataError("\n".join(f"conditions: {fault}" for fault in faults))
    clean["n_cells"] = counts.astype(int)
    return clean


def _doses(column: pd.Series) -> tuple[pd.Series, list[int]]:
    """Return doses as numbers, NaN where the field is empty; and the rows of other text."""
    text = column.astype(str).str.strip()
    doses = pd.to_numeric(text, errors="coerce")
    is_empty = column.isna() | text.str.lower().isin(["", "nan"])
    return doses, np.flatnonzero(doses.isna() & ~is_empty).tolist()


def predict_cells(
    bundle: Bundle,
    conditions: pd.DataFrame,
    controls: AnnData | None = None,
    *,
    seed: int,
    n_steps: int,
    method: str = "euler",
) -> Prediction:
    """Generate virtual cells; the same seed gives the same cells.

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

    Raises
    ------
    UnknownLabelError
        If a label was not in the training; the known ones are listed.
    DataError
        If genes differ, or a stratum has no controls to start from.
    """
    if "flow" not in bundle.settings:
        raise DataError("this model has no trained flow; give the folder that train_flow has made")
    asked = check_conditions(conditions)
    vocabulary, device = bundle.vocabulary, bundle.device
    doses = asked["dose"].to_numpy(float) if "dose" in asked else None
    p = torch.from_numpy(vocabulary.perturbation_matrix(asked["perturbation"].to_numpy(), doses))
    batch = torch.from_numpy(vocabulary.batch_codes(asked["batch"].to_numpy()))
    cell_type = torch.from_numpy(vocabulary.cell_type_codes(asked["cell_type"].to_numpy()))
    with seeded(seed, device), torch.no_grad():
        background = _controls(bundle, controls)
        if bundle.model.source == "control":
            _expect_controls(asked, batch, cell_type, background)
        repeats = torch.from_numpy(asked["n_cells"].to_numpy())
        rows = torch.repeat_interleave(torch.arange(len(asked)), repeats)
        generator = _Generator(bundle, background, n_steps, method)
        parts = [
            generator.generate(
                p[chunk].to(device), batch[chunk].to(device), cell_type[chunk].to(device)
            )
            for chunk in rows.split(_CHUNK)
        ]
    labels = _labels(asked)
    events = [
        {**event, "condition": labels[int(rows[_CHUNK * chunk + cell])]}
        for chunk, (_, _, seen) in enumerate(parts)
        for cell, event in _by_condition(seen, rows[_CHUNK * chunk :])
    ]
    return Prediction(_assemble(bundle, asked, rows.numpy(), parts), events)


@dataclass
class _Generator:
    bundle: Bundle
    background: ReferenceCells | None
    n_steps: int
    method: str

    def generate(
        self, p: torch.Tensor, batch: torch.Tensor, cell_type: torch.Tensor
    ) -> tuple[csr_matrix, np.ndarray, list[NonFiniteVelocity]]:
        """Return sampled counts, their expectation, and the events of the integration."""
        model, events = self.bundle.model, list[NonFiniteVelocity]()
        z_0, spatial = None, None
        z_tech = draw(*model.encoder.tech_prior(batch))
        library = self._libraries(p, batch, cell_type)
        if self.background is not None:
            drawn = self.background.select(
                self.background.nearest(torch.zeros_like(p), batch, cell_type)
            )
            z_tech = drawn.tech_mean + drawn.tech_std * torch.randn_like(drawn.tech_mean)
            spatial = drawn.spatial
            if model.source == "control":
                z_0 = drawn.int_mean + drawn.int_std * torch.randn_like(drawn.int_mean)
        z_1 = model.sample_z1_from_flow(
            p, batch, cell_type, spatial, self.n_steps, z_0=z_0, method=self.method, events=events
        )
        mean, theta = model.decoder(z_1, z_tech, library)
        counts = nb_sample(mean, theta).cpu().numpy().astype(np.int32)
        return csr_matrix(counts), mean.cpu().numpy(), events

    def _libraries(
        self, p: torch.Tensor, batch: torch.Tensor, cell_type: torch.Tensor
    ) -> torch.Tensor:
        """Draw from training cells of the condition, or else from the stratum's controls."""
        pool = self.bundle.model.reference
        if pool is None:
            assert self.background is not None
            pool = self.background
        return pool.library[pool.nearest(p, batch, cell_type)]


def _controls(bundle: Bundle, controls: AnnData | None) -> ReferenceCells | None:
    if controls is None:
        reference = bundle.model.reference
        return None if reference is None else reference.select(reference.is_control)
    genes = [str(name) for name in controls.var_names]
    missing = set(bundle.gene_names) - set(genes)
    if missing:
        raise DataError(
            f"controls: {len(missing)} of the model's {len(bundle.gene_names)} genes are missing: "
            f"{listed(sorted(missing), 5)}"
        )
    is_control = bundle.vocabulary.is_control(controls.obs["perturbation"])
    if not is_control.any():
        raise DataError(
            f"controls: no cell with perturbation '{bundle.vocabulary.control}'; "
            f"labels: {listed(controls.obs['perturbation'].astype(str).unique())}"
        )
    known = controls.obs["batch"].astype(str).isin(bundle.vocabulary.batches).to_numpy()
    known &= controls.obs["cell_type"].astype(str).isin(bundle.vocabulary.cell_types).to_numpy()
    if genes != bundle.gene_names:
        controls = controls[:, bundle.gene_names]
    usable = controls[is_control & known]
    if usable.n_obs == 0:
        raise DataError(
            "controls: no control cell of a batch and cell type that the model knows; "
            f"batches: {listed(bundle.vocabulary.batches)}; "
            f"cell types: {listed(bundle.vocabulary.cell_types)}"
        )
    table = CellTable.from_adata(usable, bundle.vocabulary)
    return encode_table(bundle.model, table, bundle.device)


def _expect_controls(
    asked: pd.DataFrame,
    batch: torch.Tensor,
    cell_type: torch.Tensor,
    background: ReferenceCells | None,
) -> None:
    """Raise unless there are controls of every stratum that a flow shall start from."""
    strata = set()
    if background is not None:
        strata = set(zip(background.batch.tolist(), background.cell_type.tolist(), strict=True))
    wanted = zip(batch.tolist(), cell_type.tolist(), strict=True)
    rows = [row for row, stratum in enumerate(wanted) if stratum not in strata]
    if rows:
        names = [f"{asked['batch'][row]} | {asked['cell_type'][row]}" for row in rows]
        raise DataError(
            f"controls: no control cell of {listed(dict.fromkeys(names))} (batch | cell type), "
            f"needed by {len(rows)} of {len(asked)} conditions"
        )


def _assemble(
    bundle: Bundle,
    asked: pd.DataFrame,
    rows: np.ndarray,
    parts: list[tuple[csr_matrix, np.ndarray, list[NonFiniteVelocity]]],
) -> AnnData:
    obs = asked.drop(columns="n_cells").iloc[rows].reset_index(drop=True)
    obs.index = pd.Index([f"virtual-{number}" for number in range(len(obs))], dtype=object)
    for name in _REQUIRED[:3]:
        obs[name] = obs[name].astype("category")
    cells = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(bundle.gene_names, dtype=object)))
    cells.layers["counts"] = vstack([counts for counts, _, _ in parts], format="csr")
    cells.layers["mean"] = np.concatenate([mean for _, mean, _ in parts])
    return cells


def _labels(asked: pd.DataFrame) -> list[str]:
    columns = [name for name in ("perturbation", "dose", "batch", "cell_type") if name in asked]
    return asked[columns].astype(str).agg(" | ".join, axis=1).tolist()


def _by_condition(
    seen: list[NonFiniteVelocity], rows: torch.Tensor
) -> list[tuple[int, dict[str, object]]]:
    """Return one entry a step and condition: a cell of it, and the event's figures."""
    entries = []
    for event in seen:
        conditions = rows[torch.tensor(event.cells)]
        for condition in conditions.unique():
            members = (conditions == condition).nonzero().reshape(-1)
            first = event.cells[int(members[0])]
            entries.append(
                (
                    first,
                    {
                        "place": "velocity",
                        "step": event.step,
                        "t": event.t,
                        "n_cells": len(members),
                        "action": "velocity replaced by 0",
                    },
                )
            )
    return entries
