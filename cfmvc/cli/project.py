"""The folder of a pipeline: its ``params.yaml``, its ``data/raw``, and DVC, which is asked to."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfmvc.cli.params_text import with_value
from cfmvc.config import parse_section, read_yaml
from cfmvc.data.config import DataConfig
from cfmvc.errors import ConfigError, DataError
from cfmvc.files import atomic_path, md5_of_file

if TYPE_CHECKING:
    from anndata import AnnData

CANONICAL = {
    "counts_layer": "counts",
    "perturbation": "perturbation",
    "batch": "batch",
    "cell_type": "cell_type",
    "dose": "dose",
    "spatial": "spatial",
    "embeddings": "perturbation_embeddings",
    "control": "control",
}


@dataclass(frozen=True)
class Project:
    """A pipeline's folder.

    Parameters
    ----------
    folder
        The folder that holds ``params.yaml``.
    data
        Its section ``data``.
    dvc
        The command ``dvc``.
    """

    folder: Path
    data: DataConfig
    dvc: Path

    @classmethod
    def here(cls) -> "Project":
        """Take the current folder.

        Raises
        ------
        ConfigError
            If it has no ``params.yaml``, is no DVC project, or DVC is not installed.
        """
        folder = Path()
        params = folder / "params.yaml"
        if not params.is_file():
            raise ConfigError(
                f"no params.yaml in {folder.resolve()}: run this in the project's folder "
                "(to check a file anywhere, use cfmvc data check)"
            )
        data = parse_section(DataConfig, read_yaml(params).get("data") or {}, "data")
        beside_python = Path(sys.executable).parent / "dvc"
        found = str(beside_python) if beside_python.is_file() else shutil.which("dvc")
        if found is None:
            raise ConfigError("dvc is not installed: pip install 'cfmvc[pipeline]'")
        parents = [folder.resolve(), *folder.resolve().parents]
        if not any((parent / ".dvc").is_dir() for parent in parents):
            raise ConfigError(f"{folder.resolve()}: no DVC project; run: git init && dvc init")
        return cls(folder, data, Path(found))

    def expect_canonical_names(self) -> None:
        """Refuse a ``params.yaml`` that would not find the canonical names."""
        values = self.data.model_dump()
        other = [
            f"data.{key}: '{values[key]}' in params.yaml, but files under data/raw use '{name}'"
            for key, name in CANONICAL.items()
            if values[key] not in (name, "")  # for none of its own
        ]
        if other:
            other.append("set these back, and name the file's columns with --map KEY=COLUMN")
            raise ConfigError("\n".join(other))

    def path_of(self, name: str) -> Path:
        """Return where a data set of this name is kept.

        Raises
        ------
        ConfigError
            If it is no name, or the file of that name is made by a stage of the pipeline.
        """
        name = name.removesuffix(".h5ad")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ConfigError(
                f"--name '{name}': letters, digits, '.', '-' and '_' make a name of a data set"
            )
        path = self.folder / "data" / "raw" / f"{name}.h5ad"
        stage = self._stage_that_makes(path)
        if stage is not None:
            raise ConfigError(
                f"{path}: is made by the stage '{stage}' of dvc.yaml; "
                "give the data another name with --name NAME"
            )
        return path

    def store(self, cells: "AnnData", source: Path, path: Path, is_forced: bool) -> None:
        """Write canonical cells to a path under ``data/raw``."""
        from cfmvc.data.canonical import rename_control, write_canonical

        rename_control(cells, CANONICAL["control"])
        if "source_file" not in cells.uns["cfmvc"]:
            # canonical cells that are added once more keep their first source
            cells.uns["cfmvc"]["source_file"] = source.name
            cells.uns["cfmvc"]["source_md5"] = md5_of_file(source)
        with atomic_path(path) as made:
            write_canonical(cells, made)
            is_other = path.exists() and md5_of_file(path) != md5_of_file(made)
            if is_other and path.samefile(source):
                raise DataError(
                    f"{path}: is the file itself, and would be replaced by its canonical copy; "
                    "choose a --name"
                )
            if is_other and not is_forced:
                raise DataError(
                    f"{path}: another file of this name is there; choose a --name, "
                    "or replace it with --force"
                )

    def put_under_dvc(self, path: Path) -> None:
        """Run ``dvc add``."""
        done = subprocess.run(
            [self.dvc, "add", path],  # not --quiet, which hides the reason of a failure too
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ConfigError(
                f"dvc add {path} failed:\n{(done.stderr or done.stdout).strip()}\n"
                "params.yaml is as it was"
            )

    def use(self, path: Path, separator: str) -> dict[str, str]:
        """Make a file the pipeline's input, and return which lines of ``params.yaml`` changed."""
        params = self.folder / "params.yaml"
        with params.open(newline="") as stream:
            text = stream.read()
        wanted = {"path": path.as_posix(), "separator": separator}
        now = self.data.model_dump()
        changes = {key: value for key, value in wanted.items() if now[key] != value}
        for key, value in changes.items():
            text = with_value(text, "data", key, value)
        if changes:
            with atomic_path(params) as made, made.open("w", newline="") as stream:
                stream.write(text)
        return {f"data.{key}": value for key, value in changes.items()}

    def _stage_that_makes(self, path: Path) -> str | None:
        graph = self.folder / "dvc.yaml"
        stages = (read_yaml(graph).get("stages") or {}) if graph.is_file() else {}
        for name, stage in stages.items():
            # an output with options is a mapping from its path to them
            outs = [out if isinstance(out, str) else next(iter(out)) for out in _outs(stage)]
            if path.as_posix() in outs:
                return str(name)
        return None


def _outs(stage: Any) -> list[Any]:
    return (stage.get("outs") or []) if isinstance(stage, dict) else []
