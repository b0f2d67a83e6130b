"""A project in which the gate can be asked: cells, a lock, and versions that never trained."""

from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
import yaml
from typer.testing import CliRunner

from cfmvc.cli.app import app
from cfmvc.config import default_params_file, override, read_yaml
from cfmvc.data.cell_ids import CELL_ID, cell_ids
from cfmvc.data.embeddings import EMBEDDINGS
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.errors import CfmvcError
from cfmvc.files import md5_of_file
from cfmvc.models import Bundle, load_bundle, save_bundle
from cfmvc.registry.config import RegisterConfig
from cfmvc.registry.register import register_model
from cfmvc.tracking import stage_run
from tests.evaluation.conftest import assemble, population
from tests.registry.conftest import N_GENES, VOCABULARY, make_bundle
from tests.tracking.conftest import CONFIG

PREPARED = Path("data/prepared/cells.h5ad")
SMALL = (
    "compute.n_threads=1",
    "evaluate.n_components=5",
    "evaluate.n_draws=3",
    "evaluate.n_ceiling_splits=2",
    "evaluate.n_bootstrap=100",
    "gate.n_bootstrap=100",
    "generate.n_cells=24",
    "generate.n_steps=2",
)
EVALUATION = {"model": {"pearson_delta": 0.8}, "control": {"pearson_delta": 0.0}}


@dataclass(frozen=True)
class Contest:
    """The project's folder, and the name of its registered model."""

    folder: Path
    name: str = "cfmvc"

    def register(self, bundle: Bundle, evaluation: dict[str, dict[str, float]] = EVALUATION) -> int:
        """Register a model, and return the version."""
        where = self.folder / "models" / "flow"
        save_bundle(bundle, where)
        config = RegisterConfig(name=self.name, alias="candidate")
        with stage_run("register", self.folder, CONFIG) as tracker:
            return register_model(where, evaluation, config, tracker).version

    def ask(self, *words: str, expect: int = 0) -> str:
        """Run ``cfmvc registry``, and return what it printed; an error comes last."""
        done = CliRunner().invoke(app, ["registry", *words, "--project", str(self.folder)])
        code, said = done.exit_code, done.output
        if isinstance(done.exception, CfmvcError):
            code, said = done.exception.exit_code, f"{said}\nerror: {done.exception}"
        assert code == expect, said
        return said


def new_contest(folder: Path, cells: ad.AnnData, name: str = "cfmvc") -> Contest:
    """Make a project around prepared cells."""
    settings = [*SMALL, f"register.name={name}"]
    params = override(read_yaml(default_params_file()), settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    path = folder / PREPARED
    path.parent.mkdir(parents=True)
    cells.write_h5ad(path)
    prepare = {"cmd": "prepare", "outs": [{"path": str(PREPARED), "md5": md5_of_file(path)}]}
    (folder / "dvc.lock").write_text(
        yaml.safe_dump({"schema": "2.0", "stages": {"prepare": prepare}})
    )
    return Contest(folder, name)


def contest_cells(embeddings: pd.DataFrame | None = None) -> ad.AnnData:
    """Cells of the labels that :func:`make_bundle` knows; both perturbations held out in (y, q)."""
    rng = np.random.default_rng(0)
    base = rng.uniform(5, 20, N_GENES)
    parts = []
    for batch in VOCABULARY.batches:
        for cell_type in VOCABULARY.cell_types:
            for label in VOCABULARY.perturbations:
                shift = np.where(np.arange(N_GENES) % 3 == "control ab".index(label[0]) % 3, 2, 1)
                factor = np.ones(N_GENES) if label == "control" else shift
                is_test = label != "control" and (batch, cell_type) == ("y", "q")
                labels = {"perturbation": label, "batch": batch, "cell_type": cell_type}
                split = "test" if is_test else "train"
                parts.append(population(rng, 16, base * factor, **labels, split=split))
    cells = assemble(parts)
    cells.var_names = [f"gene-{number}" for number in range(N_GENES)]
    cells.uns["cfmvc"] = {"control": "control", "separator": "+"}
    cells.obs[CELL_ID] = cell_ids(cells)
    if embeddings is not None:
        cells.uns[EMBEDDINGS] = embeddings.rename(columns=str)
    return cells


def contestant(
    folder: Path,
    cells: ad.AnnData,
    seed: int,
    vocabulary: Vocabulary = VOCABULARY,
    genes: list[str] | None = None,
) -> Bundle:
    """Return a model that was trained on the cells outside the test, or says so."""
    bundle = load_bundle(make_bundle(folder / f"models/{seed}", seed))
    seen = np.unique(cells.obs.loc[cells.obs["split"] != "test", CELL_ID].to_numpy())
    names = bundle.gene_names if genes is None else genes
    return replace(bundle, seen=seen, vocabulary=vocabulary, gene_names=names)


def with_vectors(bundle: Bundle, embeddings: pd.DataFrame) -> Bundle:
    """Return the model as if it had been trained with embeddings of all that it knows."""
    sizes = {**bundle.model.sizes, "embedding_dim": embeddings.shape[1]}
    made = type(bundle.model)(**sizes)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.reference = bundle.model.reference
    known = embeddings.reindex(bundle.vocabulary.perturbations).fillna(0.0).to_numpy()
    made.context.embed(torch.from_numpy(known))
    return replace(bundle, model=made.eval())
