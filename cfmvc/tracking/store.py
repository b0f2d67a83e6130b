"""The MLflow store: opened once under a lock, and asked in a few plain ways.

MLflow is imported when a store is first connected, in whatever thread does it, so that importing
this module costs nothing.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cfmvc.errors import TrackingError
from cfmvc.files import atomic_path
from cfmvc.tracking.access import denial
from cfmvc.tracking.config import URI_VARIABLE, home_of, sqlite_file, without_password
from cfmvc.tracking.database_lock import one_at_a_time
from cfmvc.tracking.reach import expect_reachable

# A dead server must be noticed quickly: who sends a spool tries again by itself.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
}
UID_TAG = "cfmvc.uid"


@dataclass(frozen=True)
class Store:
    """A connected store.

    Parameters
    ----------
    client
        MLflow's client.
    uri
        Address of the store.
    home
        Folder of the project.
    """

    client: Any
    uri: str
    home: Path

    @classmethod
    def connect(
        cls, uri: str, workspace: Path, on_answer: Callable[[], None] = lambda: None
    ) -> "Store":
        """Open a store; a fresh SQLite file or PostgreSQL database gets its tables here.

        Parameters
        ----------
        uri
            Its absolute address.
        workspace
            The project's folder.
        on_answer
            Called once the store has answered at all, before the work of opening it.

        Raises
        ------
        TrackingError
            If it cannot be reached, or turns us away.
        """
        for name, value in {**_IMPATIENT, **_QUIET}.items():
            os.environ.setdefault(name, value)
        _silence()
        home = home_of(workspace)
        try:
            expect_reachable(uri)
            on_answer()
            from mlflow import MlflowClient

            with one_at_a_time(uri):  # two that migrate a fresh one would collide
                _make_whole(uri)
                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                client.search_experiments(max_results=1)
        except Exception as error:  # any driver's own error: it could not be reached
            said = denial(error) or f"no answer: {first_line(error)}"
            raise TrackingError(f"{without_password(uri)}: {said}") from error
        return cls(client, uri, home)

    @property
    def is_server(self) -> bool:
        """Return whether a server answers, and not a database directly."""
        return not self.uri.startswith(("sqlite:", "postgresql", "mysql", "mssql"))

    def experiment_id(self, name: str) -> str:
        """Return the experiment of that name, which is made where there is none.

        Raises
        ------
        TrackingError
            If it was deleted: what is in the trash is not ours to bring back.
        """
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                # The kind decides which of its pages MLflow shows first.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                location = self._artifact_location()
                return str(self.client.create_experiment(name, location, tags=kind))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self.client.get_experiment_by_name(name)
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment '{name}' was deleted; bring it back with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`, or change tracking.experiment"
            )
        return str(experiment.experiment_id)

    def experiment_ids(self) -> list[str]:
        """Return the ids of all experiments that are not deleted."""
        return [experiment.experiment_id for experiment in self._experiments()]

    def _experiments(self, view_type: int | None = None) -> Iterator[Any]:
        """Yield the active experiments, or those of another kind; a page holds but a thousand."""
        from mlflow.entities import ViewType

        kind = ViewType.ACTIVE_ONLY if view_type is None else view_type
        yield from _all_pages(partial(self.client.search_experiments, view_type=kind))

    def versions(self, condition: str) -> Iterator[Any]:
        """Yield all versions of registered models that meet a condition."""
        yield from _all_pages(partial(self.client.search_model_versions, condition))

    def find_run(self, uid: str, experiment_ids: list[str]) -> Any | None:
        """Return the run with the tag ``cfmvc.uid``, or None."""
        found = self.client.search_runs(
            experiment_ids, f"tags.`{UID_TAG}` = '{uid}'", max_results=1
        )
        return found[0] if found else None

    def find_run_anywhere(self, uid: str) -> Any | None:
        """Return the run with the tag ``cfmvc.uid``, or else a deleted one, or None."""
        from mlflow.entities import ViewType

        # Of a deleted run what was still to be sent has gone to another one with its uid.
        if (active := self.find_run(uid, self.experiment_ids())) is not None:
            return active
        found = self.client.search_runs(
            [experiment.experiment_id for experiment in self._experiments(ViewType.ALL)],
            f"tags.`{UID_TAG}` = '{uid}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return found[0] if found else None

    def find_runs(self, experiment_ids: list[str], condition: str) -> Iterator[Any]:
        """Yield all runs that meet a condition in MLflow's filter language."""
        yield from _all_pages(partial(self.client.search_runs, experiment_ids, condition))

    def _artifact_location(self) -> str | None:
        """Return where a new experiment keeps its files; a server knows by itself."""
        if self.is_server:
            return None
        file = sqlite_file(self.uri)
        folder = (self.home if file is None else file.parent) / "mlartifacts"
        return folder.as_uri()


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def patience() -> Iterator[None]:
    """Let requests take their time, as an upload of a model may."""
    before = {name: os.environ.get(name) for name in _IMPATIENT}
    ours = [name for name, value in _IMPATIENT.items() if before[name] == value]
    for name in ours:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: _IMPATIENT[name] for name in ours})


@contextmanager
def as_default(store: Store) -> Iterator[None]:
    """Make a store MLflow's own default for a while.

    MLflow resolves ``models:/`` addresses in its default store, whatever a client was given.
    """
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    before = os.environ.get(URI_VARIABLE)
    try:
        with _use_tracking_uri(store.uri):
            yield
    finally:
        os.environ.pop(URI_VARIABLE, None)
        if before is not None:
            os.environ[URI_VARIABLE] = before


def is_refusal(error: Exception) -> bool:
    """Return whether the store will never take what it was sent."""
    return getattr(error, "error_code", None) in _REFUSALS


def is_lost(error: Exception) -> bool:
    """Return whether the store does not know the run any more."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def first_line(error: BaseException) -> str:
    """Return an error in one line without passwords.

    Of a lost connection it is what the system said, of a server that turned us away what to do.
    """
    denied = denial(error)
    if denied is not None:
        return denied
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = without_password(str(error)).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _make_whole(uri: str) -> None:
    """Make a fresh SQLite file elsewhere and move it into place; the lock is held.

    A process killed amid the migrations would leave tables that no later one can migrate.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    from mlflow import MlflowClient

    with atomic_path(file) as made:
        address = f"sqlite:///{made}"
        MlflowClient(tracking_uri=address, registry_uri=address).search_experiments(max_results=1)


def _silence() -> None:
    """Keep MLflow and its migrations from chatting on the terminal of a stage."""
    for name in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
