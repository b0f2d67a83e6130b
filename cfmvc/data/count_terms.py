"""What the likelihood needs of the counts alone, gathered once and not once a gradient.

For whole counts ``lgamma(x + theta) - lgamma(theta) = sum over k < x of log(theta + k)``: of the
counts of some cells it is enough to know how many are at least 1, 2, 3, ... in each gene. No
``lgamma`` is evaluated but for the few counts above ``SMALL``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix

SMALL = 16  # counts up to here are tallied; larger ones are listed one by one


@dataclass(frozen=True)
class CountTerms:
    """A tally of the counts of some cells.

    Parameters
    ----------
    at_least
        In how many of the cells a gene's count is at least 2, 3, ..., ``SMALL``:
        ``(n_genes, SMALL - 1)``. Counts that are listed are tallied up to their ``base``.
    gene, value, base
        Counts that are not tallied in full, ``(m,)`` each: their gene, themselves (float64), and up
        to where they are tallied (``SMALL``; 0 for a number that is not whole, or not finite).
    """

    at_least: torch.Tensor
    gene: torch.Tensor
    value: torch.Tensor
    base: torch.Tensor

    @classmethod
    def of_sparse(cls, counts: csr_matrix, device: torch.device) -> "CountTerms":
        """Tally whole, non-negative counts, ``(B, n_genes)``; NaN, if there is one, is listed."""
        is_small = (counts.data >= 0) & (counts.data <= SMALL)
        kept = np.where(is_small, counts.data, SMALL).astype(np.int64)
        tally = np.bincount(
            counts.indices * (SMALL + 1) + kept, minlength=counts.shape[1] * (SMALL + 1)
        )
        value = counts.data[~is_small].astype(np.float64)
        return cls(
            _at_least(torch.from_numpy(tally.astype(np.float32)).to(device)),
            torch.from_numpy(counts.indices[~is_small].astype(np.int64)).to(device),
            torch.from_numpy(value).to(device),
            torch.full((len(value),), float(SMALL), dtype=torch.float64, device=device),
        )

    @classmethod
    def of_dense(cls, x: torch.Tensor) -> "CountTerms":
        """Tally numbers of any kind, ``(B, n_genes)``, also those that are no counts."""
        n_genes = x.shape[1]
        gene = torch.arange(n_genes, device=x.device).expand_as(x)
        is_whole = (x == x.floor()) & (x >= 0) & torch.isfinite(x)
        base = torch.where(is_whole, x.clamp(max=SMALL), torch.zeros_like(x))
        keys = gene * (SMALL + 1) + base.long()
        tally = torch.zeros(n_genes * (SMALL + 1), device=x.device)
        tally.index_add_(0, keys.reshape(-1), torch.ones_like(tally[:1]).expand(keys.numel()))
        is_listed = x != base  # so is NaN
        return cls(
            _at_least(tally), gene[is_listed], x[is_listed].double(), base[is_listed].double()
        )


def _at_least(tally: torch.Tensor) -> torch.Tensor:
    """Turn how many cells have exactly 0, 1, 2, ... into how many have at least 2, 3, ..."""
    # In double precision, which neither autocast nor TF32 makes less of: they are whole numbers.
    whole = torch.ones(SMALL + 1, SMALL + 1, dtype=torch.float64, device=tally.device)
    is_at_least = whole.tril()[:, 2:]
    return (tally.double().reshape(-1, SMALL + 1) @ is_at_least).to(tally.dtype)
