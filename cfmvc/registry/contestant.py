"""A version that is to generate the held-out cells, or the words why it cannot be compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from anndata import AnnData

from cfmvc.data.embeddings import EMBEDDINGS, find_embeddings
from cfmvc.data.prepared import control_of, held_out_conditions
from cfmvc.data.vocabulary import split_label
from cfmvc.errors import CfmvcError, DataError, listed
from cfmvc.models import Bundle, load_bundle
from cfmvc.models.extension import with_embeddings
from cfmvc.registry.evaluation_set import EvaluationSet
from cfmvc.stages.beyond import other_vectors
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.predict import GenerateConfig

CHAMPION_ROLE, CANDIDATE_ROLE = "the champion", "the candidate"
_REMEDY = {
    CHAMPION_ROLE: "Compare the two where both know what is held out (split.held_out of "
    'params.yaml), or promote without this comparison: --force --why "..."',
    CANDIDATE_ROLE: "Train it on the data of this project (`dvc repro`), or promote it where it "
    "was trained",
}


class Void(CfmvcError):  # noqa: N818 - a verdict, and no fault of the program
    """A version cannot be compared on these cells; the message says why, and what to do."""


@dataclass(frozen=True)
class Contestant:
    """A version with its model.

    Parameters
    ----------
    version
        Its number.
    role
        ``the candidate`` or ``the champion``.
    bundle
        Its model, told of the perturbations whose embeddings the cells bring.
    """

    version: int
    role: str
    bundle: Bundle

    @classmethod
    def opened(
        cls, version: int, role: str, folder: Path, device: torch.device, frozen: EvaluationSet
    ) -> "Contestant":
        """Read a version's model, and look whether it may be compared on these cells.

        Raises
        ------
        Void
            If it cannot be read, does not know the genes or labels, or has seen the cells.
        """
        who = f"version {version} ({role})"
        try:
            bundle = load_bundle(folder, device)
            n_seen = frozen.n_seen(bundle)
        except CfmvcError as error:
            raise Void(f"void: {who}: {error}") from error
        if n_seen > 0:
            raise Void(
                f"void: {who} was trained on {n_seen:,} of the cells that it would be compared on. "
                "Hold out cells that neither has seen (section split), or train it again on the "
                "present split"
            )
        try:
            _expect_same_genes(bundle, frozen.cells)
            return cls(version, role, told_of_embeddings(bundle, frozen.cells))
        except DataError as error:
            raise _unable(version, role, error) from error

    def generated(
        self,
        frozen: EvaluationSet,
        config: GenerateConfig,
        by: Literal["flow", "arithmetic"] = "flow",
    ) -> AnnData:
        """Return its cells of the held-out conditions, genes as in the real ones.

        Raises
        ------
        Void
            If it does not know a label, or has nothing to start from.
        """
        try:
            control = control_of(frozen.cells)
            made = predict_held_out(self.bundle, frozen.cells, control, config, by).cells
        except DataError as error:
            raise _unable(self.version, self.role, error) from error
        is_ordered = made.var_names.equals(frozen.cells.var_names)
        return made if is_ordered else made[:, frozen.cells.var_names].copy()


def told_of_embeddings(bundle: Bundle, cells: AnnData) -> Bundle:
    """Return the model, told of held-out perturbations that it knows no label of.

    A model that was trained with embeddings can predict a perturbation that came later, if the
    cells bring its vector; in the same units, which the labels that both know must show.

    Raises
    ------
    DataError
        If those vectors are others than in the training.
    """
    vectors = find_embeddings(cells, EMBEDDINGS, "perturbation")
    context, known = bundle.model.context, bundle.vocabulary.perturbations
    if vectors is None or not context.has_embedding or not (_parts_asked(bundle, cells) - {*known}):
        return bundle
    wider = with_embeddings(bundle, vectors)  # says if they are of another length
    is_shared = not vectors.index.intersection(known[1:]).empty
    if not is_shared or other_vectors(bundle, vectors):
        raise DataError(
            "embeddings: the vectors of the perturbations that it knows are not those of its "
            f"training (known: {listed(known[1:])}), so that a new one tells it nothing"
        )
    return wider


def _parts_asked(bundle: Bundle, cells: AnnData) -> set[str]:
    asked = held_out_conditions(cells.obs, control_of(cells))["perturbation"].unique()
    return {part for label in asked for part in split_label(label, bundle.vocabulary.separator)}


def _expect_same_genes(bundle: Bundle, cells: AnnData) -> None:
    there, known = list(map(str, cells.var_names)), set(bundle.gene_names)
    unknown, gone = [g for g in there if g not in known], sorted(known.difference(there))
    if unknown or gone:
        words = [
            f"{len(names)} of {n} genes {what}: {listed(names, 5)}"
            for names, n, what in (
                (unknown, len(there), "are unknown to it"),
                (gone, len(known), "that it predicts from are not in these data"),
            )
            if names
        ]
        raise DataError("; ".join(words))


def _unable(version: int, role: str, error: Exception) -> Void:
    return Void(
        f"void: version {version} ({role}) cannot predict the held-out conditions of this project: "
        f"{error}. {_REMEDY[role]}"
    )
