"""Whatever is tampered with on the way to a version is found, and named first."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cfmvc.errors import BrokenChainError, ConfigError
from cfmvc.registry.proof.link import Chain
from cfmvc.registry.verify import verify
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.registry import a_project
from tests.registry.a_project import EVALUATION, PREPARED, RAW
from tests.tracking.conftest import runs_of


@pytest.fixture(scope="session")
def template_project(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Path:
    return a_project.new_project(tmp_path_factory.mktemp("chain") / "project", template_store)


@pytest.fixture
def project(template_project: Path, tmp_path: Path) -> Path:
    return a_project.copy_of(template_project, tmp_path / "project")


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


def states(chain: Chain) -> dict[str, str]:
    return {link.name: link.state for link in chain.links}


def test_an_untouched_version_is_proven_to_the_last_link(project: Path) -> None:
    chain = verify("1", project)
    assert set(states(chain).values()) == {"ok"}, chain
    assert list(states(chain)) == [
        *("version", "weights", "code", "model files", "run", "evaluation", "dvc.lock"),
        *("stage runs", "data", "outputs", "git commit", "parameters", "environment"),
    ]
    assert chain.verdict == "the chain holds: 13 links proven"
    chain.expect_whole()


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


@pytest.mark.parametrize(
    ("tamper", "broken", "said"),
    [
        (remove_data, "data", f"{RAW} is missing; `dvc pull`"),
        (edit_data, "data", f"{RAW} was edited: md5"),
        (edit_prepared, "outputs", f"{PREPARED} was edited: md5"),
        (edit_workspace_model, "outputs", "models/flow was edited: md5"),
        (edit_weights, "weights", "edited after it was registered"),
        (remove_weights, "weights", "edited after it was registered"),
        (remove_model, "version", "its files are gone"),
        (delete_logged_model, "version", "it was deleted, or the tag was edited"),
        (edit_code, "code", "edited after it was registered"),
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
        (edit_commit_tag, "run", "cfmvc.git_commit is 000"),
        (edit_hash_tag, "weights", "in the tag cfmvc.bundle_sha256"),
        (remove_hash_tag, "version", "it has no tag cfmvc.files_sha256"),
        (edit_run_tag, "run", "no run has the cfmvc.uid 000"),
        (edit_data_tag_everywhere, "data", "by the tag cfmvc.data_md5"),
        (delete_run, "run", "was deleted; `mlflow runs restore --run-id"),
        (kill_run, "run", "is KILLED, not FINISHED"),
        (delete_training_run, "stage runs", "of train_flow was deleted"),
        (rewrite_history, "git commit", "this repository has no commit"),
    ],
)
def test_what_was_tampered_with_is_the_first_broken_link(
    project: Path, tamper: Callable[[Path], None], broken: str, said: str
) -> None:
    tamper(project)
    chain = verify("1", project)
    assert chain.broken is not None, chain
    assert (chain.broken.name, said in chain.broken.detail) == (broken, True), chain
    with pytest.raises(BrokenChainError, match=f"models:/cfmvc/1: broken at {broken}"):
        chain.expect_whole()


def register_other(project: Path, pearson: float = 0.7) -> int:
    a_project.evaluate(project, EVALUATION | {"model": {"pearson_delta": pearson}})
    return a_project.register(project)


def test_a_version_of_a_changed_tree_proves_nothing_until_it_is_registered_from_a_commit(
    project: Path,
) -> None:
    append(project / "prepare.py", "# and more\n")
    a_project.dvc_commit(project, "prepare")
    assert register_other(project) == 2
    chain = verify("2", project)
    assert chain.verdict.startswith("broken at git commit: made from a changed tree"), chain
    a_project.commit(project, "what belongs to it")
    assert a_project.register(project) == 2
    verify("2", project).expect_whole()
    # and a changed tree does not take the proof away again
    append(project / "prepare.py", "# and still more\n")
    assert a_project.register(project) == 2
    chain = verify("2", project)
    assert chain.broken is None, chain


def test_code_that_was_changed_without_training_again_is_found(project: Path) -> None:
    append(project / "train_flow.py", "# learns better\n")
    a_project.commit(project, "other code, the same model")
    chain = verify(str(register_other(project)), project)
    assert chain.verdict.startswith(
        "broken at git commit: train_flow was made with another train_flow.py than commit"
    ), chain


def test_data_that_were_swapped_without_a_new_run_are_found(project: Path) -> None:
    a_project.add_data(project, "other cells")
    a_project.commit(project, "other data, the same model")
    version = str(register_other(project))
    assert verify(version, project).verdict.startswith(f"broken at data: {RAW} was edited")
    (project / RAW).write_text("the cells")
    assert verify(version, project).verdict.startswith(
        f"broken at git commit: prepare was made with another {RAW} than commit"
    )


@pytest.mark.parametrize("tamper", [delete_run, kill_run, rewrite_history, remove_lock_of_run])
def test_registered_again_a_version_rests_on_the_run_that_is_there(
    project: Path, tamper: Callable[[Path], None]
) -> None:
    tamper(project)
    assert a_project.register(project) == 1
    verify("1", project).expect_whole()


def test_a_model_that_was_edited_is_registered_anew(project: Path) -> None:
    edit_weights(project)
    assert a_project.register(project) == 2
    verify("2", project).expect_whole()
    chain = verify("1", project)
    assert chain.broken is not None
    assert chain.broken.name == "weights"


def test_a_model_beside_the_pipeline_has_no_chain(project: Path) -> None:
    flip_a_byte(project / "results/evaluate.json")
    shutil.copy(project / "params.yaml", project / "models/flow/extra.txt")
    chain = verify(str(register_unknown(project)), project)
    assert chain.broken is not None
    assert chain.broken.name == "dvc.lock"
    assert "is no output of dvc.lock" in chain.broken.detail


def register_unknown(project: Path) -> int:
    (project / "results/evaluate.json").write_text(json.dumps(EVALUATION))
    return a_project.register(project)


def test_an_older_version_is_proven_from_the_cache_of_dvc(project: Path) -> None:
    a_project.add_data(project, "other cells")
    a_project.prepare(project)
    chain = verify("1", project)
    assert set(states(chain).values()) == {"ok"}, chain
    cache = project / ".dvc/cache/files/md5"
    kept = [path for path in cache.rglob("*") if path.is_file()]
    raw = next(path for path in kept if path.read_bytes() == b"the cells, split")
    raw.chmod(0o644)
    append(raw)
    chain = verify("1", project)
    assert chain.broken is not None
    assert (chain.broken.name, "in DVC's cache was edited" in chain.broken.detail) == (
        "outputs",
        True,
    )
    shutil.rmtree(cache)
    assert states(verify("1", project)) | {"data": "not checked", "outputs": "not checked"} == (
        states(verify("1", project))
    )


def test_without_the_project_the_rest_is_proven(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    chain = verify("models:/cfmvc/1", tmp_path)
    assert chain.verdict == (
        "the chain holds: 10 links proven, 3 not checked "
        "(data, outputs, git commit: no project here)"
    )
    with pytest.raises(ConfigError, match="say models:/NAME/VERSION"):
        verify("1", tmp_path)


def test_a_clone_without_the_data_says_how_to_get_them(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_project.run(project, "dvc", "remote", "add", "--default", "r", str(tmp_path / "remote"))
    a_project.run(project, "dvc", "push", "--quiet")
    a_project.run(project, "git", "add", "dvc.lock", ".dvc/config")
    a_project.run(project, "git", "commit", "--quiet", "--message", "results")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    a_project.run(tmp_path, "git", "clone", "--quiet", str(project), "clone")
    chain = verify("1", tmp_path / "clone")
    assert chain.verdict == f"broken at data: {RAW} is missing; `dvc pull` gets it"
    a_project.run(tmp_path / "clone", "dvc", "pull", "--quiet", RAW)
    assert verify("1", tmp_path / "clone").verdict == (
        "broken at data: data/prepared/split.json is missing; `dvc pull` gets it"
    )
    a_project.run(tmp_path / "clone", "dvc", "pull", "--quiet")
    verify("1", tmp_path / "clone").expect_whole()


@pytest.mark.parametrize(
    "what", ["1", "models:/cfmvc/1", "models:/cfmvc@candidate", "candidate", "@candidate"]
)
def test_a_version_has_several_names(project: Path, what: str) -> None:
    assert verify(what, project).what == "models:/cfmvc/1"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("7", "7: model 'cfmvc' has no such version; versions: '1'; aliases: 'candidate'"),
        ("canddate", r"no such version \(did you mean 'candidate'\?\)"),
        ("models:/cfmcv/1", r"no model 'cfmcv' is registered \(did you mean 'cfmvc'\?\)"),
        ("0" * 32, "no run of this store has that id"),
    ],
)
def test_a_name_that_is_none_is_told_what_there_is(project: Path, what: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        verify(what, project)


def test_of_a_run_what_it_rests_on_is_proven(project: Path) -> None:
    training = run_of(project, "train_flow")
    for name in (training.info.run_id, training.data.tags["cfmvc.uid"]):
        chain = verify(name, project)
        assert states(chain) == dict.fromkeys(
            [
                *("run", "dvc.lock", "stage runs", "data", "outputs", "git commit"),
                *("parameters", "environment"),
            ],
            "ok",
        ), chain
    append(project / RAW)
    assert verify(training.info.run_id, project).verdict.startswith("broken at data: ")


def test_the_first_stage_rests_on_no_output(project: Path) -> None:
    chain = verify(run_of(project, "prepare").info.run_id, project)
    assert chain.broken is None
    assert states(chain)["environment"] == "ok"
    assert states(chain)["dvc.lock"] == "not checked"


def command(project: Path, *words: str) -> tuple[int | None, str, str]:
    """Return exit code, stdout and stderr."""
    words = ("registry", "verify", *words, "--project", str(project))
    process = ForkedModule("tests.cli.a_command", words, PROJECT, os.environ, is_split=True)
    said = process.communicate()
    return (process.returncode, *said)


def test_the_command_says_it_in_words_and_with_its_exit_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, errors = command(project, "1")
    assert (code, errors) == (0, "")
    assert said.endswith("models:/cfmvc/1: the chain holds: 13 links proven\n")
    remove_data(project)
    code, said, _ = command(project, "candidate", "--json")
    report = json.loads(said)
    assert (code, report["holds"], report["broken_at"]) == (7, False, "data")
    code, said, errors = command(project, "9")
    assert (code, said) == (2, "")
    assert "versions: '1'" in errors
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert command(project, "1")[0] == 5
