r"""How alike the shifts of two conditions are expected to be: the parts of a covariance.

Two shifts have the covariance

.. math:: \sum_e \sum_c \sigma^2_{ec}\, k_e(p, p')\, k_c(s, s').

For the perturbations: *any* (:math:`a(p) a(p')`, what all of them share; ``a`` is the sum of the
vector, at most 1), *same* (:math:`p \cdot p'`, so that a combination is the sum of its parts, times
the gain), *together* (pairs that both have, what a combination has beyond its parts), *in company*
(*same* between combinations alone: what a perturbation does there and not alone), *bent* (columns
in common times their bends: by how much a gene departs from the dose curve of its perturbation,
which is that of all genes) and, where there are embeddings, which reach perturbations that were
never seen, *like* (the product of embeddings as they were given) and *unlike* (that of their
deviations from the middle: what tells one from the others). The zero of embeddings may mean
something or not; from their middle a new one is always on the side where the others are not, so
that of a few known ones too much would follow for it. For the contexts: everywhere, same batch,
same cell type, same stratum, and like controls (the product of the strata's mean controls in
principal components). All parts are positive semidefinite, and each is 0 for no perturbation.
"""

from dataclasses import dataclass

import numpy as np

from cfmvc.data.prepared import LEAST_CONTROLS

N_STATE = 5  # principal components of the strata's mean controls
_EFFECTS = np.asarray(["any", "same", "together", "in company", "bent", "like", "unlike"])
_TOLD = ("like", "unlike")  # by embeddings
_N_CONTEXTS = 5


@dataclass(frozen=True)
class Conditions:
    """Conditions, and what their covariance is computed of.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``, as strong as they act.
    batch, cell_type
        Column numbers, ``(n,)``.
    n_cells, n_controls
        Cells behind the means of the condition and of its stratum's controls, ``(n,)``.
    state
        Scores of the stratum's mean control, ``(n, S)``, from a :class:`StateBasis`.
    embedding, deviation
        Sums of the perturbations' embeddings and of their deviations from the middle, ``(n, E)``;
        E is 0 where there are none.
    gain
        What each perturbation's effect is multiplied by (:mod:`~cfmvc.flow.combination_gain`),
        ``(n,)``.
    """

    p: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    n_cells: np.ndarray
    n_controls: np.ndarray
    state: np.ndarray
    embedding: np.ndarray
    deviation: np.ndarray
    gain: np.ndarray

    def __len__(self) -> int:
        return len(self.p)

    @property
    def is_combination(self) -> np.ndarray:
        """Whether a condition has more than one perturbation, ``(n,)`` bool."""
        return np.asarray(np.count_nonzero(self.p, axis=1) > 1)

    def rows(self, chosen: np.ndarray) -> "Conditions":
        """Return some of the conditions."""
        return Conditions(**{name: values[chosen] for name, values in vars(self).items()})

    def kernels(self, others: "Conditions") -> np.ndarray:
        """Return all parts of the covariance with others, ``(n_parts, n, n_others)``.

        The others have as many scores of the controls. Without embeddings there are no parts that
        these tell, which come last.
        """
        effects, contexts = self._effects(others), self._contexts(others)
        found = np.empty((len(effects), len(contexts), len(self), len(others)))
        for of_effect, effect in zip(found, effects, strict=True):
            for part, context in zip(of_effect, contexts, strict=True):
                np.multiply(effect, context, out=part)
        return found.reshape(-1, len(self), len(others))

    def covariance(
        self, others: "Conditions", parts: np.ndarray, variances: np.ndarray
    ) -> np.ndarray:
        """Return the sum of parts of the covariance, each times its variance, ``(n, n_others)``."""
        effects, contexts = self._effects(others), self._contexts(others)
        found = np.zeros((len(self), len(others)))
        for part, variance in zip(parts.tolist(), variances.tolist(), strict=True):
            effect, context = divmod(part, len(contexts))
            found += variance * effects[effect] * contexts[context]
        return found

    def noise_of_controls(self, others: "Conditions") -> np.ndarray:
        """Return the covariance of shifts that are taken from the same controls' mean.

        Of two means of a stratum, of which one is of some of the other's cells, the noise that they
        share is that of the larger number.
        """
        same = self._same("batch", others) & self._same("cell_type", others)
        return np.asarray(same / np.maximum(self.n_controls[:, None], others.n_controls[None]))

    def _effects(self, others: "Conditions") -> tuple[np.ndarray, ...]:
        strength, their_strength = (np.minimum(1.0, c.p.sum(1)) for c in (self, others))
        found = np.outer(strength, their_strength), *self._of_columns(others)
        if not self.embedding.shape[1]:
            return found
        told = self.embedding @ others.embedding.T, self.deviation @ others.deviation.T
        return (*found, *told)

    def _of_columns(self, others: "Conditions") -> tuple[np.ndarray, ...]:
        """Return *same*, *together*, *in company* and *bent*."""
        same = self.p @ others.p.T
        both = np.outer(self.is_combination, others.is_combination)
        none = np.broadcast_to(0.0, same.shape)  # of many, there is no room for zeros
        pairs = in_company = bent = none
        if both.any():
            pairs = (same**2 - self.p**2 @ (others.p**2).T) / 2.0
            in_company = same * both
        mine, theirs = (((c.p > 0.0) & (c.p != 1.0)).any(axis=0) for c in (self, others))
        if (mine & theirs).any():
            bent = bend(self.p[:, mine & theirs]) @ bend(others.p[:, mine & theirs]).T
        same *= self.gain[:, None]
        same *= others.gain
        return same, pairs, in_company, bent

    def _contexts(self, others: "Conditions") -> tuple[np.ndarray, ...]:
        batch, cell_type = self._same("batch", others), self._same("cell_type", others)
        state = self.state @ others.state.T
        return (np.ones_like(batch), batch, cell_type, batch & cell_type, state)

    def _same(self, name: str, others: "Conditions") -> np.ndarray:
        return np.asarray(getattr(self, name)[:, None] == getattr(others, name)[None])


@dataclass(frozen=True)
class StateBasis:
    """Principal components of the strata's mean controls, in which the largest score is 1.

    Parameters
    ----------
    centre
        Mean over the strata, ``(D,)``.
    axes
        Principal axes over the largest score, ``(S, D)``; S is 0 for a single stratum.
    """

    centre: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, controls: np.ndarray, n_cells: np.ndarray | None = None) -> "StateBasis":
        """Look at the mean controls of strata.

        Parameters
        ----------
        controls
            ``(n_strata, D)``.
        n_cells
            Controls of each; those that have a few alone are not looked at, if others do: the
            mean of two cells lies farther out than any cell type.
        """
        if n_cells is not None and (is_known := n_cells >= LEAST_CONTROLS).sum() > 1:
            controls = controls[is_known]
        centre = controls.mean(axis=0)
        left, sizes, right = np.linalg.svd(controls - centre, full_matrices=False)
        n = min(N_STATE, len(controls) - 1)
        largest = np.abs(left[:, :n] * sizes[:n]).max(initial=0.0)
        return cls(centre, right[:n] / (largest if largest > 0 else 1.0))

    def scores(self, controls: np.ndarray) -> np.ndarray:
        """Return the scores of mean controls ``(n, D)``, shape ``(n, S)``."""
        return np.asarray((controls - self.centre) @ self.axes.T)


def bend(strength: np.ndarray) -> np.ndarray:
    r"""Return how far a gene may be from the dose curve of all genes, ``(n, 2 K)``.

    The derivative of a curve of Hill with respect to its saturation is in proportion to
    :math:`s (1 - s)`: nothing without a dose, and nothing at the largest one, to which curves are
    relative. Beyond that it goes on along its tangent, as far as twice the response: no gene is to
    be carried away by what it does below. How far it leaves this is known of none, which is the
    second half: a parabola, and from twice the response on its tangent.

    Parameters
    ----------
    strength
        How strongly doses act, ``(n, K)``.
    """
    beyond = np.maximum(strength - 1.0, 0.0)
    own = np.where(beyond > 0.0, -np.minimum(beyond, 1.0), strength * (1.0 - strength))
    left = np.where(beyond < 1.0, beyond**2, 2.0 * beyond - 1.0)
    return np.concatenate([own, left], axis=1)


def effects_of(parts: np.ndarray) -> np.ndarray:
    """Return what of the perturbations the covariance's parts, by their numbers, hang on."""
    return _EFFECTS[parts // _N_CONTEXTS]


def distinct(kernels: np.ndarray) -> np.ndarray:
    """Return the numbers of the parts that are neither empty nor equal to an earlier one.

    Parts that embeddings tell are compared among themselves: what equals another part on what was
    measured differs from it elsewhere.
    """
    kept: list[int] = []
    is_told = np.isin(effects_of(np.arange(len(kernels))), _TOLD)
    for number, part in enumerate(kernels):
        alike = [other for other in kept if is_told[other] == is_told[number]]
        if part.any() and not any(np.allclose(part, kernels[other]) for other in alike):
            kept.append(number)
    return np.asarray(kept, dtype=np.int64)
