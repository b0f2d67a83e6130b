"""Stages: config, data and model to the loop; nothing else."""

from cfmvc.stages.flow import fit_flow, fit_joint
from cfmvc.stages.predict import GenerateConfig, Prediction, predict_cells
from cfmvc.stages.vae import TrainingCells, fit_vae

__all__ = [
    "GenerateConfig",
    "Prediction",
    "TrainingCells",
    "fit_flow",
    "fit_joint",
    "fit_vae",
    "predict_cells",
]
