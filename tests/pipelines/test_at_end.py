"""What a stage does when its run is closed, seen from within."""

from pathlib import Path

import pytest

from cfmvc.errors import DataError
from cfmvc.tracking.store import Store
from pipelines._stage import stage
from tests.tracking.conftest import _own_store, store, template_store, workspace

__all__ = ["_own_store", "store", "template_store", "workspace"]


def ended(store: Store) -> list[str]:
    return [run.info.status for run in store.find_runs(store.experiment_ids(), "")]


def test_it_is_done_when_all_has_arrived(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop before that must find the checkpoints still there."""
    monkeypatch.chdir(workspace)
    seen: list[list[str]] = []
    with stage("prepare") as run:
        run.at_end.append(lambda: seen.append(ended(store)))
    assert seen == [["FINISHED"]]


def test_a_stage_that_fails_does_it_not(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    seen: list[str] = []

    def main() -> None:
        with stage("prepare") as run:
            run.at_end.append(lambda: seen.append("done"))
            raise DataError("no cells")

    with pytest.raises(SystemExit):
        main()
    assert (seen, ended(store)) == ([], ["FAILED"])
