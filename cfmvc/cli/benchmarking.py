"""The work behind ``cfmvc benchmark``."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import NotAllowed
from cfmvc.benchmark.plan import Plan
from cfmvc.benchmark.report import to_json, write_summary
from cfmvc.benchmark.run import benchmark
from cfmvc.benchmark.scores import scores_below
from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.tasks import TASKS, task_of
from cfmvc.benchmark.text import to_text
from cfmvc.config import default_params_file, override, read_yaml, section_of
from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.errors import ConfigError, DataError
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.files import slug
from cfmvc.workers import say


@dataclass(frozen=True)
class Order:
    """What the command line asks for; the names are its options."""

    data: Path | None
    task: str | None
    seeds: int | None
    seed: list[int]
    folds: list[str]
    settings: list[str]
    out: Path | None
    workers: int
    track: bool


@dataclass
class Benchmarks:
    """What came out of it, and where it lies.

    Parameters
    ----------
    summaries
        By folder.
    not_allowed
        Why the data do not allow a task, by its name.
    """

    summaries: dict[Path, Summary] = field(default_factory=dict)
    not_allowed: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        done = [{**to_json(one), "out": str(out)} for out, one in self.summaries.items()]
        return {"benchmarks": done, "not_allowed": self.not_allowed}


_TOO_LITTLE = (
    "nothing there can be scored: too few cells (evaluate.min_cells; of a batch "
    f"benchmark.min_cells_to_rank), or fewer than {LEAST_CONTROLS} controls"
)


def benchmarked(workspace: Path, order: Order) -> Benchmarks:
    """Carry out one task, or all that the data allow.

    Raises
    ------
    ConfigError
        If there is no such task, fold or parameter.
    DataError
        If the data do not allow the task, or any of them.
    """
    if order.track and find_spec("mlflow") is None:
        raise ConfigError("this needs MLflow: pip install 'cfmvc[pipeline]', or give --no-track")
    if order.folds and order.task is None:
        raise ConfigError("--folds: folds are those of a task; name it with --task")
    if order.seeds is not None and order.seed:
        raise ConfigError("--seeds is a number of seeds, --seed a seed; give one of them")
    params = _params(workspace, order.settings)
    seeds = order.seed or list(range(order.seeds or 0))
    result = Benchmarks()
    if order.task is not None:
        task_of(order.task)
    for task in TASKS if order.task is None else [order.task]:
        try:
            plan = Plan.of(task, order.data, params, order.folds, seeds)
        except NotAllowed as reason:
            if order.task is not None:
                raise DataError(f"task '{task}': {reason}") from reason
            say(f"{task}: not with these data: {reason}")
            result.not_allowed[task] = str(reason)
            continue
        for words in plan.data.warnings if not result.summaries else ():
            say(f"warning: {words}")
        for name in plan.left_out:
            say(f"{task}: no fold '{name}': {_TOO_LITTLE}")
        out = _out(order, plan)
        result.summaries[out] = benchmark(
            plan, order.data, workspace, out, order.workers, order.track, say
        )
    if not result.summaries:
        reasons = "\n".join(f"  {task}: {why}" for task, why in result.not_allowed.items())
        raise DataError(f"{order.data}: the data allow no task\n{reasons}")
    return result


def described(workspace: Path, data: Path | None, settings: list[str]) -> list[dict[str, Any]]:
    """Return each task with its folds, or why the data do not allow it."""
    params, found = _params(workspace, settings), []
    for name, task in TASKS.items():
        entry: dict[str, Any] = {"task": name, "meaning": task.meaning, "folds": []}
        try:
            plan = Plan.of(name, data, params, [], [])
            entry["folds"] = [
                {"number": number, "name": fold.name, "held_out": fold.held_out}
                for number, fold in plan.folds
            ]
        except NotAllowed as reason:
            entry["not_allowed"] = str(reason)
        found.append(entry)
    return found


def collected(workspace: Path, folders: list[Path], out: Path, settings: list[str]) -> Summary:
    """Write the tables of scores that are there already."""
    params = _params(workspace, settings)
    summary = Summary(scores_below(folders), section_of(params, "evaluate", EvaluateConfig))
    write_summary(summary, out)
    return summary


def benchmarks_text(result: Benchmarks) -> str:
    """Return the tables for a terminal."""
    parts = [
        f"{to_text(one)}\n{out}: table.md, table.csv, by_fold.csv, methods_by_fold.png, folds/"
        for out, one in result.summaries.items()
    ]
    parts += [f"{task}: not with these data: {why}" for task, why in result.not_allowed.items()]
    return "\n".join(parts)


def tasks_text(found: list[dict[str, Any]]) -> str:
    """Return tasks and folds for a terminal."""
    lines = []
    for entry in found:
        lines.append(f"{entry['task']}: {entry['meaning']}")
        if "not_allowed" in entry:
            lines.append(f"   not with these data: {entry['not_allowed']}")
        lines += [
            f"{fold['number']:4}  {fold['name']:24}  {fold['held_out']}" for fold in entry["folds"]
        ]
    return "\n".join(lines)


def _params(workspace: Path, settings: list[str]) -> dict[str, Any]:
    """Return the project's parameters; a file of before this command lacks its section."""
    here, shipped = workspace / "params.yaml", read_yaml(default_params_file())
    params = read_yaml(here) if here.is_file() else shipped
    params = override({"benchmark": shipped["benchmark"], **params}, settings)
    section_of(params, "benchmark", BenchmarkConfig)
    return params


def _out(order: Order, plan: Plan) -> Path:
    if order.out is None:
        return Path("results") / "benchmark" / slug(plan.data.name) / plan.task
    return order.out if order.task is not None else order.out / plan.task
