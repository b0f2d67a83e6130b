"""What every stage of the pipeline does around its own work."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cfmvc.config import Section, parse_section, read_yaml
from cfmvc.errors import CfmvcError, ConfigError, listed
from cfmvc.shards import Shard, process_group
from cfmvc.tracking import SpoolTracker, TrackingConfig, stage_run
from cfmvc.tracking.tracker import NullTracker, Tracker

SectionT = TypeVar("SectionT", bound=Section)


@dataclass
class Stage:
    """A stage at work: its parameters, and where its figures go.

    Parameters
    ----------
    name
        Name of the stage, as in ``dvc.yaml``.
    workspace
        The project's folder.
    tracker
        Of the stage's MLflow run.
    """

    name: str
    workspace: Path
    tracker: Tracker
    _params: dict[str, Any]
    shard: Shard = field(default_factory=Shard)

    def section(self, name: str, section: type[SectionT]) -> SectionT:
        """Read a section of ``params.yaml``; its values are logged before anything is computed."""
        if name not in self._params:
            raise ConfigError(f"params.yaml: no section '{name}'; sections: {listed(self._params)}")
        config = parse_section(section, self._params[name], name)
        self.tracker.log_params(flattened(name, config.model_dump()))
        return config

    def link(self) -> None:
        """Write which run this is, so that an output restored by DVC still leads to it."""
        assert isinstance(self.tracker, SpoolTracker)
        self.tracker.write_link(self.workspace / "results" / "runs" / f"{self.name}.json")


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Open the stage's run, print errors meant for the user bare, and set the exit code."""
    workspace = Path.cwd()
    try:
        params = read_yaml(workspace / "params.yaml")
        if "tracking" not in params:
            raise ConfigError("params.yaml: no section 'tracking'")
        tracking = parse_section(TrackingConfig, params["tracking"], "tracking")
        with process_group() as shard:
            if not shard.is_first:  # it computes its share; the first one writes and logs
                yield Stage(name, workspace, NullTracker(), params, shard)
                return
            with stage_run(name, workspace, tracking) as tracker:
                opened = Stage(name, workspace, tracker, params, shard)
                yield opened
                opened.link()
    except CfmvcError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def flattened(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"vae.lr": 0.001, ...}``."""
    return {f"{prefix}.{key}": value for key, value in values.items()}
