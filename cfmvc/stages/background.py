"""Control cells to generate from: real ones with their counts, or those that a model keeps."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.dataset import CellTable
from cfmvc.errors import DataError, listed
from cfmvc.models.bundle import Bundle
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.place import places_of


@dataclass(frozen=True)
class Background:
    """Encoded control cells.

    Parameters
    ----------
    cells
        The control cells.
    counts
        Their counts, ``(n_cells, n_genes)`` CSR; None where the model alone is at hand, which keeps
        latents and library sizes but no counts.
    names
        Of the cells, ``(n_cells,)``.
    """

    cells: ReferenceCells
    counts: csr_matrix | None
    names: np.ndarray

    def dense_counts(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Return the counts of some cells, ``(B, n_genes)`` float32, or None."""
        if self.counts is None:
            return None
        some = self.counts[rows.cpu().numpy()].toarray().astype(np.float32)
        return torch.from_numpy(some).to(rows.device)


def expect_controls(
    background: Background | None,
    asked: pd.DataFrame,
    batch: torch.Tensor,
    cell_type: torch.Tensor,
) -> None:
    """Raise unless there are controls in every stratum asked for.

    Raises
    ------
    DataError
        Naming the strata without controls.
    """
    strata = set()
    if background is not None:
        cells = background.cells
        strata = set(zip(cells.batch.tolist(), cells.cell_type.tolist(), strict=True))
    wanted = zip(batch.tolist(), cell_type.tolist(), strict=True)
    rows = [row for row, stratum in enumerate(wanted) if stratum not in strata]
    if rows:
        names = [f"{asked['batch'][row]} | {asked['cell_type'][row]}" for row in rows]
        raise DataError(
            f"controls: no control cell of {listed(dict.fromkeys(names))} (batch | cell type), "
            f"needed by {len(rows)} of {len(asked)} conditions; give a file that has some "
            "(--controls), or ask for other strata"
        )


def kept_background(bundle: Bundle) -> Background | None:
    """Return the controls that a model keeps of its training; None where it keeps none."""
    reference = bundle.model.reference
    if reference is None:
        return None
    rows = reference.is_control.nonzero().reshape(-1)
    if not len(rows):
        return None
    names = np.asarray([f"kept-{row}" for row in rows.tolist()], dtype=object)
    return Background(reference.select(rows), None, names)


def background_of(bundle: Bundle, controls: AnnData, tissue: AnnData | None = None) -> Background:
    """Encode the control cells of canonical cells, of the batches and cell types that are known.

    Parameters
    ----------
    bundle
        A trained model.
    controls
        Canonical cells, controls among them.
    tissue
        Canonical cells among which neighbours are looked for, where the model asks for them;
        ``controls`` if not given.

    Raises
    ------
    DataError
        If genes are missing, or no usable control is left.
    """
    usable = _usable_controls(bundle, controls)
    if bundle.model.context.place is not None and "spatial" in usable.obsm:
        places_of(bundle, usable)  # as many coordinates as the training had
    table, names = CellTable.from_adata(usable, bundle.vocabulary), usable.obs_names.to_numpy()
    around = None
    if tissue is not None and bundle.model.n_neighbours:
        around = background_of(bundle, tissue).cells
    cells = encode_table(bundle.model, table, bundle.device, around)
    return Background(cells, table.counts, names)


def _usable_controls(bundle: Bundle, controls: AnnData) -> AnnData:
    vocabulary = bundle.vocabulary
    genes = [str(name) for name in controls.var_names]
    missing = set(bundle.gene_names) - set(genes)
    if missing:
        raise DataError(
            f"controls: {len(missing)} of the model's {len(bundle.gene_names)} genes are missing: "
            f"{listed(sorted(missing), 5)}"
        )
    is_control = vocabulary.is_control(controls.obs["perturbation"])
    if not is_control.any():
        raise DataError(
            f"controls: no cell with perturbation '{vocabulary.control}'; "
            f"labels: {listed(controls.obs['perturbation'].astype(str).unique())}"
        )
    known = controls.obs["batch"].astype(str).isin(vocabulary.batches).to_numpy()
    known &= controls.obs["cell_type"].astype(str).isin(vocabulary.cell_types).to_numpy()
    if genes != bundle.gene_names:
        controls = controls[:, bundle.gene_names]
    usable = controls[is_control & known]
    if usable.n_obs == 0:
        raise DataError(
            "controls: no control cell of a batch and cell type that the model knows; "
            f"batches: {listed(vocabulary.batches)}; "
            f"cell types: {listed(vocabulary.cell_types)}"
        )
    return usable
