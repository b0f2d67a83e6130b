"""A registry of four versions, each better than the one before, and what is asked of it."""

from pathlib import Path

import pytest

from cfmvc.registry.doctor import examine
from cfmvc.registry.registry import Registry
from tests.registry.a_promoter import NAME, make_version, registry_at


@pytest.fixture
def registry(workspace: Path) -> Registry:
    """Return a registry with versions 1 to 4, of quality 1 to 4."""
    registry = registry_at(f"sqlite:///{workspace / 'mlflow.db'}", workspace)
    registry.store.client.create_registered_model(NAME)
    for quality in (1.0, 2.0, 3.0, 4.0):
        make_version(registry, quality)
    return registry


def aliases(registry: Registry) -> tuple[int | None, int | None]:
    found = registry.aliases()
    return found.get("champion"), found.get("previous")


def states(registry: Registry) -> set[str]:
    return {finding.state for finding in examine(registry)}
