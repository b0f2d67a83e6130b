"""Where studies are kept: what is no database is told before anything is read or written."""

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from cfmvc.errors import ConfigError, TrackingError
from cfmvc.tuning.storage import open_storage, storage_uri
from cfmvc.tuning.tune import tune
from tests.tuning.conftest import with_tune

_PAGE = 4096  # bytes


def test_a_file_that_is_no_database_is_an_error_and_stays(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    file = tmp_path / "tune.db"
    file.write_text("trial,value\n0,0.5\n")
    with pytest.raises(ConfigError, match=r"storage .*tune.db: .* no SQLite .* another one"):
        tune(tmp_path, with_tune(params, storage="sqlite:///tune.db"))  # without any cells
    assert file.read_text() == "trial,value\n0,0.5\n"


def test_an_empty_file_and_none_are_made_into_databases(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("empty.db", "sub/new.db"):
        for _ in range(2):
            uri = storage_uri(f"sqlite:///{name}", tmp_path)
            assert open_storage(uri, 1, lambda study, trial: None).get_all_studies() == []


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat")
def test_a_trial_is_found_dead_whose_worker_was_killed_just_after_its_claim(tmp_path: Path) -> None:
    buried: list[int] = []
    uri = storage_uri("sqlite:///tune.db", tmp_path)
    storage = open_storage(uri, 1, lambda study, trial: buried.append(trial.number))
    study = optuna.create_study(storage=storage)
    study.ask().set_user_attr("claim", "a worker whose first sign of life never came")
    for _ in range(20):
        optuna.storages.fail_stale_trials(study)
        if buried:
            break
        time.sleep(0.5)
    assert buried == [0]


def test_a_database_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    uri = storage_uri("sqlite:///tune.db", tmp_path)
    open_storage(uri, 1, lambda study, trial: None).engine.dispose()
    with (tmp_path / "tune.db").open("r+b") as stream:
        stream.seek(100)  # behind the header
        stream.write(b"\xff" * (_PAGE - 100))
    with pytest.raises(TrackingError, match=r"the study's storage .*malformed"):
        open_storage(uri, 1, lambda study, trial: None)
