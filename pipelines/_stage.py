"""What every stage of the pipeline does around its own work."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cfmvc.config import Section, read_yaml, section_of
from cfmvc.errors import CfmvcError, DataError
from cfmvc.shards import Shard, process_group
from cfmvc.tracking import SpoolTracker, TrackingConfig, stage_run
from cfmvc.tracking.config import home_of
from cfmvc.tracking.resumption import Resumption
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
    fingerprint
        Of a training: of its data, parameters and code.
    resumption
        Of a training, in the process that writes: the run that it belongs to.
    at_end
        What is done when the run is closed, and nothing of the stage can be stopped any more.
    """

    name: str
    workspace: Path
    tracker: Tracker
    _params: dict[str, Any]
    shard: Shard = field(default_factory=Shard)
    fingerprint: str = ""
    resumption: Resumption | None = None
    at_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; an experiment's outlive its temporary folder."""
        home = home_of(self.workspace)
        kept = home / ".cfmvc" / "checkpoints"
        is_project = home == self.workspace.resolve()
        return kept if is_project else kept / "experiments" / self.fingerprint[:16]

    def section(self, name: str, section: type[SectionT]) -> SectionT:
        """Read a section of ``params.yaml``; its values are logged before anything is computed."""
        config = section_of(self._params, name, section)
        self.tracker.log_params(flattened(name, config.model_dump()))
        return config

    def link(self) -> None:
        """Write which run this is, so that an output restored by DVC still leads to it."""
        assert isinstance(self.tracker, SpoolTracker)
        self.tracker.write_link(self.workspace / "results" / "runs" / f"{self.name}.json")


@contextmanager
def stage(name: str, sections: Sequence[str] = (), files: Sequence[Path] = ()) -> Iterator[Stage]:
    """Open the stage's run, print errors meant for the user bare, and set the exit code.

    A training names the ``sections`` of params.yaml and the ``files`` that it depends on. Killed
    and started again it goes on from its last checkpoint, in the run that it had, and nobody has to
    ask for it: nothing is taken from other data, parameters or code, and going on gives the same
    bits as starting again.
    """
    workspace = Path.cwd()
    try:
        params = read_yaml(workspace / "params.yaml")
        tracking = section_of(params, "tracking", TrackingConfig)
        with process_group() as shard:
            opened = Stage(name, workspace, NullTracker(), params, shard)
            if sections:
                _expect(files)
                from cfmvc.stages.checkpointing import fingerprint_of  # torch: only trainings wait

                values = {section: params.get(section) for section in (*sections, "compute")}
                opened.fingerprint = fingerprint_of(files, values)
            if not shard.is_first:  # it computes its share; the first one writes and logs
                yield opened
                return
            with _resumption(opened) as opened.resumption:
                with _run(opened, tracking):
                    yield opened
                    opened.link()
                for act in opened.at_end:
                    act()
    except CfmvcError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _expect(files: Sequence[Path]) -> None:
    missing = [path for path in files if not path.exists()]
    if missing:
        raise DataError(f"{missing[0]}: no such file; `dvc repro` makes it, or `dvc pull` gets it")


@contextmanager
def _resumption(opened: Stage) -> Iterator[Resumption | None]:
    """Keep other processes from a training's checkpoints, and find the run that they belong to."""
    if not opened.fingerprint:
        yield None
        return
    from cfmvc.training.alone import alone

    folder = opened.checkpoints / opened.name
    with alone(folder.with_suffix(".lock"), str(folder)):
        yield Resumption(folder, opened.fingerprint)


@contextmanager
def _run(opened: Stage, tracking: TrackingConfig) -> Iterator[None]:
    with stage_run(
        opened.name, opened.workspace, tracking, resumption=opened.resumption
    ) as opened.tracker:
        yield


def flattened(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"vae.lr": 0.001, ...}``."""
    return {f"{prefix}.{key}": value for key, value in values.items()}
