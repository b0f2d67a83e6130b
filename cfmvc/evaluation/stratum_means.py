"""Means of the real cells of scored conditions, of which those of a stratum are told apart."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cfmvc.evaluation.conditions import Condition, Stratum

Array = NDArray[np.float64]


class StratumMeans:
    """One array for each stratum, which all its conditions share: there may be no room for more.

    Parameters
    ----------
    means
        Mean of each condition, ``(n_genes,)``.
    """

    def __init__(self, means: Mapping[Condition, Array]) -> None:
        self._members: dict[Stratum, list[Condition]] = {}
        for condition in means:
            self._members.setdefault(condition.stratum, []).append(condition)
        self._means = {
            stratum: np.stack([means[condition] for condition in members])
            for stratum, members in self._members.items()
        }

    def beside(self, condition: Condition) -> tuple[Array, NDArray[np.int64]]:
        """Return the means of a condition's stratum, ``(n, n_genes)``, and rows of others.

        Others are those of other perturbations: another dose of the same one is none.
        """
        own, members = condition.treatment.perturbation, self._members[condition.stratum]
        is_other = [one.treatment.perturbation != own for one in members]
        return self._means[condition.stratum], np.flatnonzero(is_other)
