"""What a stage says is what MLflow has."""

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cfmvc.errors import Preempted
from cfmvc.tracking import find_run, read_link, stage_run
from cfmvc.tracking.leftovers import sync
from cfmvc.tracking.spool import spools
from cfmvc.tracking.store import Store
from tests.tracking.conftest import CONFIG, artifact_text, runs_of, steps_of


def test_all_that_was_logged_is_in_the_store(workspace: Path, store: Store) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    folder = workspace / "pictures"
    folder.mkdir()
    (folder / "one.txt").write_text("1")
    with stage_run("vae", workspace, CONFIG, {"colour": "green"}) as tracker:
        tracker.log_params({"vae.lr": 1e-3, "vae.held_out": None})
        tracker.log_metrics({"loss": np.float32(0.5), "val": math.inf}, step=1)
        tracker.log_metrics({"loss": math.nan}, step=2)
        tracker.log_event("nan", {"place": "encoder", "cells": np.arange(2)}, step=7)
        tracker.log_event("nan", {"place": "decoder"}, step=9)
        tracker.log_figure(figure, "curves/loss.png")
        tracker.log_artifact(folder)
        (folder / "one.txt").write_text("changed later")
        tracker.set_tags({"cfmvc.split_sha256": "abc"})
        tracker.write_link(workspace / "link.json")
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"vae.lr": "0.001", "vae.held_out": "None"}
    assert run.data.tags.items() >= {"colour": "green", "cfmvc.split_sha256": "abc"}.items()
    (_, first), (last_step, last) = steps_of(store, run, "loss")
    assert (first, last_step) == (0.5, 2)
    assert math.isnan(last)
    assert steps_of(store, run, "nan_events") == [(7, 1.0), (9, 2.0)]
    lines = artifact_text(store, run, "events/nan.jsonl").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 7, "place": "encoder", "cells": [0, 1]},
        {"step": 9, "place": "decoder"},
    ]
    assert artifact_text(store, run, "pictures/one.txt") == "1"
    picture = store.client.download_artifacts(run.info.run_id, "curves/loss.png")
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert json.loads(artifact_text(store, run, "environment.json"))["packages"]["numpy"]
    assert f"numpy=={np.__version__}\n" in artifact_text(store, run, "requirements.txt")
    found = find_run(read_link(workspace / "link.json"), workspace)
    assert found is not None
    assert found.info.run_id == run.info.run_id
    assert spools(workspace) == []


def test_the_link_names_no_folder_of_this_machine(workspace: Path) -> None:
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.write_link(workspace / "link.json")
    assert read_link(workspace / "link.json").tracking_uri == "sqlite:///mlflow.db"


def test_parameters_are_in_the_store_before_the_training_ends(
    workspace: Path, store: Store
) -> None:
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_params({"lr": 1})
        run_id = tracker.wait_for_run(60)
        tracker.log_metrics({"loss": 1}, 0)
        while "loss" not in (run := store.client.get_run(run_id)).data.metrics:
            pass
        assert run.data.params == {"lr": "1"}
        assert run.info.status == "RUNNING"


def test_odd_names_and_long_values_are_made_to_fit(workspace: Path, store: Store) -> None:
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_params({"held out (cell type)": "x" * 10_000})
        tracker.log_metrics({"loss%": 1.0}, 0)
        tracker.set_tags({"dvc.out.a*b": "y" * 10_000})
    run = runs_of(store)["vae"]
    assert len(run.data.params["held out _cell type_"]) == 6000
    assert run.data.metrics == {"loss_": 1.0}
    assert len(run.data.tags["dvc.out.a_b"]) == 5000


def test_what_the_store_refuses_does_not_hold_up_the_rest(
    workspace: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_params({"lr": "1"})
        tracker.wait_for_run(60)
        tracker.log_metrics({"seen": 1.0}, 0)
        while "seen" not in store.client.get_run(tracker.wait_for_run(60)).data.metrics:
            pass
        tracker.log_params({f"p{n}": n for n in range(20)} | {"lr": "2"})
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "1"} | {f"p{n}": str(n) for n in range(20)}
    (notes,) = (workspace / ".cfmvc" / "rejected").iterdir()
    assert capsys.readouterr().err == f"tracking: the store refused some values; see {notes}\n"
    (note,) = notes.read_text().splitlines()
    assert "'lr'" in json.loads(note)["what"]


@pytest.mark.parametrize("is_acknowledged", [True, False])
def test_a_kill_after_the_last_record_doubles_nothing(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch, is_acknowledged: bool
) -> None:
    """Killed after MLflow took the records, before or after that was written down."""
    with monkeypatch.context() as patched:
        patched.setattr("cfmvc.tracking.spool.Spool.remove", lambda spool: None)
        with stage_run("vae", workspace, CONFIG) as tracker:
            for step in range(20):
                tracker.log_metrics({"loss": step, "bad": math.nan}, step)
            tracker.log_event("nan", {}, 3)
    (spool,) = spools(workspace)
    if not is_acknowledged:
        (spool.folder / "sent.json").unlink()
    report = sync(workspace, store.uri)
    assert [run["stage"] for run in report.sent] == ["vae"]
    assert len(list(store.find_runs(store.experiment_ids(), ""))) == 1
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert steps_of(store, run, "loss") == [(step, float(step)) for step in range(20)]
    assert len(steps_of(store, run, "bad")) == 20
    assert steps_of(store, run, "nan_events") == [(3, 1.0)]


def test_a_locked_database_is_waited_for(workspace: Path, store: Store) -> None:
    store.experiment_id("cfmvc")
    blocker = sqlite3.connect(workspace / "mlflow.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with stage_run("vae", workspace, CONFIG.model_copy(update={"flush_seconds": 0})) as tracker:
            tracker.log_metrics({"loss": 1.0}, 0)
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    sync_until_sent(workspace, store)
    run = runs_of(store)["vae"]
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def test_a_store_of_no_use_keeps_the_records_and_says_so_in_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.model_copy(update={"uri": "http://user:secret@127.0.0.1:9"})
    with stage_run("vae", workspace, config) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "5 records kept" in line
    assert "http://127.0.0.1:9: Connection refused" in line
    assert "cfmvc sync" in line
    assert "secret" not in line
    assert len(spools(workspace)) == 1


def sync_until_sent(workspace: Path, store: Store) -> None:
    """The stage's thread may still be at it: either of the two sends, and only one."""
    while spools(workspace):
        sync(workspace, store.uri)


def test_a_training_that_sigterm_has_stopped_was_killed_and_did_not_fail(
    workspace: Path, store: Store
) -> None:
    stopped = "vae: stopped by SIGTERM after step 9"
    with pytest.raises(Preempted), stage_run("vae", workspace, CONFIG):
        raise Preempted(stopped)
    run = runs_of(store)["vae"]
    assert run.info.status == "KILLED"
    assert run.data.tags["cfmvc.error"] == stopped
