"""What surrounds a cell in its tissue: the mean latent of its nearest unperturbed neighbours."""

from dataclasses import replace

import numpy as np
import torch

from cfmvc.models.reference import ReferenceCells

_AT_A_TIME = 16_384  # cells whose neighbours' latents are gathered at once


def with_neighbours(cells: ReferenceCells, tissue: ReferenceCells, n: int) -> ReferenceCells:
    """Return cells that know the mean ``int_mean`` of their neighbours.

    Neighbours are the ``n`` nearest controls of a cell's batch, because what is asked for later is
    asked of unperturbed tissue; all cells of the batch, where it has no controls. A cell is not its
    own neighbour, nor is who lies at the very same place. A cell without any neighbour takes the
    mean of the tissue.

    Parameters
    ----------
    cells
        Encoded cells; those without coordinates are returned as they are.
    tissue
        Encoded cells that may be neighbours, with coordinates; ``cells`` may be among them.
    n
        How many neighbours; 0 for none.
    """
    if n == 0 or cells.spatial is None or tissue.spatial is None:
        return cells
    usable = tissue.is_finite & torch.isfinite(tissue.spatial).all(1)
    around = tissue.select(usable)
    latents = around.int_mean.cpu().numpy()
    found = np.zeros((len(cells), latents.shape[1]), np.float32)
    if len(latents):
        found += latents.mean(axis=0)
    for batch in cells.batch.unique():
        mine = (cells.batch == batch).nonzero().reshape(-1).cpu().numpy()
        near = around.batch == batch
        if (near & around.is_control).any():
            near &= around.is_control
        there = near.nonzero().reshape(-1).cpu().numpy()
        if len(there):
            places = _places(cells, mine)
            found[mine] = _means(places, _places(around, there), latents[there], n, found[mine])
    return replace(cells, neighbours=torch.from_numpy(found).to(cells.int_mean))


def _places(cells: ReferenceCells, rows: np.ndarray) -> np.ndarray:
    assert cells.spatial is not None
    return cells.spatial.cpu().numpy()[rows]


def _means(
    places: np.ndarray, others: np.ndarray, latents: np.ndarray, n: int, alone: np.ndarray
) -> np.ndarray:
    """Return the mean latents of the ``n`` others next to each place, or what it has alone.

    Of several at one place (a grid of spots) that are more than are still wanted all count a part.
    """
    from scipy.spatial import KDTree  # who predicts without coordinates need not wait for it

    spots, of_other, n_there = np.unique(others, axis=0, return_inverse=True, return_counts=True)
    at_spots = np.zeros((len(spots), latents.shape[1]))
    np.add.at(at_spots, of_other.reshape(-1), latents)
    at_spots /= n_there[:, None]
    tree, found = KDTree(spots), alone.copy()
    for start in range(0, len(places), _AT_A_TIME):
        rows = slice(start, start + _AT_A_TIME)
        # one more, for it may be the cell's own place
        distance, spot = tree.query(np.nan_to_num(places[rows]), k=range(1, n + 2))
        is_other = (distance > 0) & np.isfinite(distance)
        spot = np.where(is_other, spot, 0)
        counts = np.where(is_other, n_there[spot], 0)
        counts = np.minimum(counts, (n - (counts.cumsum(axis=1) - counts)).clip(0))
        share = counts / counts.sum(axis=1, keepdims=True).clip(1)
        mean = np.einsum("ij,ijd->id", share, at_spots[spot])
        found[rows] = np.where(is_other.any(axis=1, keepdims=True), mean, found[rows])
    return found
