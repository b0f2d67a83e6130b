"""A trained model as a version in the MLflow registry, once and only once."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from cfmvc.errors import CfmvcError, TrackingError
from cfmvc.files import json_text
from cfmvc.registry.config import RegisterConfig
from cfmvc.registry.hashes import sha256_of_folder, sha256_of_values
from cfmvc.registry.model_folder import code_sha256, packaged
from cfmvc.registry.proof.whole import is_whole_model, is_whole_version
from cfmvc.registry.tags import (
    BUNDLE_TAG,
    CODE_TAG,
    EVALUATION_FILE,
    EVALUATION_TAG,
    FIGURE_PREFIX,
    FILES_TAG,
    MODEL_TAG,
    model_figures,
)
from cfmvc.registry.training_facts import training_facts
from cfmvc.tracking.config import shareable_uri
from cfmvc.tracking.lineage import DIRTY_TAG, is_lineage
from cfmvc.tracking.spool_tracker import SpoolTracker
from cfmvc.tracking.store import UID_TAG, Store, as_default, first_line, patience

_VERSIONS_TAG = "mlflow.modelVersions"
_LONGEST_TAG = 4000
_OF_THE_RUN = ("mlflow.", "cfmvc.stage")  # tags that say nothing of a version
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry.

    Parameters
    ----------
    name, version, alias
        ``models:/<name>/<version>``, which is ``models:/<name>@<alias>`` for now.
    bundle_sha256
        Hash of the model's files.
    tracking_uri
        Address of the registry, without passwords; an SQLite file relative to the project.
    """

    name: str
    version: int
    alias: str
    bundle_sha256: str
    tracking_uri: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)


def register_model(
    bundle: Path,
    evaluation: Mapping[str, Any],
    config: RegisterConfig,
    tracker: SpoolTracker,
    workspace: Path | None = None,
) -> RegisteredVersion:
    """Make a version of a model, with its tags from the start, and point the alias at it.

    The same files, evaluation and code are the same version: called again, also after a kill at
    any moment, it finds what is there and completes it.

    Parameters
    ----------
    bundle
        Folder of a trained model.
    evaluation
        Figures by method (``{"model": {"pearson_delta": 0.8, ...}, "control": ...}``), or the
        model's alone.
    config
        Name and alias.
    tracker
        Of the run that registers it.
    workspace
        Project whose results say what the training has cost (see
        :func:`~cfmvc.registry.training_facts.training_facts`); none: the version does not say.

    Raises
    ------
    TrackingError
        If the registry does not answer.
    """
    identity = {
        BUNDLE_TAG: sha256_of_folder(bundle),
        EVALUATION_TAG: sha256_of_values(evaluation),
        CODE_TAG: code_sha256(),
    }
    tracker.log_text(json_text(evaluation, allow_nan=True), EVALUATION_FILE)
    with _says_what_to_do(tracker.uri), patience():
        run_id = tracker.wait_for_run(_WAIT_SECONDS)
        store = Store.connect(tracker.uri, tracker.home)
        with FileLock(tracker.home / ".cfmvc" / "register.lock"), as_default(store):
            facts = {} if workspace is None else training_facts(workspace, store)
            registrar = _Registrar(store, config.name, identity, run_id, facts)
            version = registrar.version(bundle, evaluation, tracker)
            registrar.point(config.alias, version)
    return RegisteredVersion(
        config.name,
        version,
        config.alias,
        identity[BUNDLE_TAG],
        shareable_uri(tracker.uri, tracker.home),
    )


@dataclass(frozen=True)
class _Registrar:
    store: Store
    name: str
    identity: dict[str, str]
    run_id: str
    facts: dict[str, str]

    def version(self, bundle: Path, evaluation: Mapping[str, Any], tracker: SpoolTracker) -> int:
        """Find the version, or make it in one step: with its tags, or not at all."""
        self._ensure_model()
        found = self.store.client.search_model_versions(
            f"name = '{self.name}' and {self._is_identical()}"
        )
        lineage = {k: v for k, v in tracker.lineage.items() if not k.startswith(_OF_THE_RUN)}
        figures = model_figures(evaluation)
        lineage |= self.facts
        lineage |= {f"{FIGURE_PREFIX}{name}": repr(value) for name, value in figures.items()}
        for version in sorted(found, key=lambda version: int(version.version)):
            if is_whole_version(version, self.store):
                self._rest_on(version, {**lineage, UID_TAG: tracker.uid})
                return int(version.version)
        model = self._logged_model(bundle, figures)
        tags = {**lineage, **self.identity, UID_TAG: tracker.uid}
        tags |= {MODEL_TAG: model.model_id, FILES_TAG: model.tags[FILES_TAG]}
        made = self.store.client.create_model_version(
            self.name,
            source=f"models:/{model.model_id}",
            run_id=model.source_run_id,
            tags={name: value[:_LONGEST_TAG] for name, value in tags.items()},
            model_id=model.model_id,
            description=_description(figures),
        )
        self._link(model, int(made.version))
        return int(made.version)

    def point(self, alias: str, version: int) -> None:
        """Let the alias point to the version, if it does not yet."""
        model = self.store.client.get_registered_model(self.name)
        if str(model.aliases.get(alias)) != str(version):
            self.store.client.set_registered_model_alias(self.name, alias, str(version))

    def _rest_on(self, version: Any, lineage: Mapping[str, str]) -> None:
        """Let a version rest on the run that has made the very same one again.

        The run before may have been killed or deleted, its commit rewritten, its tree a changed
        one: what is there now can be proven. Its name comes last, so that a kill halfway is made
        good the next time. A changed tree takes nothing from a clean one.
        """
        if version.tags.get(DIRTY_TAG) == "false" != lineage.get(DIRTY_TAG):
            return
        client, number = self.store.client, version.version
        kept = {name: value[:_LONGEST_TAG] for name, value in lineage.items()}
        for name, value in version.tags.items():
            is_ours = is_lineage(name) or name.startswith(FIGURE_PREFIX)
            if is_ours and name not in kept:
                client.delete_model_version_tag(self.name, number, name)
            elif kept.get(name) == value:
                del kept[name]
        for name in sorted(kept, key=lambda name: name == UID_TAG):
            client.set_model_version_tag(self.name, number, name, kept[name])

    def _link(self, model: Any, version: int) -> None:
        """Let the logged model's page show the version, as MLflow itself does."""
        value = json.dumps([{"name": self.name, "version": version}])
        self.store.client.set_logged_model_tags(model.model_id, {_VERSIONS_TAG: value})

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.store.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged_model(self, bundle: Path, figures: Mapping[str, float]) -> Any:
        """Return the model's files in the store; whole ones that a killed run left are used."""
        client = self.store.client
        experiment_id = client.get_run(self.run_id).info.experiment_id
        left = client.search_logged_models([experiment_id], self._is_identical())
        ready = [model for model in left if str(model.status) == "READY"]
        whole = [model for model in ready if is_whole_model(model, self.store)]
        if whole:
            return whole[-1]
        for model in left:
            if model not in ready and self._status(model) != "RUNNING":
                client.delete_logged_model(model.model_id)  # half there, and nobody is at it
        return self._log_model(bundle, figures, experiment_id)

    def _status(self, model: Any) -> str:
        return str(self.store.client.get_run(model.source_run_id).info.status)

    def _log_model(self, bundle: Path, figures: Mapping[str, float], experiment_id: str) -> Any:
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.models import Model

        client = self.store.client
        model = client.create_logged_model(
            experiment_id, name=self.name, source_run_id=self.run_id, tags=self.identity
        )
        description = Model(
            artifact_path=model.artifact_location,
            model_uuid=model.model_id,
            run_id=self.run_id,
            model_id=model.model_id,
        )
        with packaged(bundle, description) as folder:
            files = {FILES_TAG: sha256_of_folder(folder)}
            client.set_logged_model_tags(model.model_id, files)
            client.log_model_artifacts(model.model_id, str(folder))
        client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        metrics = [
            Metric(name, value, model.creation_timestamp, 0, model_id=model.model_id)
            for name, value in figures.items()
        ]
        client.log_batch(self.run_id, metrics=metrics)
        return client.finalize_logged_model(model.model_id, "READY")

    def _is_identical(self) -> str:
        return " and ".join(f"tags.`{name}` = '{value}'" for name, value in self.identity.items())


def _description(figures: Mapping[str, float]) -> str | None:
    """Return a version's figures in words, for its page; None if it was not evaluated."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    return f"On the held-out conditions: {shown}" if shown else None


@contextmanager
def _says_what_to_do(uri: str) -> Iterator[None]:
    try:
        yield
    except CfmvcError as error:
        if isinstance(error, TrackingError):
            raise TrackingError(f"{error}{_advice()}") from error
        raise
    except Exception as error:  # whatever MLflow and its drivers raise
        raise TrackingError(f"{first_line(error)}{_advice()}") from error


def _advice() -> str:
    return (
        "\nnothing was registered; the model itself is safe. Check MLFLOW_TRACKING_URI and "
        "tracking.uri in params.yaml, start the server, and run the stage again"
    )
