"""A model in the registry: its versions, and what people call them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml, section_of
from cfmvc.errors import ConfigError, listed
from cfmvc.registry.config import RegisterConfig
from cfmvc.registry.proof.subject import find_subject
from cfmvc.registry.tags import BUNDLE_TAG
from cfmvc.tracking.downloads import existing_store
from cfmvc.tracking.store import Store


@dataclass(frozen=True)
class Registry:
    """The versions of one model.

    Parameters
    ----------
    store
        Where they are.
    name
        Name of the registered model.
    """

    store: Store
    name: str

    @classmethod
    def of_project(cls, project: Path) -> "Registry":
        """Open the registry that a project registers its models in.

        Raises
        ------
        ConfigError
            If ``params.yaml`` does not name the model.
        TrackingError
            If the store is not there, or does not answer.
        """
        config = section_of(read_yaml(project / "params.yaml"), "register", RegisterConfig)
        return cls(existing_store(f"models:/{config.name}", project), config.name)

    def versions(self) -> list[Any]:
        """Return MLflow's versions, the newest first, with the aliases that point to each."""
        found = self.store.versions(f"name = '{self.name}'")
        return sorted(found, key=lambda version: -int(version.version))

    def hashes(self) -> dict[int, str]:
        """Return number and hash of the versions that are there; what has no hash has an empty one.

        A number alone names no model: where the registered model is deleted in MLflow and made
        again, they start at 1 again.
        """
        return {int(one.version): one.tags.get(BUNDLE_TAG, "") for one in self.versions()}

    def aliases(self) -> dict[str, int]:
        """Return the aliases and the versions that they point to; none where there is no model."""
        from mlflow.exceptions import MlflowException

        try:
            model = self.store.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: int(version) for alias, version in model.aliases.items()}

    def version(self, called: str) -> Any:
        """Return the version that is called so.

        Parameters
        ----------
        called
            ``3``, ``candidate``, ``@candidate``, ``models:/NAME/3`` or ``models:/NAME@candidate``.

        Raises
        ------
        ConfigError
            If there is none; those that there are, are listed.
        """
        found = find_subject(called, self.store, self.store.home, self.name)
        if found.version is None:
            made = self.store.versions(f"run_id = '{called}'")
            numbers = sorted(int(one.version) for one in made if one.name == self.name)
            registered = f"version {listed(numbers)}" if numbers else "no version"
            raise ConfigError(f"{called}: is a run; it has registered {registered}")
        if found.version.name != self.name:
            raise ConfigError(f"{called}: not a version of '{self.name}'")
        return found.version

    def point(self, alias: str, version: int | None) -> None:
        """Let an alias point to a version; None: to nothing."""
        if version is None:
            self.store.client.delete_registered_model_alias(self.name, alias)
        else:
            self.store.client.set_registered_model_alias(self.name, alias, str(version))
