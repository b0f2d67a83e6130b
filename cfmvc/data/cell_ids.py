"""What identifies a cell, whatever it is called: a hash of its counts.

A promotion has to know whether a model was trained on cells that it is evaluated on, and a name
says little: barcodes repeat between runs, and anybody can rename a cell.
"""

import hashlib

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc.data.reading import canonical_rows, row_blocks

CELL_ID = "cfmvc_cell_id"
CONTROL_CELL = "control_cell"  # of a virtual cell: the control that it is made of
_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def cell_ids(cells: AnnData) -> NDArray[np.uint64]:
    """Return a hash of each cell's counts by gene, shape ``(n_cells,)``; the order is no matter.

    Parameters
    ----------
    cells
        Counts in ``layers["counts"]``, in memory or on disk.
    """
    digests = [
        hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in cells.var_names
    ]
    genes = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
    found = []
    for block in row_blocks(cells.layers["counts"]):
        rows = canonical_rows(block)
        values = _mixed(genes[rows.indices] + rows.data.astype(np.uint64) * _ODD[0])
        values[rows.data == 0] = 0
        # A sum of well mixed numbers does not depend on their order; it overflows on purpose.
        sums = np.zeros(len(values) + 1, dtype=np.uint64)
        np.cumsum(values, out=sums[1:])
        found.append(_mixed(sums[rows.indptr[1:]] - sums[rows.indptr[:-1]]))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all 64 (splitmix64, Steele 2014)."""
    values = values + _ODD[0]
    values = (values ^ (values >> np.uint64(30))) * _ODD[1]
    values = (values ^ (values >> np.uint64(27))) * _ODD[2]
    return values ^ (values >> np.uint64(31))
