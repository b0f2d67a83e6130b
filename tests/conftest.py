"""What every test may use."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

import h5py
import pytest
from filelock import FileLock

# Small matrices are slower on several threads, and the suite itself runs on both cores: two
# processes of two threads that wait for each other take ten times as long.
# Processes that compile the whole package anew, each for itself, take seconds more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
for _threads in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

pytest_plugins = ("tests.servers.fixtures",)

PROJECT = Path(__file__).resolve().parent.parent


# The published sets as their README describes them: cells and genes.
PUBLISHED = {
    "kang_pbmc_ifnb": (1556, 1267),
    "papalexi_thp1_crispr": (16192, 299),
    "airway_cftr_pig_confounded": (2722, 1339),
}


def pytest_configure() -> None:
    """Give all processes a temporary folder that goes at the end.

    Servers and killed processes leave files in theirs. What a failed test has in ``tmp_path`` stays
    where pytest keeps it.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it has the folder of the process that started it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="cfmvc-tests-")
    os.environ["TMPDIR"], tempfile.tempdir = folder, None
    # After what multiprocessing removes by itself, which is in there.
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the slow tests begin first, so that no worker ends with one while the others idle.

    The very first makes the project ``built``; whoever uses it too comes last of the slow ones,
    since a worker that wants it before it is there has nothing to do but wait.
    """

    def is_slow(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is not None

    def uses_built(item: pytest.Item) -> bool:
        return "built" in getattr(item, "fixturenames", ())

    first = next((item.path for item in items if is_slow(item) and uses_built(item)), None)

    def rank(item: pytest.Item) -> int:
        if not is_slow(item):
            return 3
        if not uses_built(item):
            return 1
        return 0 if item.path == first else 2

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Take back what a test before may have done: numba's first kernel gives torch all cores."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@contextmanager
def once_for_all(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """Give a folder that all workers share, and whether one has filled it; the others wait."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    ready = folder.with_suffix(".ready")
    with FileLock(folder.with_suffix(".lock")):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, ready.exists()
        ready.touch()


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """Return a function from the name of a real data set to its file, where it is at hand.

    The files lie beside a developer's checkout. A test that needs one is skipped, with the reason,
    where it is missing or is not the published one.
    """

    def find(name: str) -> Path:
        path = PROJECT.parent / "shared" / "data" / f"{name}.h5ad"
        if not path.is_file():
            pytest.skip(f"real data not at hand: no shared/data/{name}.h5ad beside the checkout")
        with h5py.File(path) as file:
            found = (len(file["obs/batch/codes"]), len(file["var/_index"]))
        if found != PUBLISHED[name]:
            expected = " x ".join(map(str, PUBLISHED[name]))
            pytest.skip(
                f"shared/data/{name}.h5ad is not the published file: it has "
                f"{found[0]} x {found[1]} cells x genes instead of {expected}"
            )
        return path

    return find
