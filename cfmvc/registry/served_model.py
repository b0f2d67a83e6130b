"""The registered model as MLflow runs it: this very file lies in the model's folder.

MLflow's "models from code": loading executes this file and reads safetensors and JSON; there is no
pickle anywhere.
"""

import threading
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from cfmvc.models import load_bundle
from cfmvc.registry.model_folder import DEFAULTS
from cfmvc.stages import predict_cells
from cfmvc.stages.prediction import asked_of

# Draws come from generators of the process, and a server answers several requests at once.
_ONE_AT_A_TIME = threading.Lock()


class VirtualCells(PythonModel):
    """Generates cells of the conditions asked for."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle."""
        self._bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return one row a cell: its condition, and one float column a gene.

        Parameters
        ----------
        context
            Not used: the model is in memory.
        model_input
            Columns ``perturbation, batch, cell_type, n_cells`` and optionally ``dose``.
        params
            ``seed``; ``use_mean`` (expectation instead of sampled counts); ``n_steps`` and
            ``method`` of the integration.

        Raises
        ------
        UnknownLabelError
            If the model does not know a label.
        """
        chosen = {**DEFAULTS, **(params or {})}
        asked = model_input
        if "dose" in asked and asked["dose"].isna().all():
            asked = asked.drop(columns="dose")
        with _ONE_AT_A_TIME:
            prediction = predict_cells(
                self._bundle,
                asked,
                seed=int(chosen["seed"]),
                n_steps=int(chosen["n_steps"]),
                method=str(chosen["method"]),
            )
        for words in prediction.warnings:
            warnings.warn(words, stacklevel=2)
        cells = prediction.cells
        values = cells.layers["mean"] if chosen["use_mean"] else cells.layers["counts"].toarray()
        genes = pd.DataFrame(values, columns=list(cells.var_names)).astype("float32")
        # the model's own controls have no names that would mean anything elsewhere
        return pd.concat([_as_text(asked_of(cells.obs)).reset_index(drop=True), genes], axis=1)


def _as_text(obs: pd.DataFrame) -> pd.DataFrame:
    """Return labels as text: a table for JSON has no use for categories."""
    return obs.astype({name: str for name in obs if obs[name].dtype == "category"})


mlflow.models.set_model(VirtualCells())
