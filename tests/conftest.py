"""What every test may use."""

import os
from pathlib import Path

import pytest

# Small matrices are slower on several threads, and the suite itself runs on both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, which lies beside a developer's checkout."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not at hand: no folder shared/data beside the checkout")
    return folder
