"""The folder of a pipeline: its ``params.yaml``, its ``data/raw``, and DVC, which is asked to."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from cfmvc.config import parse_section, read_yaml
from cfmvc.data.config import DataConfig
from cfmvc.errors import ConfigError, DataError, listed
from cfmvc.files import atomic_path, md5_of_file

if TYPE_CHECKING:
    from anndata import AnnData

_CANONICAL = {
    "counts_layer": "counts",
    "perturbation": "perturbation",
    "batch": "batch",
    "cell_type": "cell_type",
    "dose": "dose",
    "spatial": "spatial",
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
            for key, name in _CANONICAL.items()
            if values[key] != name
        ]
        if other:
            other.append("set these back, and name the file's columns with --map KEY=COLUMN")
            raise ConfigError("\n".join(other))

    def store(self, cells: "AnnData", source: Path, name: str, is_forced: bool) -> Path:
        """Write canonical cells to ``data/raw`` and return the path."""
        from cfmvc.data.canonical import rename_control, write_canonical

        name = name.removesuffix(".h5ad")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ConfigError(
                f"--name '{name}': letters, digits, '.', '-' and '_' make a name of a data set"
            )
        rename_control(cells, _CANONICAL["control"])
        if "source_file" not in cells.uns["cfmvc"]:
            # canonical cells that are added once more keep their first source
            cells.uns["cfmvc"]["source_file"] = source.name
            cells.uns["cfmvc"]["source_md5"] = md5_of_file(source)
        path = self.folder / "data" / "raw" / f"{name}.h5ad"
        with atomic_path(path) as made:
            write_canonical(cells, made)
            is_other = path.exists() and md5_of_file(path) != md5_of_file(made)
            if is_other and not is_forced:
                raise DataError(
                    f"{path}: another file of this name is there; choose a --name, "
                    "or replace it with --force"
                )
        return path

    def put_under_dvc(self, path: Path) -> None:
        """Run ``dvc add``."""
        done = subprocess.run(
            [self.dvc, "add", "--quiet", path],
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

    def use(self, path: Path) -> None:
        """Make a file the pipeline's input: change one line of ``params.yaml``."""
        params = self.folder / "params.yaml"
        with params.open(newline="") as stream:
            text = stream.read()
        changed = with_data_path(text, path.as_posix())
        if changed != text:
            with atomic_path(params) as made, made.open("w", newline="") as stream:
                stream.write(changed)


def with_data_path(text: str, path: str) -> str:
    """Return the text of a ``params.yaml`` with another ``data.path``, all else byte for byte.

    Raises
    ------
    ConfigError
        If the value is not written as one plain or quoted word on its own line.
    """
    before = YAML().load(text)
    lines = text.splitlines(keepends=True)
    row, column = before["data"].lc.value("path")
    head, value = lines[row][:column], lines[row][column:]
    word = re.match(
        r"""("[^"]*"|'[^']*'|[^\s#"'{\[|>&*](?:[^#\r\n,}]|(?<!\s)#)*?)(?=\s*$|\s+#|\s*[,}])""",
        value,
    )
    if word is not None:
        lines[row] = head + path + value[word.end() :]
        changed = "".join(lines)
        expected = _plain(text)
        expected["data"]["path"] = path
        if _plain(changed) == expected:
            return changed
    raise ConfigError(
        f"params.yaml: line {row + 1} is not a simple `path: FILE`; set data.path to {path} by hand"
    )


def _plain(text: str) -> dict[str, Any]:
    values = YAML(typ="safe").load(text)
    if not isinstance(values, dict):
        raise ConfigError(f"params.yaml: expected sections, for example {listed(['data'])}")
    return values
