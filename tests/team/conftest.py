"""Clients that know nothing but what a test tells them."""

from pathlib import Path

import pytest

from tests.registry.conftest import bundle
from tests.tracking.conftest import PARAMS, _own_store, template_store

__all__ = ["_own_store", "bundle", "template_store"]

_OUTSIDE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a project's folder, with no store in it."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Forget the developer's own keys and passwords, those in the home folder included."""
    for name in _OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
