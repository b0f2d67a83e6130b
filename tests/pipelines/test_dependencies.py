"""dvc.yaml names the code that a stage's outputs rest on: held against the imports themselves."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import PROJECT

# Code that shapes no output: words, files, where runs go; and of the models, what a VAE lacks.
NOT_SHAPING = ("errors", "config", "files", "progress", "tracking", "__init__", "cli")
OF_THE_FLOW = {
    f"cfmvc/{name}.py"
    for name in (
        "flow/combination_gain",
        "flow/condition_kernels",
        "flow/couplings",
        "flow/divergences",
        "flow/doses",
        "flow/kept_conditions",
        "flow/local_scales",
        "flow/own_level",
        "flow/paths",
        "flow/shift_process",
        "flow/solvers",
        "flow/state_slopes",
        "flow/stratum_products",
        "flow/variances",
        "models/condition_means",
        "models/context",
        "models/cell_groups",
        "models/control_levels",
        "models/mean_response",
        "models/neighbours",
        "models/prepared_field",
        "models/velocity_field",
        "stages/flow",
        "stages/predict",
    )
}
PICTURES = {f"cfmvc/evaluation/{name}_figures.py" for name in ("gradient", "training")}
TRAINED_FROM = tuple(f"cfmvc/data/{name}" for name in ("ahead", "resident", "samplers"))
# What checks a user's file; later stages read what `prepare` has written.
CHECKS = {
    f"cfmvc/data/{name}.py"
    for name in (
        *("check_counts", "check_design", "check_embeddings", "check_labels", "checks"),
        *("canonical", "config", "count_tally", "faults", "labels"),
    )
}


def modules(file: Path) -> set[Path]:
    """Return the project's files that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        # of another stage's script only the path of its output is taken
        if not node.module.startswith(("cfmvc.", "pipelines._training")):
            continue
        base = PROJECT / node.module.replace(".", "/")
        named = [base / f"{alias.name}.py" for alias in node.names]
        found |= {path for path in (*named, base.with_suffix(".py")) if path.is_file()}
    return found


def closure(file: Path) -> set[str]:
    seen, left = set(), [file]
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        left += modules(path)
    return {str(path.relative_to(PROJECT)) for path in seen}


def deps_of(stage: str) -> list[Path]:
    graph = YAML(typ="safe").load(PROJECT / "dvc.yaml")["stages"]
    return [PROJECT / dep for dep in graph[stage]["deps"] if "$" not in dep]


@pytest.mark.parametrize("stage", ["prepare", "train_vae", "train_flow", "generate", "register"])
def test_a_change_of_code_reaches_every_stage_that_uses_it(stage: str) -> None:
    deps = deps_of(stage)
    used = closure(PROJECT / "pipelines" / f"{stage}.py")
    if stage == "train_vae":
        used -= OF_THE_FLOW  # the flow's part of the model is not trained yet
    if stage != "prepare":
        used -= CHECKS
    if stage == "generate":  # nothing is trained there
        of_training = ("cfmvc/training", *TRAINED_FROM)
        used = {n for n in used if not n.startswith(of_training)}
    missing = [
        name
        for name in sorted(used - PICTURES)
        if not any((PROJECT / name).is_relative_to(dep) for dep in deps)
        and not name.startswith("pipelines/_stage")
        and not any(part in NOT_SHAPING for part in Path(name).with_suffix("").parts[1:])
    ]
    assert missing == []


def test_a_change_of_any_code_that_ships_with_the_model_registers_it_again() -> None:
    """The version's tag ``cfmvc.code_sha256`` is of the code that it serves."""
    deps = deps_of("register")
    shipped = sorted((PROJECT / "cfmvc").rglob("*.py"))
    assert [path for path in shipped if not any(path.is_relative_to(dep) for dep in deps)] == []
