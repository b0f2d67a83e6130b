"""Pictures of a training, also of one in which not every cell was sound."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cfmvc.evaluation.training_figures import latent_picture
from cfmvc.stages import fit_vae
from cfmvc.training.config import VaeConfig
from tests.training.conftest import training_cells, vae_config

__all__ = ["vae_config"]  # the fixture


def test_a_cell_of_nan_is_left_out_of_the_latents(vae_config: VaeConfig) -> None:
    cells = training_cells(60, 12)
    counts = cells.train.counts
    counts.data[counts.indptr[3]] = np.nan
    bundle, _ = fit_vae(cells, vae_config, torch.device("cpu"))
    figure = latent_picture(bundle, cells)
    points = np.concatenate([drawn.get_offsets() for drawn in figure.axes[0].collections])
    assert len(points) == len(cells.train) - 1
    assert np.isfinite(points).all()


def test_a_single_latent_is_drawn_on_a_line(vae_config: VaeConfig) -> None:
    cells = training_cells(60, 12)
    config = vae_config.model_copy(update={"dim_int": 1})
    bundle, _ = fit_vae(cells, config, torch.device("cpu"))
    figure = latent_picture(bundle, cells)
    points = np.concatenate([drawn.get_offsets() for drawn in figure.axes[0].collections])
    assert len(points) == len(cells.train)
    assert np.ptp(points[:, 0]) > 0.0 == np.ptp(points[:, 1])


def test_labels_of_any_kind_stand_in_the_legend(vae_config: VaeConfig, tmp_path: Path) -> None:
    cells = training_cells(60, 12)
    bundle, _ = fit_vae(cells, vae_config, torch.device("cpu"))
    labels = ("a$x_$", "_hidden")
    vocabulary = replace(bundle.vocabulary, cell_types=labels)
    figure = latent_picture(replace(bundle, vocabulary=vocabulary), cells)
    figure.savefig(tmp_path / "latents.png")
    (legend,) = [axes.get_legend() for axes in figure.axes if "cell type" in axes.get_title()]
    assert {text.get_text() for text in legend.get_texts()} == set(labels)
