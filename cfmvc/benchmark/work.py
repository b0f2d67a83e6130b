"""The work of a benchmark: fold after fold is trained and scored, by one process or several."""

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cfmvc.benchmark.plan import Job, Plan, hash_of_params
from cfmvc.benchmark.score import SEEDED, FoldScorer, with_seed
from cfmvc.benchmark.scores import FoldScores, ScoreStore
from cfmvc.config import section_of
from cfmvc.errors import CfmvcError
from cfmvc.evaluation.result import MODEL
from cfmvc.tracking.config import TrackingConfig, home_of
from cfmvc.tracking.tracker import NullTracker, Tracker
from cfmvc.tuning.vae_store import VaeStore
from cfmvc.workers import read_order, say

_SHOWN = ("pearson_delta", "energy_distance")


def score_store(workspace: Path) -> ScoreStore:
    """Return where a project keeps the scores of its benchmarks."""
    return ScoreStore(home_of(workspace) / ".cfmvc" / "benchmark" / "scores")


@dataclass(frozen=True)
class Work:
    """Trains and scores what is not there yet.

    Parameters
    ----------
    plan
        The benchmark.
    workspace
        The project's folder.
    parent
        Name of the benchmark's run, of which each fold and seed is a child; None: not tracked.
    """

    plan: Plan
    workspace: Path
    parent: str | None

    def do(self, say: Callable[[str], None]) -> None:
        """Work until every fold and seed is there; those of other processes are waited for."""
        store, taken = score_store(self.workspace), list[Job]()
        with self._runs() as open_run:
            for timeout, jobs in ((0.0, self.plan.jobs), (-1.0, taken)):
                for job in jobs:
                    if store.has(job.key):
                        continue
                    with store.claimed(job.key, timeout) as is_mine:
                        if not is_mine:
                            taken.append(job)
                        elif not store.has(job.key):
                            store.put(job.key, self._scored_or_named(job, open_run))
                            say(self._words(job, store))

    def _scored_or_named(self, job: Job, open_run: Callable[[Job], Any]) -> FoldScores:
        try:
            return self._scored(job, open_run)
        except CfmvcError as error:
            error.args = (f"{self.plan.task}: {job.words}: {error}",)
            raise

    def _scored(self, job: Job, open_run: Callable[[Job], Any]) -> FoldScores:
        home, plan = home_of(self.workspace), self.plan
        vaes = VaeStore(home / ".cfmvc" / "benchmark" / "vae")
        scorer = FoldScorer(plan.data, plan.params, vaes, home / ".cfmvc" / "nan")
        with open_run(job) as (tracker, uid):
            params = with_seed(plan.params, job.seed)
            tracker.log_params(
                {f"{name}.{k}": v for name in SEEDED for k, v in params[name].items()}
            )
            scores = scorer.score(job.fold, job.seed, tracker)
            tracker.log_metrics(figures_of(scores.averages), step=0)
            tracker.log_text(scores.per_condition.to_csv(index=False), "per_condition.csv")
        facts = {
            "task": plan.task,
            "data": plan.data.name,
            "data_sha256": plan.data.sha256,
            "params": hash_of_params(plan.params),
            "number": job.number,
            "run_uid": uid,
        }
        return replace(scores, facts={**scores.facts, **facts})

    @contextmanager
    def _runs(self) -> Iterator[Callable[[Job], Any]]:
        """Give what opens the run of a fold and seed: a tracker and its name."""
        if self.parent is None:
            yield _untracked
            return
        from cfmvc.tracking.child_runs import ChildRuns

        config = section_of(self.plan.params, "tracking", TrackingConfig)
        runs = ChildRuns(self.parent, self.workspace, config)

        @contextmanager
        def tracked(job: Job) -> Iterator[tuple[Tracker, str | None]]:
            uid = uuid.uuid4().hex
            tags = {
                "cfmvc.task": self.plan.task,
                "cfmvc.data": self.plan.data.name,
                "cfmvc.fold": job.fold.name,
                "cfmvc.seed": str(job.seed),
            }
            with runs.open(job.words, uid, tags) as tracker:
                yield tracker, uid

        try:
            yield tracked
        finally:
            runs.settle()

    def _words(self, job: Job, store: ScoreStore) -> str:
        averages = store.get(job.key).averages
        shown = ", ".join(f"{n.replace('_', ' ')} {averages.loc[MODEL, n]:.3f}" for n in _SHOWN)
        n_done = sum(store.has(other.key) for other in self.plan.jobs)
        return f"{self.plan.task}: {job.words}: {shown} ({n_done} of {len(self.plan.jobs)})"


def figures_of(averages: pd.DataFrame) -> dict[str, float]:
    """Return ``{"model.energy_distance": ...}``, without what is not defined."""
    return {
        f"{method}.{metric}": float(value)
        for method, row in averages.iterrows()
        for metric, value in row.dropna().items()
    }


@contextmanager
def _untracked(job: Job) -> Iterator[tuple[Tracker, str | None]]:
    yield NullTracker(), None


def order_of(plan: Plan, path: Path | None, workspace: Path, parent: str | None) -> dict[str, Any]:
    """Return what another process needs to do the same work."""
    return {
        "task": plan.task,
        "path": None if path is None else str(path),
        "params": dict(plan.params),
        "folds": [f"name-{fold.name}" for _, fold in plan.folds],
        "seeds": plan.seeds,
        "workspace": str(workspace),
        "parent": parent,
    }


def main() -> None:
    """Be a worker: read what to do, and do it, or end when nobody waits for it."""
    order = read_order()
    path = None if order["path"] is None else Path(order["path"])
    try:
        plan = Plan.of(order["task"], path, order["params"], order["folds"], order["seeds"])
        Work(plan, Path(order["workspace"]), order["parent"]).do(say)
    except CfmvcError as error:
        print(f"worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
