"""A team's server, with PostgreSQL, S3 and users: a model goes there and comes back."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from typer.testing import CliRunner, Result

from cfmvc.cli.app import app
from cfmvc.errors import TrackingError
from cfmvc.files import md5_of_file
from cfmvc.models import load_bundle
from cfmvc.registry.fetch import fetch_bundle
from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.promote import force
from cfmvc.registry.register import register_model
from cfmvc.registry.registry import Registry
from cfmvc.registry.verify import verify
from cfmvc.stages import predict_cells
from cfmvc.tracking import stage_run
from cfmvc.tracking.spool import spools
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.registry import a_project
from tests.registry.a_contest import contest_cells, contestant, new_contest
from tests.registry.a_promoter import make_version, registry_at
from tests.registry.test_promotions import expect_one_champion_at_a_time
from tests.registry.test_register import CONDITIONS, EVALUATION, REGISTER, register
from tests.servers.s3 import S3
from tests.servers.team import ADA, BOB, TeamServer
from tests.tracking.conftest import CONFIG, runs_of, steps_of

pytestmark = pytest.mark.slow

WRONG = "not-the-password"


def become(monkeypatch: pytest.MonkeyPatch, server: TeamServer, user: str) -> None:
    for name, value in server.environment(user).items():
        monkeypatch.setenv(name, value)


def registered(workspace: Path, bundle: Path) -> None:
    """Register the model, unless a test before has: each time is three hundred uploads."""
    client = Store.connect(os.environ["MLFLOW_TRACKING_URI"], workspace).client
    if not client.search_model_versions("name = 'cfmvc'"):
        register(workspace, bundle)


def sync(workspace: Path) -> Result:
    for thread in threading.enumerate():
        if thread.name == "cfmvc-sender":  # tries once more when its stage ends
            thread.join()
    return CliRunner().invoke(app, ["sync", "--project", str(workspace)])


def test_a_model_goes_to_the_team_and_comes_back(
    workspace: Path, bundle: Path, as_ada: TeamServer, s3: S3, tmp_path: Path
) -> None:
    made = register(workspace, bundle)
    assert made.tracking_uri == as_ada.uri
    store = Store.connect(as_ada.uri, workspace)
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    assert int(version.version) == made.version
    assert spools(workspace) == []

    # its files are in the bucket, and nowhere here
    keys, weights = s3.keys("mlflow"), bundle / "weights.safetensors"
    model_id = version.tags["cfmvc.model_id"]
    (key,) = [key for key in keys if model_id in key and key.endswith(f"/bundle/{weights.name}")]
    assert s3.read("mlflow", key) == weights.read_bytes()
    assert [key for key in keys if key.endswith(f"{version.run_id}/artifacts/environment.json")]
    assert not (workspace / "mlartifacts").exists()

    expected = predict_cells(load_bundle(bundle), CONDITIONS, seed=7, n_steps=20).cells
    loaded = mlflow.pyfunc.load_model("models:/cfmvc@candidate")
    cells = loaded.predict(CONDITIONS, params={"seed": 7})
    counts = cells[list(expected.var_names)].to_numpy()
    assert counts == pytest.approx(expected.layers["counts"].toarray())


def test_the_command_line_predicts_with_the_teams_model(
    workspace: Path,
    bundle: Path,
    as_ada: TeamServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered(workspace, bundle)
    CONDITIONS.to_csv(tmp_path / "conditions.csv", index=False)
    monkeypatch.chdir(tmp_path)
    become(monkeypatch, as_ada, BOB)  # to read is all that it takes
    for model, out in (("models:/cfmvc@candidate", "fetched.h5ad"), (str(bundle), "own.h5ad")):
        words = ["predict", "--model", model, "--conditions", "conditions.csv", "--out", out]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    assert md5_of_file(tmp_path / "fetched.h5ad") == md5_of_file(tmp_path / "own.h5ad")
    with pytest.raises(TrackingError, match="or what is asked for is not there"):
        fetch_bundle("models:/unheard-of@candidate")


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (
            {},
            "the server wants a user and a password: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
        (
            {"MLFLOW_TRACKING_USERNAME": ADA, "MLFLOW_TRACKING_PASSWORD": WRONG},
            "the server does not take this password of user 'ada': "
            "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
    ],
    ids=["no password", "wrong password"],
)
def test_who_is_not_let_in_is_told_what_to_do(
    workspace: Path,
    bundle: Path,
    team_server: TeamServer,
    login: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team_server.uri)
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
    stage = capfd.readouterr()
    (line,) = stage.err.splitlines()
    assert "records kept in .cfmvc/spool" in line
    assert f"({team_server.uri}: {said})" in line

    with (
        pytest.raises(TrackingError) as refused,
        stage_run("register", workspace, CONFIG) as tracker,
    ):
        register_model(bundle, EVALUATION, REGISTER, tracker)
    assert said in str(refused.value)
    assert "nothing was registered" in str(refused.value)
    with pytest.raises(TrackingError, match=said):
        fetch_bundle("models:/cfmvc@candidate", workspace)

    synced = subprocess.run(  # as a person does it
        [sys.executable, "-c", "from cfmvc.cli import main; main()", "sync"],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert synced.returncode == TrackingError.exit_code
    assert f"left    vae: 5 records: {said}" in synced.stdout
    stage = capfd.readouterr()
    everything = [line, str(refused.value), synced.stdout, synced.stderr, stage.out, stage.err]
    assert "Traceback" not in str(everything)
    assert WRONG not in str(everything)

    become(monkeypatch, team_server, ADA)
    assert sync(workspace).exit_code == 0
    run = runs_of(Store.connect(team_server.uri, workspace))["vae"]
    assert run.info.status == "FINISHED"


def test_who_may_only_read_is_told_whom_to_ask(
    workspace: Path,
    bundle: Path,
    as_ada: TeamServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    registered(workspace, bundle)
    config = CONFIG.model_copy(update={"experiment": "of-ada"})
    store = Store.connect(as_ada.uri, workspace)
    experiment = store.experiment_id("of-ada")
    become(monkeypatch, as_ada, BOB)
    with stage_run("vae", workspace, config) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
    said = capfd.readouterr().err
    assert "user 'bob' may not do this" in said
    assert "an administrator of the server can grant EDIT on the experiment" in said
    synced = sync(workspace)
    assert synced.exit_code == TrackingError.exit_code
    assert "user 'bob' may not do this" in synced.stdout

    as_ada.grant(BOB, "experiment", experiment)
    assert sync(workspace).stdout.splitlines()[0] == "sent    vae: 5 records"
    with (
        pytest.raises(TrackingError, match=r"(?s)user 'bob' may not .*nothing was registered"),
        stage_run("register", workspace, config) as tracker,
    ):
        register_model(bundle, {"pearson_delta": 0.9}, REGISTER, tracker)


def test_another_users_dead_run_is_left_to_that_user(
    workspace: Path, as_ada: TeamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.connect(as_ada.uri, workspace)
    dead = {"cfmvc.process": f"{os.uname().nodename}:999999:1.0"}
    experiment = store.experiment_id("of-ada-alone")
    left = store.client.create_run(experiment, tags=dead, run_name="killed")
    become(monkeypatch, as_ada, BOB)
    assert sync(workspace).stdout == "nothing to send\n"
    assert store.client.get_run(left.info.run_id).info.status == "RUNNING"
    become(monkeypatch, as_ada, ADA)
    assert sync(workspace).stdout == "killed  killed: its process is gone\n"


def test_a_restart_loses_nothing(
    workspace: Path, bundle: Path, as_ada: TeamServer, capfd: pytest.CaptureFixture[str]
) -> None:
    made = register(workspace, bundle)
    as_ada.kill()
    with stage_run("flow", workspace, CONFIG) as tracker:
        tracker.log_metrics({"loss": 0.5}, 3)
    assert "records kept" in capfd.readouterr().err
    assert sync(workspace).exit_code == TrackingError.exit_code
    as_ada.start()
    assert sync(workspace).stdout == "sent    flow: 5 records\n"
    store = Store.connect(as_ada.uri, workspace)
    assert steps_of(store, runs_of(store)["flow"], "loss") == [(3, 0.5)]
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    assert int(version.version) == made.version
    fetched = fetch_bundle("models:/cfmvc@candidate", workspace)
    assert sha256_of_folder(fetched) == sha256_of_folder(bundle)


def test_decisions_are_made_on_the_server_and_by_its_users(
    workspace: Path, as_ada: TeamServer, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = contest_cells()
    contest = new_contest(workspace, cells, "decided")
    for seed in (0, 1):
        contest.register(contestant(workspace, cells, seed))
    contest.ask("promote", "1", "--force", "--why", "the first")
    said = contest.ask("promote", "candidate", expect=3)
    assert "REFUSED: version 2 against the baselines and version 1." in said
    assert [key for key in s3.keys("mlflow") if key.endswith("/artifacts/gate/report.html")]
    contest.ask("promote", "2", "--force", "--why", "to try it")
    contest.ask("rollback", "--why", "worse on new donors")
    rows = json.loads(contest.ask("history", "--json"))
    kinds = [(row["decision"], row["from"], row["version"]) for row in reversed(rows)]
    assert kinds == [
        ("forced", None, 1),
        ("refused", 1, 2),
        ("forced", 1, 2),
        ("rolled back", 2, 1),
    ]
    assert {row["who"].split(" ")[0] for row in rows} == {ADA}
    assert "aliases     champion" in contest.ask("show", "1")
    assert "measured on the same split" in contest.ask("compare", "1", "candidate")

    client = Store.connect(as_ada.uri, workspace).client
    client.set_registered_model_alias("decided", "champion", "2")
    become(monkeypatch, as_ada, BOB)  # he may look, and nothing more
    assert "may not do this" in contest.ask("doctor", expect=TrackingError.exit_code)
    become(monkeypatch, as_ada, ADA)
    assert "mended  alias 'champion' pointed to version 2" in contest.ask("doctor")
    become(monkeypatch, as_ada, BOB)
    assert "mended" not in contest.ask("doctor")


def test_who_may_only_read_decides_nothing_and_owns_no_log(
    workspace: Path, as_ada: TeamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = new_contest(workspace, contest_cells(), "of-ada-too")
    of_ada = registry_at(as_ada.uri, workspace, "of-ada-too")
    of_ada.store.client.create_registered_model("of-ada-too")
    of_ada.point("candidate", make_version(of_ada, 1.0))  # nobody gets as far as its files
    become(monkeypatch, as_ada, BOB)
    for words in (("promote",), ("promote", "--force", "--why", "mine"), ("rollback",)):
        said = contest.ask(*words, expect=TrackingError.exit_code)
        assert "who is champion is not for this user to decide: user 'bob' may not do this" in said
        assert "nothing has changed" in said
    registry = Registry.of_project(workspace)
    with pytest.raises(TrackingError, match="nothing has changed"):  # not through the library, too
        force(registry, 1, "mine", {})
    assert registry.store.client.search_registered_models("name = 'of-ada-too-history'") == []
    assert spools(workspace) == []


def test_a_version_on_the_server_is_proven_and_an_edit_in_the_bucket_is_found(
    as_ada: TeamServer, s3: S3, tmp_path: Path, template_store: Path
) -> None:
    project = a_project.new_project(tmp_path / "project", template_store, "proven")
    chain = verify("1", project)
    assert chain.broken is None, chain.broken
    assert {link.state for link in chain.links} == {"ok"}
    tags = Store.connect(as_ada.uri, project).client.get_model_version("proven", "1").tags
    is_weights = f"{tags['cfmvc.model_id']}/artifacts/artifacts/bundle/weights.safetensors"
    (key,) = [key for key in s3.keys("mlflow") if key.endswith(is_weights)]
    content = bytearray(s3.read("mlflow", key))
    content[-1] ^= 1
    s3.write("mlflow", key, bytes(content))
    broken = verify("1", project).broken
    assert broken is not None
    assert broken.name == "weights"


def test_promoters_race_through_the_server(workspace: Path, as_ada: TeamServer) -> None:
    expect_one_champion_at_a_time(as_ada.uri, workspace, n_models=1, n_promoters=4)
