"""CellFlow of cellflow-tools in a process and an environment of its own.

Run by ``benchmarks.cellflow.side`` with the Python of ``make cellflow-env``; it imports nothing of
cfmvc. Each line asks for a training and the cells of some conditions (:func:`predicted`).
"""

import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

warnings.filterwarnings("ignore")

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import pandas as pd  # noqa: E402
from cellflow.model import CellFlow  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402

from benchmarks.reference.answering import Answers, answer_lines  # noqa: E402

_REP, _EMBEDDED = "X_pca", "embedded"
_STRATUM = ["batch", "cell_type"]
_NAMES = ("cellflow-tools", "jax", "ott-jax", "flax", "diffrax")


def predicted(
    cells: str,
    out: str,
    asked: Sequence[dict[str, str]],
    seed: int,
    n_iterations: int,
    n_components: int,
    cells_per_step: int,
    lr: float,
    width: int,
) -> dict[str, Any]:
    """Train on some cells, and carry the real controls of the strata over; tell what it took.

    Parameters
    ----------
    cells
        File of the training cells: log space in ``X``; ``obs`` with ``perturbation``, ``batch``,
        ``cell_type`` and ``is_control``.
    out
        File (``.npz``) for the predicted cells in log space: ``arr_0`` is the first condition's.
    asked
        ``perturbation, batch, cell_type`` of each condition.
    seed
        Of the weights.
    n_iterations, cells_per_step, lr
        Of the training.
    n_components
        Of the PCA in which the flow lives.
    width
        Of the layers of the velocity field; the decoder's are twice as wide, as shipped.
    """
    training, started = anndata.read_h5ad(cells), time.perf_counter()
    pca = PCA(n_components, svd_solver="full")
    training.obsm[_REP] = pca.fit_transform(np.asarray(training.X, np.float64)).astype(np.float32)
    training.uns[_EMBEDDED] = _one_hot(training.obs["perturbation"])
    model = _model(training[_is_answered(training.obs)].copy())
    model.prepare_model(
        condition_embedding_dim=32,
        time_encoder_dims=[width] * 2,
        hidden_dims=[width] * 2,
        decoder_dims=[2 * width] * 2,
        optimizer=optax.adam(lr),
        seed=seed,
    )
    # no validation: there is nothing to look at but what is held out
    model.train(n_iterations, batch_size=cells_per_step, valid_freq=n_iterations + 1)
    seconds = time.perf_counter() - started
    found = [pca.inverse_transform(_carried(model, training, one)) for one in asked]
    np.savez(out, *[one.astype(np.float32) for one in found])
    losses = model.trainer.training_logs["loss"]
    return {"train_seconds": seconds, "loss": float(np.mean(losses[-50:]))}


def _model(training: Any) -> CellFlow:
    """Return CellFlow that is told the perturbation, and pairs within strata.

    It is not told the cell type: what is held out is a type of which it has seen no answer.
    """
    model = CellFlow(training, solver="otfm")
    model.prepare_data(
        sample_rep=_REP,
        control_key="is_control",
        perturbation_covariates={"perturbation": ["perturbation"]},
        perturbation_covariate_reps={"perturbation": _EMBEDDED},
        split_covariates=_STRATUM,
    )
    return model


def _one_hot(labels: Any) -> dict[str, Any]:
    names = sorted(set(labels.astype(str)))
    return dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))


def _is_answered(obs: pd.DataFrame) -> Any:
    """Return the cells of strata with perturbed cells; CellFlow refuses sources without targets."""
    strata = pd.MultiIndex.from_frame(obs[_STRATUM].astype(str))
    return np.asarray(strata.isin(strata[~obs["is_control"].to_numpy()]))


def _carried(model: CellFlow, training: Any, condition: dict[str, str]) -> Any:
    """Return the stratum's real controls, in principal components, as the condition has them."""
    obs = training.obs
    is_source = obs["is_control"].to_numpy().copy()
    for name in _STRATUM:
        is_source &= (obs[name].astype(str) == condition[name]).to_numpy()
    wanted = pd.DataFrame([{**condition, "is_control": False}])
    (answer,) = model.predict(training[is_source].copy(), wanted, sample_rep=_REP).values()
    return np.asarray(answer, np.float64)


def start() -> tuple[dict[str, Any], Answers]:
    """Answer with the versions first."""
    return {name: version(name) for name in _NAMES}, predicted


if __name__ == "__main__":
    answer_lines(start)
