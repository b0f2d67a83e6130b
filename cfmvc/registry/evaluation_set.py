"""The cells that candidate and champion are compared on: frozen, and known by their hash."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anndata import AnnData

from cfmvc.data.cell_ids import CELL_ID
from cfmvc.data.prepared import load_prepared
from cfmvc.errors import DataError
from cfmvc.files import md5_of_file
from cfmvc.models import Bundle
from cfmvc.registry.proof.dvc_lock import Lock
from cfmvc.tracking.origin import LOCK_FILE

_PREPARED = Path("data/prepared/cells.h5ad")


@dataclass(frozen=True)
class EvaluationSet:
    """Prepared cells; those of the test split are what is predicted.

    Parameters
    ----------
    cells
        All of them, with their split.
    md5
        Of the file, as DVC has it.
    """

    cells: AnnData
    md5: str

    @classmethod
    def of_project(cls, project: Path) -> "EvaluationSet":
        """Read a project's prepared cells.

        Raises
        ------
        ConfigError
            If there is no ``dvc.lock``.
        DataError
            If they are missing, or not what it says.
        """
        path = project / _PREPARED
        if not path.is_file():
            raise DataError(f"{path}: no such file; `dvc repro` makes it, or `dvc pull` gets it")
        md5, locked = md5_of_file(path), Lock.read(project / LOCK_FILE).outs.get(str(_PREPARED))
        if locked != md5:
            raise DataError(
                f"{path}: not what dvc.lock says (md5 {md5}, there {locked or 'nothing'}); a "
                "comparison on other cells proves nothing. `dvc repro` makes it anew, `dvc "
                "checkout` puts back what was there"
            )
        cells = load_prepared(path)
        if CELL_ID not in cells.obs:
            raise DataError(f"{path}: made by an older cfmvc, without '{CELL_ID}'; `dvc repro`")
        return cls(cells, md5)

    def n_seen(self, bundle: Bundle) -> int:
        """Return how many test cells a model was trained on.

        A test cell with the very counts of a cell outside the test says nothing, and does not
        count: a model may know it from there.

        Raises
        ------
        DataError
            If the model does not say what it was trained on.
        """
        if bundle.seen is None:
            raise DataError("it does not say which cells it was trained on; train it again")
        ids = self.cells.obs[CELL_ID].to_numpy()
        is_telling = self._is_test & ~np.isin(ids, ids[~self._is_test])
        return int(np.isin(ids[is_telling], bundle.seen).sum())

    @property
    def _is_test(self) -> np.ndarray:
        return (self.cells.obs["split"].astype(str) == "test").to_numpy()
