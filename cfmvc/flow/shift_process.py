"""The shift that a condition is expected to have, also one that was never measured.

A Gaussian process over conditions (empirical Bayes; Efron & Morris 1973; Rasmussen & Williams 2006,
chapter 2) with the covariance of :mod:`~cfmvc.flow.condition_kernels`; the noise is known, for it
is that of a mean over a known number of cells. Genes differ in how much they respond at all, so
that they are taken in groups of like strength. The variances of the strongest group, those of
greatest likelihood, say what the shifts hang on; of every other group only their common size is
found, for in weak genes noise would decide. Ridge regression on one-hot perturbations and the
state of the controls is the case of two parts and one group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh

from cfmvc.flow.condition_kernels import Conditions, distinct, effects_of
from cfmvc.flow.kept_conditions import MOST_TO_LEARN, whole_perturbations
from cfmvc.flow.local_scales import RATIOS, LocalScales, sets_of, shares_of, some_genes
from cfmvc.flow.variances import likeliest, likeliest_sizes

_N_GROUPS = 20
# Where the logarithm of a variance is held that the data do not tell. Who gives embeddings believes
# that they tell something (a few perturbations are explained by them as well as one by one), but
# not all: what each perturbation has of its own must not be read into what embeddings say. And what
# a few combinations have of their own must not be read into what their parts do in company; nor
# noise of small doses into the bends of genes, which would carry far beyond.
_PRIOR, _PRIOR_WEIGHT = {"in company": -4.5, "bent": -6.0}, 1.0
_PRIOR_WITH_EMBEDDINGS = {"like": 0.0, "same": -1.0}
_PRIOR_OF_OTHERS = -3.0
# Measured means are believed somewhat more than their noise alone would have it: what is lost by
# shrinking a strong response weighs more than noise in a weak one. Chosen on Kang and Papalexi.
NOISE_WEIGHT = 0.5
# The same where the ratio of a gene is found: with half of the noise what does nothing is believed,
# with all of it strong responses are shrunk. Chosen on these and on simulated screens.
NOISE_OF_RATIOS = 0.7
_AT_ONCE = 256  # conditions that are asked for


@dataclass(frozen=True)
class ShiftProcess:
    """What was measured, in the form in which it predicts.

    Parameters
    ----------
    conditions
        Those that were measured, ``n`` of them.
    parts
        Numbers of the covariance's parts that count, ``(n_parts,)``.
    variances
        Of each part, in the group of genes that responds most, ``(n_parts,)``.
    sizes
        Of each group of genes, the variance relative to that group, ``(n_groups,)``.
    group
        Group of each gene, ``(n_genes,)``.
    shift
        What was measured, ``(n, n_genes)``.
    values, axes
        ``(n,)`` and ``(n, n)``: axes in which the covariance of the signal is diagonal, with these
        values, and that of the noise the identity. So are all sums of multiples of the two.
    shares
        Of the ratios of :mod:`~cfmvc.flow.local_scales` in each one's set of perturbations,
        ``(n, R)``.
    """

    conditions: Conditions
    parts: np.ndarray
    variances: np.ndarray
    sizes: np.ndarray
    group: np.ndarray
    shift: np.ndarray
    values: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, conditions: Conditions, shift: np.ndarray) -> "ShiftProcess":
        """Learn from measured shifts.

        Parameters
        ----------
        conditions
            Where they were measured; none of them is a control, and they are as many as
            :data:`~cfmvc.flow.kept_conditions.MOST_CONDITIONS` at most: the cost is cubic in them.
        shift
            ``(n, n_genes)``, in units of the spread within a condition.
        """
        groups = _groups(conditions, shift)
        some = whole_perturbations(conditions.p, conditions.n_cells, MOST_TO_LEARN)
        parts, variances, sizes = _learnt(conditions.rows(some), shift[some], groups)
        group = np.empty(shift.shape[1], np.int64)
        for number, genes in enumerate(groups):
            group[genes] = number
        signal = conditions.covariance(conditions, parts, variances)
        noise = NOISE_WEIGHT * _noise(conditions)
        values, axes = eigh(signal, noise)
        genes = some_genes(groups, len(group))
        noise = NOISE_OF_RATIOS * _noise(conditions)
        shares = shares_of(conditions.p, signal, noise, shift[:, genes], sizes[group[genes]])
        kept = shift.astype(np.float32)  # of which a model keeps a copy on disk
        axes = np.ascontiguousarray(axes)  # as they come back from a file: sums round alike
        return cls(conditions, parts, variances, sizes, group, kept, values.clip(0.0), axes, shares)

    def expected(self, asked: Conditions) -> np.ndarray:
        """Return the expectation of the shifts of other conditions, ``(n_asked, n_genes)``."""
        found = np.zeros((len(asked), len(self.group)))
        for told in self._told(asked):
            found[np.ix_(told.rows, told.genes)] = told.mean
        return np.where(asked.p.any(axis=1, keepdims=True), found, 0.0)

    def spread(self, asked: Conditions) -> np.ndarray:
        """Return the standard deviation of what is not known of them, ``(n_asked, n_genes)``.

        The noise of the controls is a part of it where shifts from the same ones were measured, and
        :meth:`expected` has what is known of it. Elsewhere it is to be added.
        """
        found = np.zeros((len(asked), len(self.group)))
        for told in self._told(asked):
            sizes = RATIOS * self.sizes[told.group]
            within = told.unknown.variance(sizes)[:, :, None]
            between = (told.means - told.mean[:, None]) ** 2
            variance = (told.shares * (within + between)).sum(axis=1)
            found[np.ix_(told.rows, told.genes)] = np.sqrt(variance)
        return np.where(asked.p.any(axis=1, keepdims=True), found, 0.0)

    def usual_spread(self, asked: Conditions) -> np.ndarray:
        """Return the same of genes that are moved as is usual of their group (ratio 1)."""
        known = self.conditions
        across = asked.covariance(known, self.parts, self.variances) @ self.axes
        unknown = _Unknown.of(self, asked, across, np.zeros_like(across))
        return np.sqrt(unknown.variance(self.sizes)[:, self.group])

    def left_out(self, rows: np.ndarray) -> np.ndarray:
        """Return what is expected of some that were measured, from all others, ``(n_rows, G)``.

        What was learnt of all of them (variances, sizes, shares) stays as it is. A mean that is
        left out is expected to be itself, less its weight over the diagonal of the precision
        (Rasmussen & Williams 2006, equation 5.12).
        """
        found, scales = np.zeros((len(rows), len(self.group))), self._scales()
        shares = [scales.of(self.conditions.p[row], row) for row in rows.tolist()]
        scores, axes = self.axes.T @ self.shift, self.axes[rows]
        for group, of_group in enumerate(self.sizes.tolist()):
            genes = np.flatnonzero(self.group == group)
            likely = np.stack([share[:, genes] for share in shares])
            for place, ratio in enumerate(RATIOS.tolist()):
                kept = axes / (1.0 + of_group * ratio * self.values)
                off = (kept @ scores[:, genes]) / (kept * axes).sum(axis=1, keepdims=True)
                found[:, genes] += likely[:, place] * (self.shift[np.ix_(rows, genes)] - off)
        return found

    def _scales(self) -> LocalScales:
        known = self.conditions
        signal = known.covariance(known, self.parts, self.variances)
        noise, size = NOISE_OF_RATIOS * _noise(known), self.sizes[self.group]
        return LocalScales(known.p, signal, noise, self.shift, size, self.shares)

    def _told(self, asked: Conditions) -> "Iterator[_Told]":
        """Yield what is expected at each ratio: some of the conditions, a group of genes."""
        learnt, known, scales = (self.parts, self.variances), self.conditions, self._scales()
        scores = self.axes.T @ self.shift
        for start in range(0, len(asked), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(asked)))
            some = asked.rows(rows)
            across = some.covariance(known, *learnt) @ self.axes
            # Controls that were measured high make every shift of their stratum come out low.
            of_controls = some.noise_of_controls(known) @ self.axes
            unknown = _Unknown.of(self, some, across, of_controls)
            of_controls *= NOISE_WEIGHT
            sets, member = sets_of(some.p)
            shares = [scales.of(one).astype(np.float32) for one in sets]
            for group, of_group in enumerate(self.sizes.tolist()):
                genes = np.flatnonzero(self.group == group)
                means = np.empty((len(rows), len(RATIOS), len(genes)))
                for place, ratio in enumerate(RATIOS.tolist()):
                    gain = (of_group * ratio * across + of_controls) / (
                        1.0 + of_group * ratio * self.values
                    )
                    means[:, place] = gain @ scores[:, genes]
                of_sets = np.stack([share[:, genes] for share in shares])
                yield _Told(rows, genes, group, means, of_sets[member], unknown)


@dataclass(frozen=True)
class _Unknown:
    """What is not known of conditions: the variance of signal and noise of their controls before.

    ``signal`` and ``noise``, ``(n_asked,)``; what takes of it are their covariances with what was
    measured, ``across`` and ``of_controls``, ``(n_asked, n)``, in the axes in which the measured
    signal has ``values`` and all of the noise is the identity: what was measured is no surer.
    """

    process: ShiftProcess
    asked: Conditions
    noise: np.ndarray
    across: np.ndarray
    of_controls: np.ndarray
    values: np.ndarray

    @classmethod
    def of(
        cls, process: ShiftProcess, asked: Conditions, across: np.ndarray, of_controls: np.ndarray
    ) -> "_Unknown":
        """Put conditions beside what was measured; covariances in the process's axes."""
        noise = of_controls.any(axis=1) / asked.n_controls
        # From the axes of a part of the noise to those of all of it.
        to_all = np.sqrt(NOISE_WEIGHT)
        values = NOISE_WEIGHT * process.values
        return cls(process, asked, noise, to_all * across, to_all * of_controls, values)

    @cached_property
    def signal(self) -> np.ndarray:
        """Variance of the signal before, for whom it is asked: one condition after the other."""
        learnt = (self.process.parts, self.process.variances)
        own = [self.asked.rows(np.asarray([row])) for row in range(len(self.asked))]
        return np.asarray([one.covariance(one, *learnt)[0, 0] for one in own], float)

    def variance(self, sizes: np.ndarray) -> np.ndarray:
        """Return the variance at each size of the signal, ``(n_asked, n_sizes)``."""
        gain = 1.0 / (1.0 + self.values[:, None] * sizes)
        known = self.across**2 @ (sizes**2 * gain) + self.of_controls**2 @ gain
        known += 2.0 * (self.across * self.of_controls) @ (sizes * gain)
        before = sizes * self.signal[:, None] + self.noise[:, None]
        return np.asarray((before - known).clip(0.0))


@dataclass(frozen=True)
class _Told:
    """What is expected of some conditions ``rows`` and a group's genes, and what is not known.

    ``means`` at each ratio and the ratios' probabilities ``shares``, ``(n_rows, R, n_genes)``.
    """

    rows: np.ndarray
    genes: np.ndarray
    group: int
    means: np.ndarray
    shares: np.ndarray
    unknown: _Unknown

    @property
    def mean(self) -> np.ndarray:
        """Over the ratios, ``(n_rows, n_genes)``."""
        return np.asarray((self.shares * self.means).sum(axis=1))


def _prior(parts: np.ndarray) -> np.ndarray:
    effects = effects_of(parts)
    of_effect = _PRIOR | (_PRIOR_WITH_EMBEDDINGS if "like" in effects else {})
    return np.asarray([of_effect.get(effect, _PRIOR_OF_OTHERS) for effect in effects.tolist()])


def _noise(conditions: Conditions) -> np.ndarray:
    return np.diag(1.0 / conditions.n_cells) + conditions.noise_of_controls(conditions)


def _groups(conditions: Conditions, shift: np.ndarray) -> list[np.ndarray]:
    """Return the genes of each group, from those that respond least to the strongest."""
    noise = 1.0 / conditions.n_cells + 1.0 / conditions.n_controls
    strength = (shift**2 / noise[:, None]).mean(axis=0)
    order = np.argsort(strength, kind="stable")
    return [genes for genes in np.array_split(order, _N_GROUPS) if len(genes)]


def _learnt(
    conditions: Conditions, shift: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which parts count, their variances in the last group, and the sizes of all groups."""
    kernels = conditions.kernels(conditions)
    parts = distinct(kernels)
    kernels = kernels[parts]
    noise = _noise(conditions)
    strongest = likeliest(kernels, noise, shift[:, groups[-1]], _prior(parts), _PRIOR_WEIGHT)
    whole = np.tensordot(strongest, kernels, 1)
    sizes = likeliest_sizes(whole, noise, [shift[:, genes] for genes in groups[:-1]])
    return parts, strongest, np.asarray([*sizes, 1.0])
