"""One at a time in a database: on whatever machines they are if it is PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from cfmvc.errors import TrackingError
from cfmvc.tracking.config import sqlite_file

OPENING = 0x6366_0001  # any number, as long as nobody else locks the same in this database
_CONNECT_SECONDS = 2  # MLflow would try for a minute and a half


@contextmanager
def one_at_a_time(uri: str, key: int = OPENING) -> Iterator[None]:
    """Hold the lock of a database, of whatever kind it is: of a server nobody needs one.

    Parameters
    ----------
    uri
        Absolute address of an SQLite file, of a PostgreSQL database, or of a server.
    key
        What is locked; an SQLite file has one lock for everything.
    """
    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            yield
    elif uri.startswith("postgresql"):
        with database_lock(uri, key):
            yield
    else:
        yield


@contextmanager
def database_lock(uri: str, key: int = OPENING) -> Iterator[None]:
    """Hold an advisory lock; PostgreSQL frees it when the process that holds it dies.

    Parameters
    ----------
    uri
        Address of the database, as SQLAlchemy takes it.
    key
        What is locked.

    Raises
    ------
    TrackingError
        If the driver that the address names is not installed.
    sqlalchemy.exc.OperationalError
        If there is no database, or it does not take the password.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    patience = {"connect_timeout": _CONNECT_SECONDS}
    try:
        engine = create_engine(uri, poolclass=NullPool, connect_args=patience)
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"no driver {error.name}; pip install 'cfmvc[team]', and let the address begin with "
            "postgresql+psycopg://"
        ) from error
    # of the transaction, not of the session: that would not get through a pool of connections
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield
