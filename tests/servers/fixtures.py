"""The servers as fixtures: one of each for a test process, started when a test first asks.

Workers of pytest-xdist share none, so that a test may kill a server without asking the others;
``--dist loadfile`` keeps the tests of a file, and so their servers, in one worker.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.postgres import Postgres, name_of
from tests.servers.s3 import S3
from tests.servers.team import TeamServer


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Return a PostgreSQL server."""
    server = Postgres(tmp_path_factory.mktemp("postgres") / "data")
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> str:
    """Return a database with MLflow's tables: making them takes seconds, copying them does not."""
    from cfmvc.tracking.store import Store

    uri = postgres_server.database()
    Store.connect(uri, Path.cwd())
    _disconnect(uri)
    return name_of(uri)


@pytest.fixture
def fresh_postgres(postgres_server: Postgres) -> str:
    """Return the address of a PostgreSQL database with nothing in it."""
    return postgres_server.database()


@pytest.fixture
def postgres(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """Return the address of a PostgreSQL database of the test's own, with MLflow's tables."""
    uri = postgres_server.database(postgres_template)
    yield uri
    _disconnect(uri)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Return an S3 server with the buckets ``mlflow`` and ``dvc``."""
    server = S3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="session")
def team_server(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: Postgres,
    postgres_template: str,
    s3: S3,
) -> Iterator[TeamServer]:
    """Return an MLflow server on PostgreSQL and S3, with users."""
    backend = postgres_server.database(postgres_template)
    folder = tmp_path_factory.mktemp("team")
    server = TeamServer(folder, backend, postgres_server.database(), s3)
    server.start_with_users()
    yield server
    server.kill()


@pytest.fixture
def as_ada(team_server: TeamServer, monkeypatch: pytest.MonkeyPatch) -> TeamServer:
    """Let this process be a client of the team's server, as its user ada."""
    for name, value in team_server.environment().items():
        monkeypatch.setenv(name, value)
    return team_server


def _disconnect(uri: str) -> None:
    """Close this process's connections: one that is open keeps a database from being copied."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

    for store in (Runs, Registry):
        engine = store._engine_map.get(uri)
        if engine is not None:
            engine.dispose()
