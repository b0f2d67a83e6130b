"""A perturbation in a region of a tissue: its control cells, each as it would be there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from cfmvc.data.reading import canonical_rows, to_csr
from cfmvc.data.regions import Annotation, parse_region
from cfmvc.errors import DataError, listed
from cfmvc.models.bundle import Bundle
from cfmvc.stages.background import background_of
from cfmvc.stages.beyond import beyond_training, sentences, unlike_embeddings, without_dose
from cfmvc.stages.changed_cells import label_changed, with_changes
from cfmvc.stages.place import extent_of, note_on_batches, notes_on_place, of_batches, places_of
from cfmvc.stages.predict import carry_controls, expect_flow
from cfmvc.stages.prediction import Prediction


@dataclass
class RegionChange:
    """A tissue with a perturbation in a region of it.

    Parameters
    ----------
    cells
        All cells in their order, with

        ``layers["counts"]``
            float32 CSR; those of changed cells as they would be, all others to the bit as given.
        ``layers["change"]``
            Expected change of each gene in ``log1p`` of counts scaled to the model's median library
            (:func:`~cfmvc.models.calibration.log_change`), float32 CSR; stored for changed cells
            alone.
        ``obs``
            ``in_region`` (bool); ``change`` (float32), the Euclidean length of a cell's change, 0
            where it is not changed; changed cells carry the label (and dose) of the perturbation.
        ``var``
            ``is_predicted``: whether the model knows the gene; ``mean_change``, of changed cells.
        ``uns["perturb_region"]``
            What was asked.
    is_changed
        Which cells were carried, ``(n_cells,)``.
    genes
        The genes that the model knows, the one that changes most on average first.
    notes
        What a reader of the prediction should know.
    events
        Non-finite velocities, as in :class:`~cfmvc.stages.prediction.Prediction`.
    """

    cells: AnnData
    is_changed: np.ndarray
    genes: list[str]
    notes: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


def perturb_region(
    bundle: Bundle,
    cells: AnnData,
    perturbation: str,
    region: str,
    *,
    dose: float | None = None,
    batches: Sequence[str] | None = None,
    seed: int,
    n_steps: int,
    method: str = "euler",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RegionChange:
    """Set a perturbation in a region of a tissue, and predict the change.

    Each control cell of the region becomes its own counterfactual
    (:func:`~cfmvc.stages.predict.carry_controls`), at its own coordinates; perturbed cells of the
    region and all cells outside stay as they are. The control as perturbation, or dose 0, changes
    nothing at all. The same seed gives the same counts.

    Parameters
    ----------
    bundle
        A trained model.
    cells
        Canonical cells (:func:`cfmvc.data.canonical.load_controls`) with ``obsm["spatial"]``, in
        the units of the training; they stay as they are.
    perturbation
        Label; a combination as in the training.
    region
        As :func:`cfmvc.data.regions.parse_region` reads it.
    dose
        Multiplies the perturbation; 1 if not given.
    batches
        Whose cells alone may be in the region; all, if not given.
    seed, n_steps, method
        Of the sampling and the integration.
    progress
        Told the number of cells done, and of all.

    Raises
    ------
    ConfigError
        If ``region`` is none.
    UnknownLabelError
        If the perturbation, or batch or cell type of a cell to change, was not in the training.
    DataError
        If the model has no flow, there are no coordinates, a batch has no cell, or the region has
        no control cell.
    """
    expect_flow(bundle)
    place = parse_region(region)
    doses = None if dose is None else [dose]
    p = bundle.vocabulary.perturbation_matrix([perturbation], doses)
    places = places_of(bundle, cells)
    may_be = of_batches(cells.obs["batch"], batches)
    in_region = place.holds(places, cells.obs) & may_be
    if not in_region.any():
        raise DataError(
            f"region {region}: none of {may_be.sum():,} cells is in it; "
            f"the coordinates run from {extent_of(places[may_be])}"
        )
    is_changed = _controls_in(bundle, cells, in_region, region)
    rows = np.flatnonzero(is_changed)
    counts = canonical_rows(to_csr(cells.layers["counts"]))
    carried = _carry(
        bundle,
        AnnData(
            obs=cells.obs.iloc[rows],
            var=cells.var,
            layers={"counts": counts[rows]},
            obsm={"spatial": places[rows]},
        ),
        cells,
        perturbation,
        dose,
        {"seed": seed, "n_steps": n_steps, "method": method, "progress": progress},
    )
    position = cells.var_names.get_indexer(bundle.gene_names)
    changed = with_changes(cells, counts, carried.cells, rows, position)
    changed.obs["in_region"] = in_region
    label_changed(changed, bundle.vocabulary.control, perturbation, dose, is_changed)
    changed.uns["perturb_region"] = {
        **{"perturbation": perturbation, "dose": 1.0 if dose is None else dose, "region": region},
        **{"n_changed": len(rows), "seed": seed, "n_steps": n_steps, "method": method},
        "library": bundle.median_library,
        **({} if batches is None else {"batches": list(batches)}),
    }
    strongest = np.argsort(-changed.var["mean_change"].abs().to_numpy()[position], kind="stable")
    return RegionChange(
        changed,
        is_changed,
        [bundle.gene_names[gene] for gene in strongest],
        _notes(bundle, changed, is_changed, p, dose),
        carried.events,
    )


def _controls_in(bundle: Bundle, cells: AnnData, in_region: np.ndarray, region: str) -> np.ndarray:
    """Return which cells are to be changed; batches and cell types unknown are an error."""
    labels = cells.obs["perturbation"]
    is_changed: np.ndarray = in_region & bundle.vocabulary.is_control(labels)
    if not is_changed.any():
        raise DataError(
            f"region {region}: has {int(in_region.sum()):,} cells, and none is a control "
            f"('{bundle.vocabulary.control}'), which alone are changed; "
            f"labels: {listed(labels[in_region].astype(str).unique())}"
        )
    bundle.vocabulary.batch_codes(cells.obs["batch"][is_changed].astype(str).to_numpy())
    bundle.vocabulary.cell_type_codes(cells.obs["cell_type"][is_changed].astype(str).to_numpy())
    return is_changed


def _carry(
    bundle: Bundle,
    controls: AnnData,
    tissue: AnnData,
    perturbation: str,
    dose: float | None,
    options: dict[str, Any],
) -> Prediction:
    """Return the controls as they would be, in their order."""
    strata = controls.obs[["batch", "cell_type"]].astype(str)
    asked = strata.value_counts(sort=False).sort_index().rename("n_cells").reset_index()
    asked["perturbation"] = perturbation
    if dose is not None:
        asked["dose"] = dose
    # generated stratum after stratum; within each in the order of the file
    order = np.argsort(strata.groupby(["batch", "cell_type"]).ngroup().to_numpy(), kind="stable")
    background, origins = background_of(bundle, controls, tissue), torch.from_numpy(order)
    made = carry_controls(bundle, asked, background, origins.to(bundle.device), **options)
    return Prediction(made.cells[np.argsort(order)].copy(), made.events)


def _notes(
    bundle: Bundle, cells: AnnData, is_changed: np.ndarray, p: np.ndarray, dose: float | None
) -> list[str]:
    if not p.any():
        return ["no perturbation, or dose 0: nothing changes"]
    asked, places = cells.uns["perturb_region"], np.asarray(cells.obsm["spatial"])
    notes = notes_on_place(bundle, places[is_changed], places)
    in_region = cells.obs["in_region"].to_numpy()
    reference, names = bundle.model.reference, bundle.vocabulary.perturbations
    if reference is not None:
        label = str(asked["perturbation"])
        vector = torch.from_numpy(p).to(bundle.device)
        embedding = bundle.model.context.embedding
        notes += sentences(unlike_embeddings(embedding, names, vector, [label]))
        notes += sentences(beyond_training(reference, names, vector, [label]))
        if dose is None:
            notes += sentences(without_dose(reference, vector, [label]))
    if "batches" not in asked and not isinstance(parse_region(asked["region"]), Annotation):
        notes += note_on_batches(cells.obs["batch"][in_region], places[in_region])
    n_left = int((in_region & ~is_changed).sum())
    if n_left:
        notes.append(f"{n_left:,} cells of the region are perturbed already, and stay as they are")
    n_unknown = int((~cells.var["is_predicted"]).sum())
    if n_unknown:
        notes.append(f"{n_unknown:,} genes are unknown to the model, and stay as they are")
    return notes
