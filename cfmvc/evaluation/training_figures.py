"""Pictures of a training: its losses, and what the latents hold."""

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from cfmvc.data.vocabulary import Vocabulary
from cfmvc.models.bundle import Bundle
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.vae import TrainingCells

_MOST_CELLS = 3000
_MOST_COLOURS = 10


def loss_curves(rows: list[dict[str, float]], name: str) -> Any:
    """Return a figure of training and validation loss over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("train_loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(row["epoch"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3)
    axes.set(xlabel="epoch", ylabel="loss", title=f"{name}: loss")
    # The first epochs dwarf the rest: show the course after the first tenth in full.
    later = [row["train_loss"] for row in rows[len(rows) // 10 :]]
    later += [row["val_loss"] for row in rows[len(rows) // 10 :] if "val_loss" in row]
    if later and max(later) > min(later):
        margin = 0.05 * (max(later) - min(later))
        axes.set_ylim(min(later) - margin, max(later) + margin)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def latent_picture(bundle: Bundle, cells: TrainingCells) -> Any:
    """Return a figure of ``z_int`` in two principal components, coloured three ways."""
    from matplotlib.figure import Figure

    rows = np.random.default_rng(0).permutation(len(cells.train))[:_MOST_CELLS]
    table = cells.train.subset(np.sort(rows))
    latents = encode_table(bundle.model, table, bundle.device)
    is_finite = latents.is_finite  # a cell of NaN, which the guard has vetoed, has no place
    latents, table = latents.select(is_finite), table.subset(is_finite.cpu().numpy())
    points = _in_a_plane(latents.int_mean.cpu().numpy())
    labels = {
        "perturbation": _perturbation_names(latents.p, bundle.vocabulary),
        "cell type": np.asarray(bundle.vocabulary.cell_types)[table.cell_type],
        "batch": np.asarray(bundle.vocabulary.batches)[table.batch],
    }
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 3), labels.items(), strict=True):
        _scatter(axes, points, names)
        axes.set(title=f"z_int by {title}", xlabel="PC 1", ylabel="PC 2", xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _in_a_plane(latents: np.ndarray) -> np.ndarray:
    """Return the scores of two principal components, ``(n, 2)``; 0 of one that is not there."""
    n = min(2, *latents.shape)
    scores = PCA(n, random_state=0).fit_transform(latents)
    return np.pad(scores, ((0, 0), (0, 2 - n)))


def _scatter(axes: Any, points: np.ndarray, names: np.ndarray) -> None:
    from matplotlib import colormaps

    kinds, counts = np.unique(names, return_counts=True)
    shown = kinds[np.argsort(-counts)][:_MOST_COLOURS]
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    rest = ~np.isin(names, shown)
    if rest.any():
        label = f"{len(kinds) - len(shown)} others"
        axes.scatter(*points[rest].T, s=4, color="0.85", label=label, rasterized=True)
    for kind, colour in zip(sorted(shown), colours, strict=False):
        mine = names == kind
        axes.scatter(*points[mine].T, s=4, color=colour, alpha=0.6, label=kind, rasterized=True)
    # Handles by themselves: matplotlib leaves out labels that begin with "_", and reads "$" as TeX.
    handles = list(axes.collections)
    legend = axes.legend(
        handles,
        [handle.get_label() for handle in handles],
        markerscale=3,
        fontsize=7,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _perturbation_names(p: torch.Tensor, known: Vocabulary) -> np.ndarray:
    rows = p.cpu().numpy() != 0
    names, control = np.asarray(known.perturbations, dtype=object), known.perturbations[0]
    joined = [known.separator.join(names[row]) if row.any() else control for row in rows]
    return np.asarray(joined)
