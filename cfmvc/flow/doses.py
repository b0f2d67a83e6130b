r"""How strongly a dose acts, beside the largest one of its perturbation in the training.

What is much of one drug is little of another, and few act in proportion to their dose: most do
nothing below some concentration and no more above another. With :math:`x` the dose over the largest
one, it acts as strongly as

.. math:: s(x) = \frac{(1 + k)\, x^a}{1 + k\, x^a},

the curve of Hill (1910), of which the largest dose is at 1. :math:`k = 0` and :math:`a = 1` is the
straight line, which it stays where the training does not tell otherwise.

The shifts of one perturbation in one stratum are :math:`y_i = s(x_i)\,\delta - c + \ldots`, with an
unknown response, and the controls' noise in all of them: the curve of greatest likelihood is found
on a grid. Genes are not independent, and so their evidence is counted against how much noise alone
would move it. All perturbations together say which curve is usual; each may then depart from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_STEEPNESS = 2.0 ** (np.arange(-2, 4) / 2.0)
_LINEAR = 2.0  # decades above the largest dose: half of the effect there is hardly a bend below
_HALF = np.arange(-4.0, _LINEAR + 0.25, 0.25)  # decades: dose of half of the effect
_OF_STEEPNESS, _OF_HALF = 0.35, 1.0  # how far curves depart from the usual one: logarithm, decades
_CLEARLY = 2.0  # by so much the usual curve is likelier than the line, or it is the line


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
        powers = (p / self.largest) ** self.steepness
        return (1.0 + self.saturation) * powers / (1.0 + self.saturation * powers)

    def doses(self, strength: np.ndarray) -> np.ndarray:
        """Return the inverse of :meth:`strength`."""
        powers = strength / (1.0 + self.saturation - self.saturation * strength)
        return np.asarray(powers ** (1.0 / self.steepness) * self.largest)


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
    shift
        Measured shifts, in units of the spread within a condition, ``(n, G)``.
    stratum
        Number of the stratum, ``(n,)``.
    n_cells, n_controls
        Cells behind the means of the condition and of its stratum's controls, ``(n,)``.
    """
    half, steepness = (v.ravel() for v in np.meshgrid(_HALF, _STEEPNESS, indexing="ij"))
    found: dict[int, tuple[np.ndarray, int]] = {}
    for column, rows in _at_several_doses(p, stratum):
        x = p[rows, column] / largest[column]
        noise = np.diag(1.0 / n_cells[rows]) + 1.0 / n_controls[rows[0]]
        told = _explained(_curve(x, half, steepness), shift[rows], noise)
        before = found.get(column, (np.zeros(len(half)), 0))
        found[column] = before[0] + told, before[1] + len(rows)
    curves = DoseCurves.straight(largest)
    if not found:
        return curves
    usual = _usual(found, half, steepness, shift.shape[1])
    off = ((half - half[usual]) / _OF_HALF) ** 2 + _off(steepness, steepness[usual])
    chosen = np.full(p.shape[1], usual)
    for column, (told, n_rows) in found.items():
        chosen[column] = np.argmax(told / _by_chance(n_rows, shift.shape[1]) - off / 2.0)
    curves.saturation[:] = _saturation(half, steepness)[chosen]
    curves.steepness[:] = steepness[chosen]
    return curves


def _usual(
    found: dict[int, tuple[np.ndarray, int]], half: np.ndarray, steepness: np.ndarray, n_genes: int
) -> int:
    """Return the number of the curve that all perturbations together make likeliest."""
    told = np.sum([one for one, _ in found.values()], axis=0)
    n_rows = sum(n for _, n in found.values())
    gain = told / _by_chance(n_rows, n_genes) - _off(steepness, 1.0) / 2.0
    line = int(np.flatnonzero((half == _LINEAR) & (steepness == 1.0))[0])
    best = int(np.argmax(gain))
    return best if gain[best] > gain[line] + _CLEARLY else line


def _off(steepness: np.ndarray, usual: float) -> np.ndarray:
    return np.asarray((np.log(steepness / usual) / _OF_STEEPNESS) ** 2)


def _by_chance(n_rows: int, n_genes: int) -> float:
    """Return how far noise alone moves what is explained: a standard deviation of squares."""
    return float(np.sqrt(2.0 * n_genes * n_rows))


def _saturation(half: np.ndarray, steepness: np.ndarray) -> np.ndarray:
    return np.where(half == _LINEAR, 0.0, 10.0 ** (-half * steepness))


def _curve(x: np.ndarray, half: np.ndarray, steepness: np.ndarray) -> np.ndarray:
    """Return the strengths of some doses ``(n,)`` on each curve, ``(n_curves, n)``."""
    k = _saturation(half, steepness)[:, None]
    powers = x ** steepness[:, None]
    return np.asarray((1.0 + k) * powers / (1.0 + k * powers))


def _explained(curves: np.ndarray, shift: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the squares that each curve explains of shifts ``(n, G)`` with covariance ``noise``.

    With a response of its own for each gene, which is found with the curve: twice the logarithm of
    the likelihood, up to a constant.
    """
    precision = np.linalg.inv(noise)
    weighted = precision @ shift
    products = weighted @ weighted.T
    squares = np.einsum("ci,ij,cj->c", curves, products, curves)
    return np.asarray(squares / np.einsum("ci,ij,cj->c", curves, precision, curves))


def _at_several_doses(p: np.ndarray, stratum: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each perturbation with the rows of a stratum in which it has several doses, alone."""
    together: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(np.count_nonzero(p, axis=1) == 1).tolist():
        together.setdefault((int(p[row].argmax()), int(stratum[row])), []).append(row)
    for (column, _), rows in together.items():
        if len(np.unique(p[rows, column])) > 1:
            yield column, np.asarray(rows)
