"""The database of studies."""

import logging
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, DatabaseError

from cfmvc.errors import ConfigError, TrackingError
from cfmvc.tracking.config import home_of, sqlite_file, without_password
from cfmvc.tracking.database_lock import one_at_a_time

_BUSY_SECONDS = 120  # how long an SQLite file may be locked by another process
_MISSED = 3  # signs of life, after which a worker is dead
_SCHEMA = 0x6366_0002
_SQLITE_HEAD = b"SQLite format 3\0"


def storage_uri(uri: str | None, workspace: Path) -> str:
    """Return the absolute address of a study's database.

    Raises
    ------
    ConfigError
        If it is neither SQLite nor PostgreSQL, or the file is something else.
    """
    home = home_of(workspace)
    if uri is None:
        uri = "sqlite:///.cfmvc/tune.db"
    if uri.startswith("sqlite:///"):
        absolute = f"sqlite:///{home / uri.removeprefix('sqlite:///')}"
        _expect_database(sqlite_file(absolute))
        return absolute
    if uri.startswith("postgresql"):
        return uri
    raise ConfigError(
        f"storage '{without_password(uri)}': a study is kept in sqlite:///FILE.db or in "
        "postgresql+psycopg://USER@HOST/DATABASE"
    )


def _expect_database(file: Path | None) -> None:
    """Leave SQLite a file that it can take, one to make, and what it says itself cannot be read."""
    head = b""
    if file is not None and file.is_file():
        with suppress(OSError), file.open("rb") as stream:
            head = stream.read(len(_SQLITE_HEAD))
    if head not in (b"", _SQLITE_HEAD):
        raise ConfigError(
            f"storage {file}: the file is there, and is no SQLite database; name another one "
            "(tune.storage, --storage), or move it away"
        )


def open_storage(
    uri: str, heartbeat_seconds: float, on_stale: Callable[[Study, FrozenTrial], None]
) -> RDBStorage:
    """Open the database, and make its tables where there are none.

    Parameters
    ----------
    uri
        From :func:`storage_uri`.
    heartbeat_seconds
        Between a worker's signs of life; it is dead after three missed ones.
    on_stale
        Told a dead worker's trial, after it has failed.

    Raises
    ------
    TrackingError
        If it cannot be reached, is damaged, or was made by another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    grace = max(1, round(_MISSED * heartbeat_seconds))
    file = sqlite_file(uri)
    engine: dict[str, Any] = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        engine = {"connect_args": {"timeout": _BUSY_SECONDS}}
    try:
        with one_at_a_time(uri, _SCHEMA), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _PatientStorage(
                uri,
                engine_kwargs=engine,
                heartbeat_interval=max(1, round(heartbeat_seconds)),
                grace_period=grace,
                heartbeat_stale_trial_callback=on_stale,
            )
    except (DatabaseError, ArgumentError, RuntimeError) as error:
        reason = without_password(str(error)).strip().splitlines()[0]
        raise TrackingError(f"the study's storage {without_password(uri)}: {reason}") from error


class _PatientStorage(RDBStorage):
    """A storage whose signs of life outlast a database that is away for one of them.

    Optuna's thread ends with the first that fails, and a living trial is taken for dead. Nor does
    a trial without any sign of life ever count as dead: who writes something of it gives one first.
    """

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write something of a trial down that its worker says."""
        self.record_heartbeat(trial_id)  # Optuna's thread may not have come to its first one
        super().set_trial_user_attr(trial_id, key, value)

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a sign of life down; one that cannot be is left out."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def key_of(study: str) -> int:
    """Return what is locked while a trial of a study is claimed."""
    return zlib.crc32(study.encode())
