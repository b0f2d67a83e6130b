"""Is anybody there? Asked in two seconds, before MLflow asks for a minute and a half.

MLflow tries to open a database fifteen times, with longer and longer pauses, and an HTTP client
waits for whoever has taken the connection. Neither may hold up a stage.
"""

import os
import socket
import sqlite3
import ssl
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import urlopen

from cfmvc.tracking.config import sqlite_file

PROBE_SECONDS = 2.0
_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


def expect_reachable(uri: str) -> None:
    """Return if a store's address answers, or if only MLflow can find that out.

    Parameters
    ----------
    uri
        Absolute address of a store. Nothing is made there: an SQLite file that does not exist yet
        is reachable if its folder can take it.

    Raises
    ------
    OSError, sqlite3.Error
        If there is nobody, or not in ``PROBE_SECONDS``.
    """
    file, parts = sqlite_file(uri), urlsplit(uri)
    if file is not None:
        _probe_file(file)
    elif parts.scheme in ("http", "https"):
        _probe_http(parts)
    elif parts.hostname and (port := parts.port or _PORTS.get(parts.scheme.partition("+")[0])):
        socket.create_connection((parts.hostname, port), PROBE_SECONDS).close()


def _probe_file(file: Path) -> None:
    if not file.exists():
        folder = next(parent for parent in file.parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OSError(f"unable to make a database in {folder}")
        return
    database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", timeout=0, uri=True)
    try:
        database.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # busy: it is there
            raise
    finally:
        database.close()


def _probe_http(parts: SplitResult) -> None:
    """Any answer will do, a refusal included; what it means is MLflow's to say."""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    address = urlunsplit(bare._replace(path=f"{parts.path.rstrip('/')}/health"))
    try:
        # unlike a plain connection, urlopen goes through the proxy of the environment
        urlopen(address, timeout=PROBE_SECONDS).close()
    except HTTPError:
        return
    except TimeoutError as error:
        raise TimeoutError(f"nothing said in {PROBE_SECONDS:g} s") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"no connection in {PROBE_SECONDS:g} s") from error
        if not isinstance(error.reason, ssl.SSLError):
            raise
