"""Whatever is tampered with on the way to a version is found, and named first."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cfmvc.errors import BrokenChainError, ConfigError
from cfmvc.registry.proof.link import Chain
from cfmvc.registry.verify import verify
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.registry import a_project
from tests.registry.a_project import EVALUATION, RAW
from tests.registry.tampering import (
    TAMPERED,
    append,
    delete_run,
    edit_weights,
    flip_a_byte,
    kill_run,
    remove_data,
    remove_lock_of_run,
    rewrite_history,
    run_of,
)


@pytest.fixture(scope="session")
def template_project(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Path:
    return a_project.new_project(tmp_path_factory.mktemp("chain") / "project", template_store)


@pytest.fixture
def project(template_project: Path, tmp_path: Path) -> Path:
    return a_project.copy_of(template_project, tmp_path / "project")


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


@pytest.mark.parametrize(("tamper", "broken", "said"), TAMPERED)
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
        ("²", "²: model 'cfmvc' has no such version; versions: '1'"),
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
