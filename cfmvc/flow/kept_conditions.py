"""Of many conditions those that something is learnt of: the cost is cubic in them."""

import numpy as np

MOST_CONDITIONS = 2000  # that are remembered
MOST_TO_LEARN = 400  # of which variances are found
_LEAST_KINDS = 20  # perturbations among these, where there are as many


def whole_perturbations(p: np.ndarray, n_cells: np.ndarray, most: int) -> np.ndarray:
    """Choose conditions that tell what of a perturbation hangs on its context: all of some.

    One condition each of many perturbations would say nothing of that. The perturbations with most
    cells are taken, of which one with very many conditions gives its largest.

    Parameters
    ----------
    p, n_cells, most
        Perturbation vectors, ``(n, K)``; as in :func:`foremost`.
    """
    if len(p) <= most:
        return np.arange(len(p))
    kind = np.unique(p, axis=0, return_inverse=True)[1].reshape(-1)
    total = np.bincount(kind, weights=n_cells)
    most_of_one = max(2, most // min(len(total), _LEAST_KINDS))
    chosen: list[int] = []
    for one in np.argsort(-total, kind="stable"):
        rows = np.flatnonzero(kind == one)
        rows = rows[np.argsort(-n_cells[rows], kind="stable")[:most_of_one]]
        if len(chosen) + len(rows) <= most:
            chosen += rows.tolist()
    return np.sort(np.asarray(chosen))


def foremost(kind: np.ndarray, n_cells: np.ndarray, most: int) -> np.ndarray:
    """Choose conditions: the largest of each perturbation first, then the next ones.

    Parameters
    ----------
    kind
        A number of each one's perturbation, ``(n,)``: vectors of many conditions take gigabytes.
    n_cells
        ``(n,)``.
    most
        How many.

    Returns
    -------
    numpy.ndarray
        Their rows, in order.
    """
    if len(kind) <= most:
        return np.arange(len(kind))
    return np.sort(_by_rank(kind, n_cells)[:most])


def whole_groups(kind: np.ndarray, group: np.ndarray, n_cells: np.ndarray, most: int) -> np.ndarray:
    """Choose conditions, whole groups of them: the largest of each kind first, then the next ones.

    Parameters
    ----------
    kind, group
        Numbers of each one's kind and group, ``(n,)``; all of a group are of one kind.
    n_cells, most
        As in :func:`foremost`.
    """
    if len(kind) <= most:
        return np.arange(len(kind))
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    ranked = _by_rank(kind[first], np.bincount(member, weights=n_cells))
    fitting = ranked[np.cumsum(np.bincount(member)[ranked]) <= most]
    return np.flatnonzero(np.isin(member, fitting))


def _by_rank(kind: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return rows in the order of their rank among those of their kind, the largest first."""
    seen: dict[int, int] = {}
    rank = np.empty(len(kind), dtype=np.int64)
    for row in np.argsort(-size, kind="stable").tolist():
        of_kind = int(kind[row])
        rank[row] = seen[of_kind] = seen.get(of_kind, -1) + 1
    return np.lexsort((-size, rank))
