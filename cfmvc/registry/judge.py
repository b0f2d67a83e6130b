"""The gate at work: candidate and champion generate the same cells, and are compared on them."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anndata import AnnData

from cfmvc.config import SectionT, section_of
from cfmvc.data.prepared import control_of, separator_of
from cfmvc.errors import CfmvcError
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.report import to_html
from cfmvc.evaluation.result import Evaluation
from cfmvc.evaluation.table import to_csv, to_text
from cfmvc.models import Bundle, load_bundle
from cfmvc.registry.config import GateConfig
from cfmvc.registry.evaluation_set import EvaluationSet
from cfmvc.registry.fetch import fetch_bundle
from cfmvc.registry.gate import CHAMPION_NAME, Facts, Verdict, decide
from cfmvc.registry.gate_table import verdict_text
from cfmvc.registry.promote import Judgement
from cfmvc.registry.registry import Registry
from cfmvc.registry.training_facts import NAN_STEPS_TAG, PEAK_MEMORY_TAG
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.predict import GenerateConfig
from cfmvc.tracking.spool_tracker import SpoolTracker

_CELLS_TIMED = 1000


@dataclass
class GateJudge:
    """Judges by the gate of a project.

    Parameters
    ----------
    registry
        Where the versions are.
    project
        Its folder: the evaluation set, and ``params.yaml``.
    params
        All sections of ``params.yaml``.
    tracker
        Of the run that keeps the evidence.
    say
        Told what is being done.
    champion, verdict
        Who the candidate was compared with, and what came of it, once it has judged.
    """

    registry: Registry
    project: Path
    params: dict[str, Any]
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
        bundles = {v: self._bundle(v) for v in (candidate, champion) if v is not None}
        void = [
            reason
            for version, bundle in bundles.items()
            if (reason := _why_void(version, version == champion, bundle, frozen))
        ]
        if void:
            return Judgement(False, tuple(void), evidence)
        evaluation, predict_seconds = self._evaluated(frozen, bundles, candidate, champion)
        facts = self._facts(candidate, predict_seconds)
        self.verdict = decide(evaluation, self._section("gate", GateConfig), facts)
        own = {c.metric: c.candidate for c in self.verdict.comparisons}
        evidence["metrics"] = ", ".join(f"{name} {value:.4g}" for name, value in own.items())
        self._keep(evaluation, self.verdict, candidate, champion, frozen.md5)
        return Judgement(self.verdict.is_passed, self.verdict.reasons, evidence)

    def _bundle(self, version: int) -> Bundle:
        compute = self._section("compute", ComputeConfig)
        folder = fetch_bundle(f"models:/{self.registry.name}/{version}", self.project)
        return load_bundle(folder, use(compute.device, compute.n_threads))

    def _evaluated(
        self,
        frozen: EvaluationSet,
        bundles: dict[int, Bundle],
        candidate: int,
        champion: int | None,
    ) -> tuple[Evaluation, float]:
        started = time.perf_counter()
        generated = self._generated(frozen, bundles[candidate], candidate)
        seconds = (time.perf_counter() - started) * _CELLS_TIMED / generated.n_obs
        shifted = self._generated(frozen, bundles[candidate], candidate, "arithmetic")
        rivals = {"latent_arithmetic": shifted}
        if champion is not None:
            rivals[CHAMPION_NAME] = self._generated(frozen, bundles[champion], champion)
        self.say("scoring")
        config = self._section("evaluate", EvaluateConfig)
        names = control_of(frozen.cells), separator_of(frozen.cells)
        found = evaluate(frozen.cells, generated, config, *names, rivals)
        return found, seconds

    def _generated(
        self,
        frozen: EvaluationSet,
        bundle: Bundle,
        version: int,
        by: Literal["flow", "arithmetic"] = "flow",
    ) -> AnnData:
        self.say(f"version {version}: generating cells by {by}")
        config = self._section("generate", GenerateConfig)
        try:
            control = control_of(frozen.cells)
            return predict_held_out(bundle, frozen.cells, control, config, by).cells
        except CfmvcError as error:
            raise type(error)(
                f"version {version} cannot predict the held-out conditions of this project: {error}"
            ) from error

    def _facts(self, candidate: int, predict_seconds: float) -> Facts:
        tags = self.registry.version(str(candidate)).tags
        nan_steps, peak = tags.get(NAN_STEPS_TAG), tags.get(PEAK_MEMORY_TAG)
        return Facts(
            None if nan_steps is None else int(nan_steps),
            None if peak is None else float(peak),
            predict_seconds,
        )

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
        compared = "" if champion is None else f", champion version {champion} among the baselines"
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

    def _section(self, name: str, section: type[SectionT]) -> SectionT:
        return section_of(self.params, name, section)


def _why_void(version: int, is_champion: bool, bundle: Bundle, frozen: EvaluationSet) -> str | None:
    """Say why a model cannot be compared on these cells, if it cannot."""
    who = f"version {version} ({'the champion' if is_champion else 'the candidate'})"
    try:
        n_seen = frozen.n_seen(bundle)
    except CfmvcError as error:
        return f"void: {who}: {error}"
    if n_seen == 0:
        return None
    return (
        f"void: {who} was trained on {n_seen:,} of the cells that it would be compared on. Hold "
        "out cells that neither has seen (section split), or train it again on the present split"
    )
