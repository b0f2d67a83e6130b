"""One trial's work: both stages trained with its parameters, looked at, and scored."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cfmvc.config import Section, section_of
from cfmvc.data.prepared import control_of, separator_of
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.exam import Exam
from cfmvc.evaluation.metrics import METRICS
from cfmvc.models import Bundle
from cfmvc.stages.checkpointing import (
    CheckpointConfig,
    code_hash,
    engine_of,
    fingerprint_of,
    plain_engine,
)
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.flow import expect_trainable, fit_flow, fit_joint
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.predict import GenerateConfig
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.vae import TrainingCells, fit_vae
from cfmvc.tracking.callback import TrackingCallback
from cfmvc.tracking.tracker import Tracker
from cfmvc.training.callbacks import Callback, NoCallback, TrainingState
from cfmvc.training.config import FlowConfig, JointConfig, LoopConfig, VaeConfig
from cfmvc.training.history import History
from cfmvc.training.memory import ExpectedMemory
from cfmvc.tuning.vae_store import StoredVae, VaeCourse, VaeStore
from cfmvc.tuning.validation import TuningCells

_GIB = 1024**3
# What is read beside what can be searched.
_SECTIONS: dict[str, type[Section]] = {
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "compute": ComputeConfig,
    "checkpoint": CheckpointConfig,
}
Report = Callable[[int, Mapping[str, float]], None]
"""Told the number of a look and its figures; may end the trial."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Parameters
    ----------
    figures
        Every metric on the validation conditions, and the costs.
    vae_key
        Which VAE it rests on.
    nan_steps
        Updates that were vetoed in both trainings.
    """

    figures: dict[str, float]
    vae_key: str
    nan_steps: int


@dataclass(frozen=True)
class Trained:
    """A model that some parameters have given.

    Parameters
    ----------
    bundle
        The model.
    vae
        What its first stage was.
    costs
        Of both stages: ``train_seconds`` and ``peak_memory_gib``.
    nan_steps
        Updates that were vetoed in all trainings.
    """

    bundle: Bundle
    vae: StoredVae
    costs: dict[str, float]
    nan_steps: int


@dataclass(frozen=True)
class Trainer:
    """Trains and scores models on the same cells, with one set of parameters after the other.

    Parameters
    ----------
    data
        The cells, their split, and their hash.
    vaes
        Where VAEs are kept.
    n_cells
        Virtual cells of each held-out condition; None: as ``generate`` says.
    n_looks
        Looks at each stage on its way.
    black_boxes
        Folder below which the first non-finite step of a training is kept; None: nowhere.
    """

    data: TuningCells
    vaes: VaeStore
    n_cells: int | None = None
    n_looks: int = 0
    black_boxes: Path | None = None

    @cached_property
    def cells(self) -> TrainingCells:
        """Training and validation cells."""
        return training_cells(self.data.cells)

    def run(
        self,
        params: Mapping[str, Any],
        tracker: Tracker,
        report: Report = lambda number, figures: None,
        on_vae: Callable[[StoredVae], None] = lambda vae: None,
    ) -> Outcome:
        """Train with some parameters, and score what comes out.

        Raises
        ------
        Exception
            Whatever ``report`` raises, and whatever trainings do.
        """
        trained = self.trained(params, tracker, report, on_vae)
        figures = self._score(params, "flow")(trained.bundle) | trained.costs
        return Outcome(figures, trained.vae.key, trained.nan_steps)

    def trained(
        self,
        params: Mapping[str, Any],
        tracker: Tracker,
        report: Report = lambda number, figures: None,
        on_vae: Callable[[StoredVae], None] = lambda vae: None,
    ) -> Trained:
        """Train with some parameters; the VAE is taken from the store where it is there.

        Raises
        ------
        Exception
            Whatever ``report`` raises, and whatever trainings do.
        """
        compute = section_of(params, "compute", ComputeConfig)
        flow = section_of(params, "flow", FlowConfig)
        joint = section_of(params, "joint", JointConfig)
        expect_trainable(flow, joint, self.cells)
        device, boxes = use(compute.device, compute.n_threads), self._folder_of_boxes()
        vae = self._vae(params, device, tracker, report, boxes)
        on_vae(vae)
        started, expected = time.perf_counter(), _Expected()
        engine = plain_engine(compute, boxes)
        watching: list[Callback] = [expected, TrackingCallback(tracker, "flow_")]
        score = self._score(params, "flow")
        looks = _Looks(flow, self.n_looks, self.n_looks, report, score)
        bundle, history = fit_flow(
            vae.bundle, self.cells, flow, device, watching, engine, looks if self.n_looks else None
        )
        if joint.n_epochs:
            watching = [expected, TrackingCallback(tracker, "joint_")]
            bundle, after = fit_joint(bundle, self.cells, joint, flow, device, watching, engine)
            history = history.followed_by(after)
        costs = {
            "train_seconds": vae.course.seconds + time.perf_counter() - started - looks.seconds,
            "peak_memory_gib": max(vae.course.peak_memory_gib, expected.peak_gib),
        }
        return Trained(bundle, vae, costs, vae.course.nan_steps + history.n_vetoed)

    def _vae(
        self,
        params: Mapping[str, Any],
        device: torch.device,
        tracker: Tracker,
        report: Report,
        boxes: Path | None,
    ) -> StoredVae:
        config, compute = section_of(params, "vae", VaeConfig), params["compute"]
        config = config.for_cells(len(self.cells.train))
        key = fingerprint_of(
            [],
            {
                "data": self.data.data_md5,
                "split": self.data.split_sha256,
                "vae": config.model_dump(),
                "precision": compute["precision"],
                "device": device.type,
                "looks": [self.n_looks, self.n_cells],
                **{name: params[name] for name in ("generate", "evaluate") if self.n_looks},
                "code_of_looks": code_hash(("evaluation", "tuning")) if self.n_looks else None,
            },
        )
        stored = self.vaes.get(
            key,
            device,
            lambda folder: self._train_vae(
                params, config, key, device, tracker, report, folder, boxes
            ),
        )
        if not stored.was_trained:
            for number, figures in stored.course.looks:
                report(number, figures)
        return stored

    def _train_vae(
        self,
        params: Mapping[str, Any],
        config: VaeConfig,
        key: str,
        device: torch.device,
        tracker: Tracker,
        report: Report,
        checkpoints: Path,
        boxes: Path | None,
    ) -> tuple[Bundle, VaeCourse]:
        started, expected = time.perf_counter(), _Expected()
        engine = engine_of(
            section_of(params, "compute", ComputeConfig),
            section_of(params, "checkpoint", CheckpointConfig),
            checkpoints,
            key,
            black_boxes=boxes,
        )
        looks = _Looks(config, self.n_looks, 0, report, self._score(params, "arithmetic"))
        watching: list[Callback] = [expected, TrackingCallback(tracker, "vae_"), looks]
        bundle, history = fit_vae(
            self.cells,
            config,
            device,
            watching,
            engine=engine,
            examine=looks if self.n_looks else None,
        )
        seconds = time.perf_counter() - started - looks.seconds
        course = VaeCourse(looks.seen, seconds, expected.peak_gib, history.n_vetoed)
        return bundle, course

    def _folder_of_boxes(self) -> Path | None:
        """Return a folder of a trial's own: others, here or beside it, have the same steps."""
        return self.black_boxes and self.black_boxes / f"trial-{uuid.uuid4().hex[:12]}"

    def _score(self, params: Mapping[str, Any], by: Any) -> Callable[[Bundle], dict[str, float]]:
        """Return what scores a model; of a VAE alone it is what arithmetic in its latents gives."""
        generate = section_of(params, "generate", GenerateConfig)
        if self.n_cells is not None:
            generate = generate.model_copy(update={"n_cells": self.n_cells})

        def score(bundle: Bundle) -> dict[str, float]:
            cells = self.data.cells
            predicted = predict_held_out(
                bundle, cells, control_of(cells), generate, by, each_control=self.n_cells is None
            )
            return self._exam(params).score(predicted.cells)

        return score

    def _exam(self, params: Mapping[str, Any]) -> Exam:
        config = section_of(params, "evaluate", EvaluateConfig)
        if config not in self._exams:
            cells = self.data.cells
            self._exams[config] = Exam.of(cells, config, control_of(cells), separator_of(cells))
        return self._exams[config]

    @cached_property
    def _exams(self) -> dict[EvaluateConfig, Exam]:
        return {}


@dataclass
class _Looks(NoCallback):
    """Looks at a stage a few times on its way, evenly spread over its epochs.

    The last epoch is not among them: what is scored there is the trial's value. What was seen
    before a training was stopped is told once more: its trial is another one now.
    """

    config: LoopConfig
    n_looks: int
    n_before: int
    report: Report
    score: Callable[[Bundle], dict[str, float]]
    seen: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, bundle: Bundle, epoch: int) -> Mapping[str, float]:
        """Score the model if a look is due."""
        due = looks_at(self.config, self.n_looks)
        if epoch not in due:
            return {}
        started = time.perf_counter()
        figures = self.score(bundle)
        self.seconds += time.perf_counter() - started
        self._tell(due.index(epoch), figures)
        return figures

    def on_resume(self, state: TrainingState, history: History) -> None:
        """Tell the looks that the epochs before have kept."""
        due = looks_at(self.config, self.n_looks)
        for row in history.rows:
            figures = {name: row[f"val_{name}"] for name in METRICS if f"val_{name}" in row}
            if row["epoch"] in due and figures:
                self._tell(due.index(int(row["epoch"])), figures)

    def _tell(self, place: int, figures: dict[str, float]) -> None:
        self.seen.append((self.n_before + place + 1, figures))
        self.report(*self.seen[-1])


def expect_sections(params: Mapping[str, Any]) -> None:
    """Check the sections that a trainer reads beside the searched ones, before any trial does.

    Raises
    ------
    ConfigError
        If one is missing, or has faults.
    """
    for name, section in _SECTIONS.items():
        section_of(params, name, section)


def looks_at(config: LoopConfig, n_looks: int) -> Sequence[int]:
    """Return the epochs after which a stage is looked at: validations, the last one left out."""
    every, n_epochs = config.validate_every, config.n_epochs
    validations = list(range(every, n_epochs, every))
    wanted = [n_epochs * (look + 1) / (n_looks + 1) for look in range(n_looks)]
    nearest = [min(validations, key=lambda v: abs(v - epoch)) for epoch in wanted if validations]
    return sorted(set(nearest))


@dataclass
class _Expected(NoCallback):
    """Remembers what a stage was expected to need, beside what the process has already."""

    peak_gib: float = 0.0

    def on_memory(self, expected: ExpectedMemory) -> None:
        """Keep the larger one."""
        self.peak_gib = max(self.peak_gib, expected.estimate.total / _GIB)
