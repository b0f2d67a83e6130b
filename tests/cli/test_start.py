"""A short start: what a command does not import, asked of a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfmvc.cli import main
from tests.registry.conftest import make_bundle

SLOW = {"torch", "anndata", "h5py", "pandas", "scipy", "numpy", "mlflow", "matplotlib", "sklearn"}


def loaded(*words: str | Path) -> set[str]:
    """Run a command and return the names of all modules that it imported."""
    code = (
        "import sys; from cfmvc.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print('modules:', *sys.modules)"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_and_version_import_the_command_line_alone(words: tuple[str, ...]) -> None:
    assert loaded(*words) & (SLOW | {"pydantic", "ruamel.yaml", "rich"}) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("data",),
        ("data", "check"),
        ("fit",),
        ("perturb-region",),
        ("predict",),
        ("summary",),
        ("sync",),
        ("registry", "verify"),
        ("benchmark",),
        ("benchmark", "table"),
    ],
)
def test_help_of_a_command_does_not_import_its_work(words: tuple[str, ...]) -> None:
    assert loaded(*words, "--help") & (SLOW | {"ruamel.yaml", "rich"}) == set()


def test_threads_do_not_wait_by_spinning_unless_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine that takes many times as long, and torch reads it when it is imported."""
    for asked, found in (("", "passive"), ("active", "active")):
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
        if not asked:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        monkeypatch.setattr("sys.argv", ["cfmvc", "--version"])
        with pytest.raises(SystemExit):
            main()
        assert os.environ["OMP_WAIT_POLICY"] == found


def test_predict_imports_neither_the_training_nor_what_it_can_do_without(tmp_path: Path) -> None:
    model, conditions = make_bundle(tmp_path / "model", seed=0), tmp_path / "conditions.csv"
    conditions.write_text("perturbation,batch,cell_type,n_cells\na,x,p,3\n")
    out = tmp_path / "pred.h5ad"
    modules = loaded("predict", "--model", model, "--conditions", conditions, "--out", out)
    assert out.is_file()
    assert "torch" in modules
    unneeded = {"mlflow", "matplotlib", "sklearn", "torch._dynamo", "rich.markdown"}
    unneeded |= {"torchdiffeq", "scipy.optimize", "scipy.integrate", "scipy.spatial"}
    assert modules & (unneeded | {"cfmvc.flow.couplings"}) == set()
    training = {name for name in modules if name.startswith("cfmvc.training.")}
    assert training <= {"cfmvc.training.config"}


def test_what_is_imported_is_not_looked_through_for_garbage() -> None:
    code = (
        "import gc; from cfmvc.cli.importing import uncollected\n"
        "with uncollected():\n    import json; assert not gc.isenabled()\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
