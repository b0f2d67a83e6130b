"""The house: imports run one way, and the tools stay in their rooms."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cfmvc"
ORDER = (
    "errors",
    "config",
    "files",
    "heap",
    "shards",
    "workers",
    "data",
    "flow",
    "models",
    "training",
    "progress",
    "stages",
    "evaluation",
    "tracking",
    "registry",
    "tuning",
    "benchmark",
    "cli",
    "__main__",
)
ROOMS = {"mlflow": {"tracking", "registry"}, "optuna": {"tuning"}, "dvc": set()}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    here = room_of(file)
    if here == "__init__":
        return
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "cfmvc" and rest:
            there = rest.split(".")[0]
            assert ORDER.index(there) <= ORDER.index(here), f"{file.name} imports {name}"
        elif top in ROOMS:
            assert here in ROOMS[top], f"{top} has no business in {here}/"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400
    assert file.name != "utils.py"
