"""Training: one loop, its objectives and sources of cells, and the doors that users know."""

from cfmvc.training.doors import train_flow_stage, train_vae_stage

__all__ = ["train_flow_stage", "train_vae_stage"]
