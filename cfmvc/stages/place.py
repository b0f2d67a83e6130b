"""Coordinates of cells to predict for, beside those that a model was trained on."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc.errors import DataError, listed, suggest
from cfmvc.models.bundle import Bundle

# A model keeps a sample of its cells: the outermost of the training may lie so much further out.
_MARGIN = 0.05
_SMALL = 0.01  # of the training's extent: millimetres for micrometres are a thousandth


def places_of(bundle: Bundle, cells: AnnData) -> NDArray[np.floating]:
    """Return the coordinates of cells, ``(n_cells, 2 or 3)``.

    Raises
    ------
    DataError
        If there are none, or not as many as the model was trained with.
    """
    if "spatial" not in cells.obsm:
        raise DataError(
            "the cells have no coordinates (obsm['spatial'], 2 or 3 columns), so no region; "
            "name them with --map spatial=KEY"
        )
    places = np.asarray(cells.obsm["spatial"])
    n_trained = bundle.model.sizes["spatial_dim"]
    if n_trained is not None and places.shape[1] != n_trained:
        raise DataError(
            f"the cells have {places.shape[1]} coordinates, those of the training had {n_trained}"
        )
    return places


def notes_on_place(
    bundle: Bundle, places: NDArray[np.floating], tissue: NDArray[np.floating]
) -> list[str]:
    """Return warnings of places that the model knows nothing of.

    Parameters
    ----------
    bundle
        A trained model.
    places
        Coordinates of the cells to predict for, ``(n_cells, 2 or 3)``.
    tissue
        Those of all cells, likewise: a region may be small, but its tissue hardly is.
    """
    if bundle.model.context.place is None:
        return [
            "the model was trained without coordinates: place is no part of it, and cells of one "
            "batch and cell type differ by their own state alone"
        ]
    low, high = _trained_range(bundle)
    margin = _MARGIN * (high - low)
    is_outside = ((places < low - margin) | (places > high + margin)).any(axis=1)
    trained, notes = extent_of(np.stack([low, high])), []
    if is_outside.any():
        notes.append(
            f"{int(is_outside.sum()):,} of {len(places):,} cells to change are outside of the "
            f"places of the training ({trained}): the prediction there is a guess; "
            "are the units the same?"
        )
    if len(tissue) > 1 and np.ptp(tissue, axis=0).max() < _SMALL * (high - low).max():
        notes.append(
            f"all cells lie within {extent_of(tissue)}, less than a hundredth of the places of the "
            f"training ({trained}): are the units the same?"
        )
    return notes


def of_batches(labels: pd.Series, batches: Sequence[str] | None) -> NDArray[np.bool_]:
    """Return which cells are of one of the batches, ``(n_cells,)``; all, if none are given.

    Raises
    ------
    DataError
        If a batch has no cell.
    """
    text = labels.astype(str)
    if batches is None:
        return np.ones(len(text), dtype=bool)
    known = sorted(set(text))
    for batch in batches:
        if batch not in known:
            raise DataError(
                f"no cell is of batch '{batch}'{suggest(batch, known)}; batches: {listed(known)}"
            )
    return np.asarray(text.isin(batches), dtype=bool)


def note_on_batches(labels: pd.Series, places: NDArray[np.floating]) -> list[str]:
    """Return a warning where cells of several batches lie over each other.

    Sections of their own may well count from the same corner: a region then has cells of them all.

    Parameters
    ----------
    labels
        Batches of the cells of a region.
    places
        Their coordinates, ``(n_cells, 2 or 3)``.
    """
    text = labels.astype(str).to_numpy()
    boxes = {
        batch: (places[text == batch].min(axis=0), places[text == batch].max(axis=0))
        for batch in sorted(set(text))
    }
    over_others = {
        batch
        for pair in combinations(boxes, 2)
        if _overlap(*(boxes[batch] for batch in pair))
        for batch in pair
    }
    if not over_others:
        return []
    return [
        f"the region takes cells of {len(over_others)} batches whose coordinates overlap: "
        f"{listed(sorted(over_others))}; if they are sections of their own, restrict it to one "
        "(--batch NAME), or else it is a region of each, and pictures draw them over each other"
    ]


def _overlap(
    one: tuple[NDArray[np.floating], ...], other: tuple[NDArray[np.floating], ...]
) -> bool:
    """Return whether two boxes, by their lowest and highest corners, have a place in common."""
    return bool((np.maximum(one[0], other[0]) <= np.minimum(one[1], other[1])).all())


def extent_of(places: NDArray[np.floating]) -> str:
    """Return the range of each coordinate as text."""
    low, high = places.min(axis=0), places.max(axis=0)
    return ", ".join(f"{a} {x:.4g} to {y:.4g}" for a, x, y in zip("xyz", low, high, strict=False))


def _trained_range(bundle: Bundle) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    kept = bundle.model.reference
    if kept is None or kept.spatial is None or len(kept) == 0:
        context = bundle.model.context
        centre, extent = (v[: context.n_coordinates] for v in (context.centre, context.extent))
        return (centre - extent).cpu().numpy(), (centre + extent).cpu().numpy()
    places = kept.spatial.cpu().numpy()
    return places.min(axis=0), places.max(axis=0)
