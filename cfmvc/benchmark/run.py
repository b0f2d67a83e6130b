"""A benchmark from its plan to its tables."""

from collections.abc import Callable
from pathlib import Path

from cfmvc.benchmark.owner import BenchmarkRun, benchmark_run
from cfmvc.benchmark.plan import Plan
from cfmvc.benchmark.report import write_summary
from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.work import Work, figures_of, order_of, score_store
from cfmvc.config import section_of
from cfmvc.errors import CfmvcError, ConfigError
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.files import read_json, slug
from cfmvc.tracking.tracker import NullTracker
from cfmvc.workers import work_together


def benchmark(
    plan: Plan,
    path: Path | None,
    workspace: Path,
    out: Path,
    n_workers: int = 1,
    track: bool = True,
    say: Callable[[str], None] = lambda words: None,
) -> Summary:
    """Carry out a benchmark, or what is left of it, and write its tables and picture.

    Parameters
    ----------
    plan
        What is trained and scored.
    path
        The file that the plan's cells were read from; None: they are simulated.
    workspace
        The project's folder.
    out
        Folder of the results; made.
    n_workers
        Processes that work at once.
    track
        Whether MLflow is told.
    say
        Told what happens.

    Raises
    ------
    CfmvcError
        If a fold could not be predicted: none is left out; if ``out`` has results of other cells.
    """
    if path is not None:
        _expect_same_data(out, plan)
    store = score_store(workspace)
    n_there = sum(store.has(job.key) for job in plan.jobs)
    say(
        f"{plan.task} on {plan.data.name}: {len(plan.folds)} fold{'s' * (len(plan.folds) > 1)}, "
        f"seeds {', '.join(map(str, plan.seeds))}; {n_there} of {len(plan.jobs)} are there"
    )
    if not track:
        return _done(plan, path, workspace, out, n_workers, BenchmarkRun(NullTracker()), say)
    with benchmark_run(plan, workspace, n_there == len(plan.jobs)) as run:
        return _done(plan, path, workspace, out, n_workers, run, say)


def _expect_same_data(out: Path, plan: Plan) -> None:
    """Raise where there are results of another file of the same name, which would be mixed up."""
    for file in out.glob("folds/*/facts.json"):
        if read_json(file).get("data_sha256", plan.data.sha256) != plan.data.sha256:
            raise ConfigError(
                f"{out}: holds results of other cells that are called '{plan.data.name}' as well "
                "(or were read by other columns); give another --out, or remove the folder"
            )


def _done(
    plan: Plan,
    path: Path | None,
    workspace: Path,
    out: Path,
    n_workers: int,
    run: BenchmarkRun,
    say: Callable[[str], None],
) -> Summary:
    store = score_store(workspace)
    n_left = sum(not store.has(job.key) for job in plan.jobs)
    if min(n_workers, n_left) > 1:
        order = order_of(plan, path, workspace, run.uid)
        work_together("cfmvc.benchmark.work", [order] * min(n_workers, n_left))
        if missing := [job.words for job in plan.jobs if not store.has(job.key)]:
            raise CfmvcError(
                f"{plan.task}: not there: {'; '.join(missing)}; a worker has failed (see above). "
                "The same command goes on"
            )
    else:
        Work(plan, workspace, run.uid).do(say)
    scores = [store.get(job.key) for job in plan.jobs]
    for job, one in zip(plan.jobs, scores, strict=True):
        one.write(out / "folds" / f"{job.number:02d}-{slug(job.fold.name)}-seed-{job.seed}")
    summary = Summary(scores, section_of(plan.params, "evaluate", EvaluateConfig))
    files = write_summary(summary, out)
    run.tracker.log_metrics(figures_of(summary.means), step=0)
    for file in files:
        run.tracker.log_artifact(file)
    return summary
