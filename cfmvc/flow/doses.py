r"""How strongly a dose acts, beside the largest one of its perturbation in the training.

What is much of one drug is little of another, and few act in proportion to their dose: most do
nothing below some concentration and no more above another. With :math:`x` the dose over the largest
one, it acts as strongly as

.. math:: s(x) = \frac{(1 + k)\, x^a}{1 + k\, x^a},

the curve of Hill (1910), of which the largest dose is at 1. :math:`k = 0` and :math:`a = 1` is the
straight line, which it stays where the training does not tell otherwise.

The shifts of one perturbation in one stratum are :math:`y_i = s(x_i)\,\delta + c + \ldots`, with an
unknown response, and what all perturbations have in common whatever their dose: noise of the
controls, at least. The curve of greatest likelihood is found on a grid. Genes are not independent,
and so their evidence is counted against how much noise alone would move it. All perturbations
together say which curve is usual; each may then depart from it.

Above the largest dose no curve goes beyond proportion: what is steep below would explode there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfmvc.flow.stratum_products import products_of_strata

# A grid of curves: the line, and those with a dose of half of the effect (decades above the
# largest) and a steepness.
_STEEP, _BENT = np.meshgrid(2.0 ** (np.arange(-2, 4) / 2.0), np.arange(-4.0, 2.0, 0.25))
_STEEPNESS, _HALF = np.append(1.0, _STEEP), np.append(2.0, _BENT)
_LINE = 0
_MOST = 1e20  # of a power of a dose, which float32 then still holds times a saturation
_SATURATION = np.where(np.arange(len(_HALF)) == _LINE, 0.0, 10.0 ** (-_HALF * _STEEPNESS))
_DECADES, _FACTOR = 1.0, 0.35  # by so much do half doses and logarithms of steepness differ
_OFF = (np.subtract.outer(_HALF, _HALF) / _DECADES) ** 2
_OFF += (np.subtract.outer(np.log(_STEEPNESS), np.log(_STEEPNESS)) / _FACTOR) ** 2
# By so much the usual curve is likelier than the line, or it is the line. Beside that bends tell
# what single genes do (condition_kernels): of effects that are proportional in log rates,
# simulated, steep curves gained 3 to 7 (by hand) and were no better. Of one that only saturates
# it is enough that it is likelier at all: a line would go far beyond it.
_CLEARLY = np.where(_STEEPNESS > 1.0, 8.0, 2.0)
_CLEARLY[_LINE] = 0.0


@dataclass(frozen=True)
class DoseCurves:
    """Curves of all perturbations.

    Parameters
    ----------
    largest
        Largest dose of each in the training, ``(K,)``.
    saturation, steepness
        :math:`k` and :math:`a` of each, ``(K,)``.
    """

    largest: Any
    saturation: Any
    steepness: Any

    @classmethod
    def straight(cls, largest: np.ndarray) -> "DoseCurves":
        """Return straight lines."""
        return cls(largest, np.zeros(len(largest)), np.ones(len(largest)))

    @property
    def is_straight(self) -> bool:
        """Whether all of them are straight lines."""
        return bool((self.saturation == 0.0).all() and (self.steepness == 1.0).all())

    def strength(self, p: Any) -> Any:
        """Return perturbation vectors ``(n, K)`` as strong as they act; 0 for none.

        Arrays of NumPy, where the curves are, or else tensors of torch.
        """
        return p / self.largest if self.is_straight else self.curved(p)

    def curved(self, p: Any) -> Any:
        """Return the same, without a look at whether there is a curve."""
        x = p / self.largest
        powers = (x**self.steepness).clip(max=_MOST)
        found = (1.0 + self.saturation) * powers / (1.0 + self.saturation * powers)
        return found.clip(max=x.clip(min=1.0))

    def doses(self, strength: np.ndarray) -> np.ndarray:
        """Return the inverse of :meth:`strength`, which is at most 1."""
        strength = np.minimum(strength, 1.0)
        powers = strength / (1.0 + self.saturation - self.saturation * strength)
        return np.asarray(powers ** (1.0 / self.steepness) * self.largest)


_GRID = DoseCurves(1.0, _SATURATION[:, None], _STEEPNESS[:, None])


def largest_doses(vectors: np.ndarray) -> np.ndarray:
    """Return the largest dose of each perturbation in the training, ``(K,)``.

    Doses count relative to these. Of a perturbation that has none there it is that of all others.

    Parameters
    ----------
    vectors
        Perturbation vectors, ``(n, K)``.
    """
    own = vectors.max(axis=0, initial=0.0)
    of_all = own.max(initial=0.0)
    return np.where(own > 0, own, of_all if of_all > 0 else 1.0)


def several_doses(vectors: np.ndarray) -> bool:
    """Return whether any perturbation has more than one dose in ``(n, K)`` vectors."""
    return bool(((vectors > 0) & (vectors < vectors.max(axis=0, initial=0.0))).any())


def learnt_curves(
    p: np.ndarray,
    largest: np.ndarray,
    shift: np.ndarray,
    stratum: np.ndarray,
    n_cells: np.ndarray,
    n_controls: np.ndarray,
) -> DoseCurves:
    """Return the likeliest curves.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    largest
        Largest dose of each perturbation, ``(K,)``.
    shift, stratum, n_cells, n_controls
        As in :func:`~cfmvc.flow.combination_gain.combination_gain`.
    """
    curves, n_genes = DoseCurves.straight(largest), shift.shape[1]
    told: dict[int, list[np.ndarray]] = {}
    for known in products_of_strata(p, shift, stratum, n_controls) if n_genes else ():
        for column in np.unique(known.column[known.column >= 0]).tolist():
            mine = np.flatnonzero(known.column == column)
            doses = p[known.rows[mine], column]
            if len(np.unique(doses)) > 1:
                noise = np.diag(1.0 / n_cells[known.rows[mine]]) + known.common
                products = n_genes * known.products[np.ix_(mine, mine)]
                curved = _GRID.curved(doses / largest[column])
                explained = _explained(curved, products, noise)
                told.setdefault(column, []).append(explained)
    if not told:
        return curves
    evidence = {
        column: np.sum(some, axis=0) / np.sqrt(2.0 * n_genes * len(some))
        for column, some in told.items()
    }
    usual = _usual(list(evidence.values()))
    chosen = np.full(p.shape[1], usual)
    for column, one in evidence.items():
        chosen[column] = np.argmax(one - _OFF[usual] / 2.0)
    curves.saturation[:], curves.steepness[:] = _SATURATION[chosen], _STEEPNESS[chosen]
    return curves


def _usual(evidence: list[np.ndarray]) -> int:
    """Return the number of the curve from which the likeliest ones of all depart least."""
    gain = np.zeros(len(_HALF))
    for one in evidence:
        gain += (one - _OFF / 2.0).max(axis=1)
    gain -= (np.log(_STEEPNESS) / _FACTOR) ** 2 / 2.0
    return int(np.argmax(gain - _CLEARLY))


def _explained(curves: np.ndarray, products: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the squares that each curve explains of shifts with the covariance ``noise``.

    With a response of its own for each gene, which is found with the curve: twice the logarithm of
    the likelihood, up to a constant. ``products`` are those of the shifts, summed over genes.
    """
    precision = np.linalg.inv(noise)
    weighted = precision @ products @ precision
    squares = np.einsum("ci,ij,cj->c", curves, weighted, curves)
    return np.asarray(squares / np.einsum("ci,ij,cj->c", curves, precision, curves))
