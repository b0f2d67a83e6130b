"""Scores of predicted cells against real ones, simple baselines and the data's own ceiling."""

from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.result import Evaluation, View

__all__ = ["METRICS", "EvaluateConfig", "Evaluation", "View", "evaluate"]
