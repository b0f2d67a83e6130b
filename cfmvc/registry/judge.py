"""The gate at work: candidate and champion generate the same cells, and are compared on them."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anndata import AnnData

from cfmvc.config import section_of
from cfmvc.data.prepared import control_of, separator_of
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.report import to_html
from cfmvc.evaluation.result import Evaluation
from cfmvc.evaluation.table import to_csv, to_text
from cfmvc.registry.config import REGISTER_AGAIN, GateConfig
from cfmvc.registry.contestant import CANDIDATE_ROLE, CHAMPION_ROLE, Contestant, Void
from cfmvc.registry.evaluation_set import EvaluationSet
from cfmvc.registry.fetch import fetch_bundle
from cfmvc.registry.gate import CHAMPION_NAME, Facts, Verdict, decide
from cfmvc.registry.gate_table import verdict_text
from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.promote import Judgement
from cfmvc.registry.registry import Registry
from cfmvc.registry.tags import BUNDLE_TAG
from cfmvc.registry.training_facts import NAN_STEPS_TAG, PEAK_MEMORY_TAG, recorded
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.predict import GenerateConfig
from cfmvc.tracking.spool_tracker import SpoolTracker

_CELLS_TIMED = 1000


@dataclass(frozen=True)
class GateSections:
    """What ``params.yaml`` says of a judgement, read before any work: a fault shows at once.

    Parameters
    ----------
    compute, generate, evaluate, gate
        The sections of these names.
    """

    compute: ComputeConfig
    generate: GenerateConfig
    evaluate: EvaluateConfig
    gate: GateConfig

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "GateSections":
        """Read them.

        Raises
        ------
        ConfigError
            If one is missing, or has faults.
        """
        return cls(
            section_of(params, "compute", ComputeConfig),
            section_of(params, "generate", GenerateConfig),
            section_of(params, "evaluate", EvaluateConfig),
            section_of(params, "gate", GateConfig),
        )


@dataclass
class GateJudge:
    """Judges by the gate of a project.

    Parameters
    ----------
    registry
        Where the versions are.
    project
        Its folder, with the evaluation set.
    sections
        What its ``params.yaml`` says.
    tracker
        Of the run that keeps the evidence.
    say
        Told what is being done.
    champion, verdict
        Who the candidate was compared with, and what came of it, once it has judged.
    """

    registry: Registry
    project: Path
    sections: GateSections
    tracker: SpoolTracker
    say: Callable[[str], None] = lambda words: None
    champion: int | None = None
    verdict: Verdict | None = None

    def __call__(self, candidate: int, champion: int | None) -> Judgement:
        """Compare a version with the baselines, and with the champion if there is one."""
        self.champion = champion
        frozen = EvaluationSet.of_project(self.project)
        evidence = {
            "data_md5": frozen.md5,
            "git_commit": self.tracker.lineage.get("cfmvc.git_commit", ""),
            "git_dirty": self.tracker.lineage.get("cfmvc.git_dirty", ""),
            "run_uid": self.tracker.uid,
        }
        self.tracker.set_tags({"cfmvc.evaluation_data_md5": frozen.md5})
        try:
            own = self._opened(frozen, candidate, CANDIDATE_ROLE)
            generated, seconds = self._timed(frozen, own)
            rivals = {"latent_arithmetic": self._generated(frozen, own, "arithmetic")}
        except Void as void:  # nothing that such a model predicts is worth a table
            return Judgement(False, (str(void),), evidence)
        void_words = None
        try:
            if champion is not None:
                other = self._opened(frozen, champion, CHAMPION_ROLE)
                rivals[CHAMPION_NAME] = self._generated(frozen, other)
        except Void as void:
            void_words = str(void)
        self.say("scoring")
        names = control_of(frozen.cells), separator_of(frozen.cells)
        evaluation = evaluate(frozen.cells, generated, self.sections.evaluate, *names, rivals)
        facts = self._facts(candidate, seconds)
        self.verdict = decide(evaluation, self.sections.gate, facts, void=void_words)
        figures = {c.metric: c.candidate for c in self.verdict.comparisons}
        evidence["metrics"] = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._keep(evaluation, self.verdict, candidate, champion, frozen.md5)
        return Judgement(self.verdict.is_passed, self.verdict.reasons, evidence)

    def _opened(self, frozen: EvaluationSet, version: int, role: str) -> Contestant:
        folder = fetch_bundle(f"models:/{self.registry.name}/{version}", self.project)
        _expect_as_registered(folder, version, role, self.registry.hashes().get(version, ""))
        device = use(self.sections.compute.device, self.sections.compute.n_threads)
        return Contestant.opened(version, role, folder, device, frozen)

    def _timed(self, frozen: EvaluationSet, own: Contestant) -> tuple[AnnData, float]:
        """Return the cells, and how long 1,000 of them took."""
        started = time.perf_counter()
        generated = self._generated(frozen, own)
        return generated, (time.perf_counter() - started) * _CELLS_TIMED / generated.n_obs

    def _generated(
        self,
        frozen: EvaluationSet,
        contestant: Contestant,
        by: Literal["flow", "arithmetic"] = "flow",
    ) -> AnnData:
        self.say(f"version {contestant.version}: generating cells by {by}")
        return contestant.generated(frozen, self.sections.generate, by)

    def _facts(self, candidate: int, predict_seconds: float) -> Facts:
        tags = self.registry.version(str(candidate)).tags
        nan_steps, peak = recorded(tags, NAN_STEPS_TAG), recorded(tags, PEAK_MEMORY_TAG)
        return Facts(None if nan_steps is None else int(nan_steps), peak, predict_seconds)

    def _keep(
        self,
        evaluation: Evaluation,
        verdict: Verdict,
        candidate: int,
        champion: int | None,
        data_md5: str,
    ) -> None:
        """Log what the decision rests on."""
        log = self.tracker.log_text
        log(json.dumps(verdict.as_json(), indent=2) + "\n", "gate/verdict.json")
        log(verdict_text(verdict, candidate, champion), "gate/verdict.txt")
        log(to_text(evaluation), "gate/evaluation.txt")
        log(to_csv(evaluation), "gate/per_condition.csv")
        compared = ""
        if champion is not None:
            how = "not compared" if verdict.void else "among the baselines"
            compared = f", champion version {champion} {how}"
        what = {
            "Model": f"models:/{self.registry.name}/{candidate}{compared}",
            "Data": f"md5 {data_md5}",
            "Verdict": "; ".join(verdict.reasons),
        }
        title = f"{self.registry.name}, version {candidate}: for the gate"
        log(to_html(evaluation, title, what), "gate/report.html")
        figures = {
            f"{comparison.metric}/against_{comparison.rival}/{name}": value
            for comparison in verdict.comparisons
            for name, value in (("gain", comparison.gain), ("at_least", comparison.at_least))
        }
        self.tracker.log_metrics(figures, step=0)


def _expect_as_registered(folder: Path, version: int, role: str, told: str) -> None:
    """Raise unless a bundle has the hash of its version: weights and seen cells may be edited."""
    found = sha256_of_folder(folder)
    if found != told:
        raise Void(
            f"void: version {version} ({role}) is not what was registered: the files of its model "
            f"in the store have the sha256 {found[:12]}, its tag {BUNDLE_TAG} says "
            f"{told[:12] or 'nothing'}. `cfmvc registry verify {version}` says more; do not use "
            f"it, {REGISTER_AGAIN}"
        )
