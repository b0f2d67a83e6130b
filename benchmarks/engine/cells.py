"""The simulated cells of all benchmarks, and the sections of ``params.yaml``."""

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from anndata import AnnData

from cfmvc.config import Section, default_params_file, override, parse_section, read_yaml
from cfmvc.data import CellTable, SingleCellDataset, Vocabulary
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.models import CFMVCModel
from cfmvc.stages import TrainingCells
from cfmvc.training.config import FlowConfig, VaeConfig

CPU = torch.device("cpu")
CELLS_PER_STEP = 64
SHORT_CELLS = 16 * CELLS_PER_STEP  # of a short try
_VAL_SHARE = 0.1

SectionT = TypeVar("SectionT", bound=Section)


def section(name: str, kind: type[SectionT], **changed: Any) -> SectionT:
    """Read a section of ``params.yaml`` with some values changed."""
    params = override(
        read_yaml(default_params_file()), [f"{name}.{key}={v}" for key, v in changed.items()]
    )
    return parse_section(kind, params[name], name)


def training_section(name: str, kind: type[SectionT], n_epochs: int, **changed: Any) -> SectionT:
    """Return a stage's section with 64 cells a step, and no validation before the end."""
    return section(
        name,
        kind,
        n_epochs=n_epochs,
        cells_per_step=CELLS_PER_STEP,
        validate_every=n_epochs,
        patience=n_epochs,
        **changed,
    )


def vae_config(n_epochs: int) -> VaeConfig:
    """Return the section of stage 1."""
    return training_section("vae", VaeConfig, n_epochs)


def flow_config(n_epochs: int, **changed: Any) -> FlowConfig:
    """Return the section of stage 2."""
    return training_section("flow", FlowConfig, n_epochs, **changed)


@dataclass(frozen=True)
class BenchCells:
    """The same cells in the forms that both sides take."""

    training: TrainingCells
    train: SingleCellDataset
    val: SingleCellDataset
    train_adata: AnnData
    val_adata: AnnData

    @property
    def density(self) -> float:
        """Share of counts that are not zero."""
        counts = self.train_adata.layers["counts"]
        return float(counts.nnz / np.prod(counts.shape))

    @property
    def n_steps(self) -> int:
        """Optimiser steps an epoch, of 64 cells each."""
        return -(-len(self.train) // CELLS_PER_STEP)

    def few(self, n_cells: int) -> "BenchCells":
        """Return the first cells, for a short try."""
        return _prepared(
            self.train_adata[:n_cells].copy(),
            self.val_adata[:CELLS_PER_STEP].copy(),
            self.training.vocabulary,
        )

    def describe(self) -> str:
        """Return sizes in words."""
        return (
            f"{len(self.train):,} training and {len(self.val):,} validation cells x "
            f"{self.train.n_genes:,} genes, {self.density:.0%} non-zero"
        )


@cache
def bench_cells(n_cells: int = 10_000, n_genes: int = 2_000) -> BenchCells:
    """Simulate cells as ``params.yaml`` says, of the size asked for; a tenth validates."""
    cells, _ = simulate(section("simulate", SimulateConfig, n_cells=n_cells, n_genes=n_genes))
    order = np.random.default_rng(0).permutation(n_cells)
    n_val = int(n_cells * _VAL_SHARE)
    val, train = (cells[np.sort(rows)].copy() for rows in (order[:n_val], order[n_val:]))
    obs = cells.obs
    vocabulary = Vocabulary.of(obs["perturbation"], obs["batch"], obs["cell_type"], "control", "+")
    return _prepared(train, val, vocabulary)


def _prepared(train: AnnData, val: AnnData, vocabulary: Vocabulary) -> BenchCells:
    tables = [CellTable.from_adata(part, vocabulary) for part in (train, val)]
    genes = [str(name) for name in train.var_names]
    return BenchCells(
        TrainingCells(tables[0], tables[1], vocabulary, genes),
        SingleCellDataset(train, vocabulary=vocabulary),
        SingleCellDataset(val, vocabulary=vocabulary),
        train,
        val,
    )


def new_model(cells: BenchCells, vae: VaeConfig, flow: FlowConfig) -> CFMVCModel:
    """Return an untrained model of the sizes that the configuration asks for.

    It starts from the data's mean profile, as the engine's own does.
    """
    torch.manual_seed(vae.seed)
    model = CFMVCModel(
        cells.train.n_genes,
        cells.train.n_batch,
        cells.train.n_ct,
        cells.train.n_perts,
        vae.dim_int,
        vae.dim_tech,
        vae.hidden_dim,
        flow.hidden_ctx,
        flow.hidden_dim,
        flow.n_basis,
        source=flow.source,
        dropout_vae=vae.dropout,
        dropout_flow=flow.dropout,
        label_dropout=flow.label_dropout,
    )
    counts = cells.train_adata.layers["counts"]
    mean_counts = torch.from_numpy(np.asarray(counts.mean(axis=0)).reshape(-1)).float()
    model.decoder.calibrate(mean_counts, float(np.median(np.asarray(counts.sum(axis=1)))))
    return model
