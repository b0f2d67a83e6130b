"""What a version carries as tags, and what the run that registered it keeps."""

import math
from collections.abc import Mapping
from typing import Any

from cfmvc.evaluation.result import MODEL

BUNDLE_TAG = "cfmvc.bundle_sha256"
CODE_TAG = "cfmvc.code_sha256"
EVALUATION_TAG = "cfmvc.evaluation_sha256"
FILES_TAG = "cfmvc.files_sha256"  # all files of the MLflow model, bundle and code among them
MODEL_TAG = "cfmvc.model_id"  # MLflow's databases keep no model id with a version
FIGURE_PREFIX = "metric."
EVALUATION_FILE = "evaluate.json"


def model_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Return the model's own finite figures out of an evaluation."""
    own = evaluation.get(MODEL, evaluation)
    return {
        name: float(value)
        for name, value in own.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
