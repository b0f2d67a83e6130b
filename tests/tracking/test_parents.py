"""One parent for the stages of a DVC command, or the one that was given; each ends as it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfmvc.tracking import TrackingConfig, stage_run
from cfmvc.tracking.parents import SESSION_TAG, close_parent, open_place
from cfmvc.tracking.process import names_dvc
from cfmvc.tracking.spool import RunHeader, spools
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.tracking.conftest import CONFIG, runs_of

DVC = [sys.executable, "-m", "dvc"]
DVC_YAML = """
stages:
  one:
    cmd: {python} -m tests.tracking.a_stage . one finish
    outs: [one.json]
  two:
    cmd: {python} -m tests.tracking.a_stage . two {behaviour}
    deps: [one.json]
"""


def run_dvc(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DVC, *arguments],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("behaviour", "status"), [("finish", "FINISHED"), ("fail", "FAILED")])
def test_stages_of_one_dvc_repro_share_a_parent(
    workspace: Path, store: Store, behaviour: str, status: str
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    (workspace / "dvc.yaml").write_text(
        DVC_YAML.format(python=sys.executable, behaviour=behaviour).lstrip()
    )
    assert run_dvc(workspace, "init", "-q").returncode == 0
    done = run_dvc(workspace, "repro")
    assert (done.returncode == 0) == (behaviour == "finish"), done.stderr
    runs = runs_of(store)
    assert set(runs) == {"pipeline", "one", "two"}
    parent = runs["pipeline"]
    for name in ("one", "two"):
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert runs["one"].info.status == "FINISHED"
    assert runs["two"].info.status == parent.info.status == status
    assert runs["two"].data.tags.get("dvc.out.one.json") is not None
    if behaviour == "fail":
        return
    assert run_dvc(workspace, "repro", "-f", "-s", "one").returncode == 0
    parents = list(store.find_runs(store.experiment_ids(), "attributes.run_name = 'pipeline'"))
    assert len(parents) == 2  # another command, another parent


def test_a_stage_by_itself_has_no_parent(workspace: Path, store: Store) -> None:
    with stage_run("vae", workspace, CONFIG):
        pass
    assert set(runs_of(store)) == {"vae"}


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "CFMVC_PARENT_RUN"])
def test_a_given_run_becomes_the_parent_and_is_not_ended(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    elsewhere = store.client.create_experiment("elsewhere", (workspace / "a").as_uri())
    given = store.client.create_run(elsewhere, run_name="given").info.run_id
    monkeypatch.setenv(variable, given)
    for name in ("vae", "flow"):
        with stage_run(name, workspace, CONFIG):
            pass
    runs = runs_of(store)
    assert set(runs) == {"given", "vae", "flow"}
    assert runs["given"].info.status == "RUNNING"
    assert runs["given"].data.params == {}
    for name in ("vae", "flow"):
        assert runs[name].info.status == "FINISHED"
        assert runs[name].info.experiment_id == elsewhere
        assert runs[name].data.tags["mlflow.parentRunId"] == given


def test_a_given_run_of_another_store_is_passed_over(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with stage_run("vae", workspace, CONFIG):
        pass
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags


def header(name: str, session: str = "host-a:7:100.00", experiment: str = "") -> RunHeader:
    return RunHeader(
        f"uid-{name}", name, "", "cfmvc", "host-a:8:1.0", 1000, None, session, experiment
    )


def test_sessions_are_told_apart(store: Store) -> None:
    parents = {
        key: open_place(store, header(*key)).parent_id
        for key in [
            ("vae", "host-a:7:100.00", ""),
            ("flow", "host-a:7:100.90", ""),  # the same process, as another clock tells it
            ("vae", "host-a:7:900.00", ""),  # its number, given anew
            ("vae", "host-b:7:100.00", ""),
            ("vae", "host-a:7:100.00", "rusty-pumas"),
        ]
    }
    first, second, *others = parents.values()
    assert first == second
    assert len({first, *others}) == 4


def test_a_parent_ends_with_its_last_child_and_remembers_failures(store: Store) -> None:
    place = open_place(store, header("vae"))
    children = [
        store.client.create_run(
            place.experiment_id, tags={"mlflow.parentRunId": place.parent_id}, run_name=name
        )
        for name in ("bad", "slow", "last")
    ]

    def end(number: int, status: str) -> str:
        store.client.set_terminated(children[number].info.run_id, status)
        close_parent(store, children[number], status, 2000 + number)
        return str(store.client.get_run(place.parent_id).info.status)

    assert end(0, "FAILED") == "RUNNING"
    assert end(1, "FINISHED") == "RUNNING"
    assert end(2, "FINISHED") == "FAILED"
    assert open_place(store, header("again")) == place
    parent = store.client.get_run(place.parent_id)
    assert parent.info.status == "RUNNING"
    assert parent.data.tags[SESSION_TAG] == "host-a:7:100.00"


def test_a_run_whose_parent_never_comes_is_kept_and_nobody_spins(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("cfmvc.tracking.sender._MOST_WAITS", 2)
    monkeypatch.setenv("CFMVC_PARENT_RUN", "uid:of a study that was deleted")
    with stage_run("trial", workspace, CONFIG):
        pass
    assert "is not there yet); `cfmvc sync` sends them" in capsys.readouterr().err
    assert len(spools(workspace)) == 1
    assert runs_of(store) == {}


@pytest.mark.parametrize(
    ("command", "is_dvc"),
    [
        ("dvc repro", True),
        ("/opt/bin/dvc exp run", True),
        ("/usr/bin/python3.11 -m dvc repro", True),
        ("python -u -m dvc repro", True),
        ("/venv/bin/python /venv/bin/dvc repro", True),
        ("/bin/sh -c dvc repro", False),
        ("python -m pipelines.train dvc", False),
        ("python train.py dvc", False),
        ("vim dvc.yaml", False),
        ("", False),
    ],
)
def test_commands_of_dvc_are_recognised(command: str, is_dvc: bool) -> None:
    assert names_dvc(command.split()) == is_dvc


def test_the_configured_experiment_is_used(workspace: Path, store: Store) -> None:
    config = TrackingConfig(uri=None, experiment="another", flush_seconds=60)
    with stage_run("vae", workspace, config):
        pass
    experiment = store.client.get_experiment_by_name("another")
    assert experiment.artifact_location == (workspace / "mlartifacts").as_uri()
    assert runs_of(store)["vae"].info.experiment_id == experiment.experiment_id
