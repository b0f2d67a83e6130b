"""What may be tampered with on the way to a version."""

import py_compile
import shutil
import sqlite3
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from cfmvc.tracking.store import Store
from tests.registry import a_project
from tests.registry.a_project import PREPARED, RAW
from tests.tracking.conftest import runs_of


def store_of(project: Path) -> Store:
    return Store.connect(f"sqlite:///{project / 'mlflow.db'}", project)


def run_of(project: Path, stage: str) -> Any:
    return runs_of(store_of(project))[stage]


def artifact(project: Path, stage: str, name: str) -> Path:
    return Path(run_of(project, stage).info.artifact_uri.removeprefix("file://")) / name


def model(project: Path) -> Path:
    """Return the version's files, where the store has them."""
    client = store_of(project).client
    tags = client.get_model_version("cfmvc", "1").tags
    location = client.get_logged_model(tags["cfmvc.model_id"]).artifact_location
    return Path(location.removeprefix("file://"))


def set_tag(project: Path, name: str, value: str) -> None:
    store_of(project).client.set_model_version_tag("cfmvc", "1", name, value)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def append(path: Path, text: str = "\n") -> None:
    path.write_text(path.read_text() + text)


def execute(project: Path, change: str, *values: str) -> None:
    """Change the store's tables themselves, which MLflow would not do."""
    with sqlite3.connect(project / "mlflow.db") as database:
        assert database.execute(change, values).rowcount > 0
    database.close()


def remove_data(project: Path) -> None:
    (project / RAW).unlink()


def edit_data(project: Path) -> None:
    append(project / RAW)


def edit_prepared(project: Path) -> None:
    append(project / PREPARED)


def edit_workspace_model(project: Path) -> None:
    flip_a_byte(project / "models/flow/weights.safetensors")


def edit_weights(project: Path) -> None:
    flip_a_byte(model(project) / "artifacts/bundle/weights.safetensors")


def remove_weights(project: Path) -> None:
    (model(project) / "artifacts/bundle/weights.safetensors").unlink()


def remove_model(project: Path) -> None:
    shutil.rmtree(model(project))


def delete_logged_model(project: Path) -> None:
    client = store_of(project).client
    client.delete_logged_model(client.get_model_version("cfmvc", "1").tags["cfmvc.model_id"])


def edit_code(project: Path) -> None:
    append(model(project) / "code/cfmvc/flow/solvers.py", "# faster\n")


def forge_compiled_code(project: Path) -> None:
    """Leave the source as it is, and let Python run something else."""
    source = model(project) / "code/cfmvc/flow/solvers.py"
    compiled = Path(cache_from_source(str(source)))
    forged = source.with_name("forged.py")
    forged.write_text(source.read_text() + "print('hello')\n")
    py_compile.compile(
        str(forged), str(compiled), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )
    forged.unlink()


def edit_what_mlflow_executes(project: Path) -> None:
    append(model(project) / "served_model.py", "print('hello')\n")


def edit_requirements_of_model(project: Path) -> None:
    append(model(project) / "requirements.txt", "something-else==1.0\n")


def edit_lock_of_run(project: Path) -> None:
    append(artifact(project, "register", "dvc.lock"))


def remove_lock_of_run(project: Path) -> None:
    artifact(project, "register", "dvc.lock").unlink()


def edit_params_of_run(project: Path) -> None:
    file = artifact(project, "register", "params.yaml")
    file.write_text(file.read_text().replace("1e-3", "1e-4"))


def edit_logged_parameter(project: Path) -> None:
    execute(project, "UPDATE params SET value = '0.5' WHERE key = 'flow.lr'")


def edit_environment(project: Path) -> None:
    append(artifact(project, "register", "environment.json"))


def edit_requirements_of_run(project: Path) -> None:
    append(artifact(project, "register", "requirements.txt"))


def edit_evaluation(project: Path) -> None:
    file = artifact(project, "register", "evaluate.json")
    file.write_text(file.read_text().replace("0.8", "0.9"))


def edit_metric_of_model(project: Path) -> None:
    execute(project, "UPDATE logged_model_metrics SET metric_value = 0.9")


def edit_figure_tag(project: Path) -> None:
    set_tag(project, "metric.pearson_delta", "0.9")


def edit_nan_steps_tag(project: Path) -> None:
    set_tag(project, "cfmvc.nan_steps", "0")


def edit_peak_memory_tag(project: Path) -> None:
    set_tag(project, "cfmvc.peak_memory_gib", "1")


def edit_commit_tag(project: Path) -> None:
    set_tag(project, "cfmvc.git_commit", "0" * 40)


def edit_hash_tag(project: Path) -> None:
    set_tag(project, "cfmvc.bundle_sha256", "0" * 64)


def remove_hash_tag(project: Path) -> None:
    store_of(project).client.delete_model_version_tag("cfmvc", "1", "cfmvc.files_sha256")


def edit_run_tag(project: Path) -> None:
    set_tag(project, "cfmvc.uid", "0" * 32)


def edit_data_tag_everywhere(project: Path) -> None:
    set_tag(project, "cfmvc.data_md5", "0" * 32)
    run = run_of(project, "register")
    store_of(project).client.set_tag(run.info.run_id, "cfmvc.data_md5", "0" * 32)


def delete_run(project: Path) -> None:
    store_of(project).client.delete_run(run_of(project, "register").info.run_id)


def kill_run(project: Path) -> None:
    store_of(project).client.set_terminated(run_of(project, "register").info.run_id, "KILLED")


def delete_training_run(project: Path) -> None:
    store_of(project).client.delete_run(run_of(project, "train_flow").info.run_id)


def rewrite_history(project: Path) -> None:
    a_project.commit(project, "start, in other words", "--amend")
    a_project.run(project, "git", "reflog", "expire", "--expire=now", "--all")
    a_project.run(project, "git", "gc", "--quiet", "--prune=now")


# what is done, the first link that is broken by it, and what is said
TAMPERED: list[tuple[Callable[[Path], None], str, str]] = [
    (remove_data, "data", f"{RAW} is missing; `dvc pull`"),
    (edit_data, "data", f"{RAW} was edited: md5"),
    (edit_prepared, "outputs", f"{PREPARED} was edited: md5"),
    (edit_workspace_model, "outputs", "models/flow was edited: md5"),
    (edit_weights, "weights", "edited after it was registered"),
    (remove_weights, "weights", "edited after it was registered"),
    (remove_model, "version", "its files are gone"),
    (delete_logged_model, "version", "it was deleted, or the tag was edited"),
    (edit_code, "code", "edited after it was registered"),
    (forge_compiled_code, "code", "delete that folder"),
    (edit_what_mlflow_executes, "model files", "edited after it was registered"),
    (edit_requirements_of_model, "model files", "edited after it was registered"),
    (edit_lock_of_run, "dvc.lock", "edited afterwards"),
    (remove_lock_of_run, "dvc.lock", "is not among the artifacts"),
    (edit_params_of_run, "parameters", "params.yaml of the run has the md5"),
    (edit_logged_parameter, "parameters", "of train_flow has flow.lr = 0.5"),
    (edit_environment, "environment", "edited afterwards"),
    (edit_requirements_of_run, "environment", "edited afterwards"),
    (edit_evaluation, "evaluation", "one of the two was edited"),
    (edit_metric_of_model, "evaluation", "metrics of the logged model: pearson_delta is 0.9"),
    (edit_figure_tag, "evaluation", "pearson_delta is 0.9, its evaluation says 0.8"),
    (edit_nan_steps_tag, "outputs", "says 0, the outputs of its training say 3: one of the"),
    (edit_peak_memory_tag, "stage runs", "says 1, the runs of its training say 3: one of the two"),
    (edit_commit_tag, "run", "cfmvc.git_commit is 000"),
    (edit_hash_tag, "weights", "in the tag cfmvc.bundle_sha256"),
    (remove_hash_tag, "version", "it has no tag cfmvc.files_sha256"),
    (edit_run_tag, "run", "no run has the cfmvc.uid 000"),
    (edit_data_tag_everywhere, "data", "by the tag cfmvc.data_md5"),
    (delete_run, "run", "was deleted; `mlflow runs restore --run-id"),
    (kill_run, "run", "is KILLED, not FINISHED"),
    (delete_training_run, "stage runs", "of train_flow was deleted"),
    (rewrite_history, "git commit", "this repository has no commit"),
]
