"""Clients that know nothing but what a test tells them."""

from pathlib import Path

import pytest

from tests.registry.conftest import bundle
from tests.tracking.conftest import _own_store, template_store, workspace

__all__ = ["_own_store", "bundle", "template_store", "workspace"]

_OUTSIDE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Forget the developer's own keys and passwords, those in the home folder included."""
    for name in _OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
