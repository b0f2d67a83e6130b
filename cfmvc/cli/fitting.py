"""The work behind ``cfmvc fit``."""

import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from anndata import AnnData

from cfmvc.cli.columns import MAPPED, mapped
from cfmvc.cli.unfinished import Unfinished
from cfmvc.config import Section, default_params_file, override, parse_section, read_yaml
from cfmvc.data.canonical import check_and_load
from cfmvc.data.check_embeddings import useless
from cfmvc.data.config import DataConfig, SplitConfig
from cfmvc.data.embeddings import EMBEDDINGS, expect_covered, read_embeddings
from cfmvc.data.splits import validation_cells
from cfmvc.errors import ConfigError, DataError, listed
from cfmvc.files import md5_of_file
from cfmvc.models import Bundle, save_bundle
from cfmvc.stages.checkpointing import CheckpointConfig, fingerprint_of
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.flow import expect_trainable, fit_flow, fit_joint
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.vae import TrainingCells, fit_vae
from cfmvc.tracking.callback import watchers
from cfmvc.tracking.tracker import NullTracker, Tracker
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.history import History

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class _Settings:
    """The sections that a training from one file rests on."""

    data: DataConfig
    split: SplitConfig
    compute: ComputeConfig
    vae: VaeConfig
    flow: FlowConfig
    joint: JointConfig
    checkpoint: CheckpointConfig

    def fingerprint(self, files: list[Path]) -> str:
        """Hash the data and every section that the weights depend on."""
        values = {
            name: getattr(self, name).model_dump()
            for name in ("data", "split", "compute", "vae", "flow", "joint")
        }
        return fingerprint_of(files, values)

    def as_params(self) -> dict[str, Any]:
        """Return ``{"vae.lr": 0.001, ...}``."""
        sections = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"{name}.{key}": value
            for name, section in sections.items()
            for key, value in section.model_dump().items()
        }


def _covering(path: Path, cells: AnnData, data: DataConfig) -> pd.DataFrame:
    """Read embeddings, and raise a ``DataError`` that names the file if some have none.

    Vectors that tell nothing are warned of.
    """
    found = read_embeddings(path)
    try:
        labels = cells.obs["perturbation"].unique()
        expect_covered(found, labels, data.separator, data.control)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix('embeddings: ')}") from error
    for doubt in useless(found, data.control):
        print(f"warning: {path}: {doubt}", file=sys.stderr)
    return found


def fit_file(
    train: Path,
    out: Path,
    settings: list[str],
    mapping: list[str],
    control: str | None,
    params_file: Path | None,
    track: bool,
    resume: bool = False,
    embeddings: Path | None = None,
    separator: str | None = None,
) -> dict[str, Any]:
    """Validate a file, train all stages on it, write the bundle, and return what was made."""
    file = params_file or default_params_file()
    params = override(_with_sections(file, track), settings)
    chosen = _Settings(
        data=mapped(_section(DataConfig, params, "data"), mapping, control, separator),
        split=_section(SplitConfig, params, "split"),
        compute=_section(ComputeConfig, params, "compute"),
        vae=_section(VaeConfig, params, "vae"),
        flow=_section(FlowConfig, params, "flow"),
        joint=_section(JointConfig, params, "joint"),
        checkpoint=_section(CheckpointConfig, params, "checkpoint"),
    )
    device = use(chosen.compute.device, chosen.compute.n_threads)
    # Given in a table of their own, they stand for those that the file may have.
    named = chosen.data if embeddings is None else chosen.data.model_copy(update={"embeddings": ""})
    adata, faults, _ = check_and_load(train, named, chosen.compute.max_counts_gib * 2**30)
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    if embeddings is not None:
        adata.uns[EMBEDDINGS] = _covering(embeddings, adata, chosen.data)
    adata.obs["split"] = pd.Categorical(
        ["val" if is_val else "train" for is_val in validation_cells(adata.obs, chosen.split)]
    )
    fingerprint = chosen.fingerprint([train, *([embeddings] if embeddings else [])])
    with (
        Unfinished.beside(out, fingerprint, resume, track) as left,
        _tracking(track, params, left) as tracker,
    ):
        tracker.log_params({**chosen.as_params(), "data.path": train})
        tracker.set_tags({"cfmvc.data_md5": md5_of_file(train)})
        cells = training_cells(adata)
        bundle, courses = _fitted(cells, chosen, device, tracker, left)
        save_bundle(bundle, out)
        left.remove()
        if track:
            _draw(tracker, courses, bundle, cells)
    return {
        "model": str(out),
        "n_cells": adata.n_obs,
        "n_genes": len(bundle.gene_names),
        "n_perturbations": len(bundle.vocabulary.perturbations) - 1,
        "n_batches": len(bundle.vocabulary.batches),
        "n_cell_types": len(bundle.vocabulary.cell_types),
        "next": _next_command(train, out, chosen.data),
    }


def _fitted(
    cells: TrainingCells,
    chosen: _Settings,
    device: torch.device,
    tracker: Tracker,
    left: Unfinished,
) -> tuple[Bundle, dict[str, History]]:
    """Train the stages one after the other."""
    expect_trainable(chosen.flow, chosen.joint, cells)
    courses, engine = dict[str, History](), left.engine(chosen.compute, chosen.checkpoint)
    with watchers(tracker, "vae_") as watching:
        bundle, courses["vae"] = left.once(
            "vae",
            device,
            lambda: fit_vae(cells, chosen.vae, device, watching, engine=engine),
            watching,
        )
    with watchers(tracker, "flow_") as watching:
        bundle, courses["flow"] = fit_flow(bundle, cells, chosen.flow, device, watching, engine)
    if chosen.joint.n_epochs:
        with watchers(tracker, "joint_") as watching:
            bundle, courses["joint"] = fit_joint(
                bundle, cells, chosen.joint, chosen.flow, device, watching, engine
            )
    return bundle, courses


def _draw(
    tracker: Tracker, courses: dict[str, History], bundle: Bundle, cells: TrainingCells
) -> None:
    from cfmvc.evaluation.training_figures import latent_picture
    from cfmvc.tracking.course import log_course

    for name, course in courses.items():
        log_course(tracker, name, course, f"{name}_")
    tracker.log_figure(latent_picture(bundle, cells), "latents.png")


def _with_sections(file: Path, track: bool) -> dict[str, Any]:
    """Read a parameter file that has all sections that are needed.

    Raises
    ------
    ConfigError
        If it lacks some; those that it has are listed.
    """
    params = read_yaml(file)
    needed = [field.name for field in fields(_Settings)] + ["tracking"] * track
    missing = [name for name in needed if not isinstance(params.get(name), dict)]
    if missing:
        raise ConfigError(
            f"{file}: no section {listed(missing)}; sections: {listed(params)}; "
            f"copy what is missing from {default_params_file()}"
        )
    return params


def _section(section: type[SectionT], params: dict[str, Any], name: str) -> SectionT:
    return parse_section(section, params[name], name)


def _next_command(train: Path, out: Path, data: DataConfig) -> str:
    """Return a command line that predicts, with the names that this file has for things."""
    shipped = read_yaml(default_params_file())["data"]
    words = ["cfmvc", "predict", "--model", str(out), "--conditions", "conditions.csv"]
    words += ["--controls", str(train), "--out", "pred.h5ad"]
    names = {key: getattr(data, key) for key in MAPPED}
    changed = [f"--map={key}={name}" for key, name in names.items() if name != shipped[key]]
    if data.control != shipped["control"]:
        changed.append(f"--control={data.control}")
    return shlex.join([*words, *changed])


def _tracking(track: bool, params: dict[str, Any], left: Unfinished) -> Any:
    """Return a context with a tracker; MLflow is imported only where it is wanted."""
    if not track:
        nothing: Tracker = NullTracker()
        return nullcontext(nothing)
    if find_spec("mlflow") is None:
        raise ConfigError("--track needs MLflow; pip install 'cfmvc[pipeline]'")
    from cfmvc.tracking import TrackingConfig, stage_run

    config = parse_section(TrackingConfig, params["tracking"], "tracking")
    return stage_run("fit", Path.cwd(), config, resumption=left.resumption)
