"""The work behind ``cfmvc perturb-region``."""

import importlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anndata import AnnData

from cfmvc.cli.predicting import opened, read_controls
from cfmvc.data.canonical import write_canonical
from cfmvc.data.regions import Annotation, parse_region
from cfmvc.errors import ConfigError, DataError, listed, suggest
from cfmvc.progress.cells import CellProgress
from cfmvc.stages.place import of_batches
from cfmvc.stages.region import RegionChange, perturb_region

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class RegionOrder:
    """What is asked for.

    Parameters
    ----------
    perturbation, dose, region, batches
        What to set, and where; of all batches where ``batches`` is None.
    genes
        Names of the genes to show, or None for the ``n_genes`` that change most.
    seed, n_steps, method
        Of the sampling and the integration.
    """

    perturbation: str
    dose: float | None
    region: str
    batches: list[str] | None
    genes: list[str] | None
    n_genes: int
    seed: int
    n_steps: int
    method: str


def perturb_region_file(
    model: str,
    cells: Path,
    order: RegionOrder,
    out: Path,
    picture: Path | None,
    mapping: list[str],
    control: str | None,
    device: str,
    embeddings: Path | None = None,
) -> dict[str, Any]:
    """Read model and tissue, change the region, write cells and picture; return what was made."""
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise ConfigError(f"--picture {picture}: its name must end in {listed(PICTURES)}")
    if picture is not None:
        importlib.import_module("matplotlib")  # where it is missing, before the work
    parse_region(order.region)  # a fault of it is told before anything is read
    bundle, warnings = opened(model, device, embeddings)
    _check_genes(order.genes, bundle.gene_names)
    tissue = read_controls(cells, bundle, mapping, control)
    region = _with_our_names(order.region, mapping, tissue.obs.columns)
    with CellProgress("change") as progress:
        change = perturb_region(
            bundle,
            tissue,
            order.perturbation,
            region,
            dose=order.dose,
            batches=order.batches,
            seed=order.seed,
            n_steps=order.n_steps,
            method=order.method,
            progress=progress,
        )
    change.notes.extend(warnings)
    genes = order.genes or change.genes[: order.n_genes]
    _write(change, model, out)
    if picture is not None:
        _draw(tissue, change, genes, order.batches, picture)
    means = change.cells.var["mean_change"]
    return {
        "out": str(out),
        "picture": None if picture is None else str(picture),
        "n_cells": change.cells.n_obs,
        "n_in_region": int(change.cells.obs["in_region"].sum()),
        "n_changed": int(change.is_changed.sum()),
        "mean_size": float(change.cells.obs["change"][change.is_changed].mean()),
        "genes": {gene: float(means[gene]) for gene in genes},
        "notes": change.notes,
        "n_velocity_events": len(change.events),
    }


def _with_our_names(region: str, mapping: list[str], columns: Collection[str]) -> str:
    """Return the region with the canonical name of a column, where the user gives his own.

    A column of the file that has the name of one of ours, which is read from another, was renamed.
    """
    place = parse_region(region)
    if not isinstance(place, Annotation):
        return region
    read_from = {key: name for key, _, name in (entry.partition("=") for entry in mapping)}
    ours = {name: key for key, name in read_from.items()}
    column, renamed = ours.get(place.column, place.column), f"{place.column}_in_source"
    if column == place.column and column in read_from and renamed in columns:
        column = renamed
    return f"obs:{column}={place.value}"


def _check_genes(genes: list[str] | None, known: list[str]) -> None:
    if genes is None:
        return
    if not genes:
        raise ConfigError("--genes: names no gene")
    for gene in genes:
        if gene not in known:
            raise DataError(
                f"--genes: the model does not know '{gene}'{suggest(gene, known)}; "
                f"it has {len(known):,} genes: {listed(known, 5)}"
            )


def _write(change: RegionChange, model: str, out: Path) -> None:
    uns = change.cells.uns
    uns["perturb_region"] |= {"model": model, "notes": "\n".join(change.notes)}
    if change.events:
        uns["cfmvc_events"] = json.dumps(change.events)
    write_canonical(change.cells, out)


def _draw(
    tissue: AnnData,
    change: RegionChange,
    genes: list[str],
    batches: list[str] | None,
    picture: Path,
) -> None:
    from cfmvc.evaluation.region_figures import region_picture, save_picture

    if batches is not None:  # others may lie at the same places
        mine = of_batches(tissue.obs["batch"], batches)
        tissue = tissue[mine]
        cells, is_changed = change.cells[mine], change.is_changed[mine]
        change = replace(change, cells=cells, is_changed=is_changed)
    save_picture(region_picture(tissue, change, genes), picture)
