"""What stands in for a trial of minutes: a model of the values of real trials."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from benchmarks.samplers.trials import VALUE
from cfmvc.tuning.config import Choice, Range
from cfmvc.tuning.space import Space, Values

_N_ALIKE = 20  # trials whose errors may be the noise of one value


class Model(Protocol):
    """What sklearn's regressors have in common."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Any: ...

    def predict(self, x: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Kind:
    """A kind of surrogate: how it is made, and how it predicts trials that it has not seen."""

    make: Callable[[int], Model]
    left_out: Callable[[Model, np.ndarray, np.ndarray], np.ndarray]
    words: str


class _Trees(ExtraTreesRegressor):
    """Extra trees, asked one after the other: for one trial, sklearn's threads cost far more."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        single = np.asarray(x, dtype=np.float32)
        return np.mean([tree.tree_.predict(single)[:, 0] for tree in self.estimators_], axis=0)


def _forest(n_columns: int) -> Model:
    return _Trees(500, bootstrap=True, oob_score=True, max_features=0.7, random_state=0)


def _smooth(n_columns: int) -> Model:
    kernel = ConstantKernel() * RBF(np.full(n_columns, 2.0), (0.3, 30.0)) + WhiteKernel(0.1)
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)


def _out_of_bag(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(model.oob_prediction_)  # type: ignore[attr-defined]


def _one_left_out(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    fixed = GaussianProcessRegressor(model.kernel_, optimizer=None, normalize_y=True)  # type: ignore[attr-defined]
    return np.asarray(cross_val_predict(fixed, x, y, cv=LeaveOneOut()))


# Trees make steps, a Gaussian process makes slopes, and each may suit some sampler.
KINDS = {
    "forest": Kind(_forest, _out_of_bag, "300 extra trees; of trials out of the bag"),
    "smooth": Kind(_smooth, _one_left_out, "Gaussian process; of one trial left out at a time"),
}


@dataclass(frozen=True)
class Surrogate:
    """The logarithm of a trial's value as a function of its parameters.

    Parameters
    ----------
    space
        What is searched.
    model
        Of the encoded parameters.
    predicted, residuals
        Of real trials, each predicted by a model that has not seen it, in the order of predictions;
        residuals are around their mean, and are noise and what the model does not know.
    r2, r2_of_best
        Share of the variance that such predictions explain: of all trials, and of the best third,
        among which the large differences are none that are easy to learn.
    """

    space: Space
    model: Model
    predicted: np.ndarray
    residuals: np.ndarray
    r2: float
    r2_of_best: float

    @classmethod
    def of(cls, kind: Kind, space: Space, table: pd.DataFrame) -> "Surrogate":
        """Fit a surrogate to trials; those without a value are left out."""
        known = table[np.isfinite(table[VALUE])]
        x, y = encoded(space, known.to_dict("records")), np.log(known[VALUE].to_numpy())
        model = kind.make(x.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # length scales at their bounds
            model.fit(x, y)
        predicted = kind.left_out(model, x, y)
        wrong, best, order = y - predicted, y <= np.quantile(y, 1 / 3), np.argsort(predicted)
        residuals = (wrong - wrong.mean())[order]
        r2s = (_r2(y, predicted), _r2(y[best], predicted[best]))
        return cls(space, model, predicted[order], residuals, *r2s)

    def __call__(self, values: Values) -> float:
        """Return the value of a trial, without noise."""
        return float(np.exp(self.model.predict(encoded(self.space, [values]))[0]))

    def with_noise(self, value: float, draw: float) -> float:
        """Return a value as a trial would have seen it: with the error of a trial alike.

        Parameters
        ----------
        value
            Without noise.
        draw
            From 0 to 1; which of the trials whose values were predicted to be nearly that one.
        """
        at = int(np.searchsorted(self.predicted, np.log(value))) - _N_ALIKE // 2
        first = min(max(at, 0), len(self.predicted) - _N_ALIKE)
        return value * float(np.exp(self.residuals[first + int(draw * _N_ALIKE)]))


def _r2(y: np.ndarray, predicted: np.ndarray) -> float:
    return 1 - float(np.sum((y - predicted) ** 2) / np.sum((y - y.mean()) ** 2))


def encoded(space: Space, trials: list[dict[Any, Any]]) -> np.ndarray:
    """Return one row a trial: numbers and their choices from 0 to 1, each word a column.

    What a trial's conditions exclude is a number of 0.5, or none of the words.
    """
    columns = []
    for name, entry in space.entries.items():
        column = [trial.get(name) for trial in trials]
        if isinstance(entry, Choice) and isinstance(entry.choices[0], str):
            columns += [[float(value == word) for value in column] for word in entry.choices]
        else:
            columns.append([0.5 if pd.isna(value) else _place(entry, value) for value in column])
    return np.array(columns).T


def _place(entry: Range | Choice, value: Any) -> float:
    if isinstance(entry, Choice):
        return sorted(entry.choices).index(value) / max(len(entry.choices) - 1, 1)
    low, high, at = (np.log(v) if entry.log else v for v in (entry.low, entry.high, value))
    return float((at - low) / (high - low))
