"""A model that is told of perturbations that it has never seen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cfmvc.errors import DataError
from cfmvc.flow.doses import DoseCurves
from cfmvc.models.bundle import Bundle
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.mean_response import MeanResponse


def with_embeddings(bundle: Bundle, embeddings: pd.DataFrame) -> Bundle:
    """Return the model with more perturbations, by their embeddings; known ones stay as they are.

    Parameters
    ----------
    bundle
        A model that was trained with embeddings.
    embeddings
        A row a label, in the units of those of the training.

    Raises
    ------
    DataError
        If the model was trained without, or the vectors are of another length.
    """
    context = bundle.model.context
    if not context.has_embedding:
        raise DataError(
            "embeddings: this model was trained without any, so that a vector tells it nothing; "
            "train with embeddings in uns['perturbation_embeddings'] of the cells"
        )
    if embeddings.shape[1] != context.embedding.shape[1]:
        raise DataError(
            f"embeddings: vectors of {embeddings.shape[1]} numbers, those of the training have "
            f"{context.embedding.shape[1]}"
        )
    new = [label for label in embeddings.index if label not in bundle.vocabulary.perturbations]
    if not new:
        return bundle
    vectors = torch.from_numpy(embeddings.loc[new].to_numpy(dtype=np.float64))
    added = context.in_own_units(vectors.to(bundle.device))
    names = (*bundle.vocabulary.perturbations, *new)
    return replace(
        bundle,
        model=_wider(bundle.model, added),
        vocabulary=replace(bundle.vocabulary, perturbations=names),
        response=None if bundle.response is None else _wider_response(bundle.response, added),
    )


def _wider(model: CFMVCModel, added: torch.Tensor) -> CFMVCModel:
    weights = model.state_dict()
    weights["context.embedding"] = torch.cat([weights["context.embedding"], added])
    doses = weights["context.largest_dose"]  # in units of the others: of its own nothing is known
    weights["context.largest_dose"] = torch.cat([doses, doses.max().expand(len(added))])
    for name in ("context.dose_saturation", "context.dose_steepness"):
        usual = weights[name][:1]  # the control's, of which no dose was seen either
        weights[name] = torch.cat([weights[name], usual.expand(len(added))])
    wider = CFMVCModel(**{**model.sizes, "n_perts": model.sizes["n_perts"] + len(added)})
    wider.load_state_dict(weights)
    if model.reference is not None:
        vectors = model.reference.vectors
        padded = torch.nn.functional.pad(vectors, (0, len(added)))
        wider.reference = replace(model.reference, vectors=padded)
    return wider.to(added.device).eval()


def _wider_response(response: MeanResponse, added: torch.Tensor) -> MeanResponse:
    n_new = len(added)
    conditions = response.process.conditions
    p = np.pad(conditions.p, ((0, 0), (0, n_new)))
    return replace(
        response,
        process=replace(response.process, conditions=replace(conditions, p=p)),
        slope=np.pad(response.slope, (0, n_new)),
        doses=_wider_doses(response.doses, n_new),
        deviation=np.concatenate([response.deviation, added.double().cpu().numpy()]),
    )


def _wider_doses(doses: DoseCurves, n_new: int) -> DoseCurves:
    """Return curves of more perturbations: in units of the others, and as is usual of them."""
    largest = np.pad(doses.largest, (0, n_new), constant_values=doses.largest.max())
    curves = (doses.saturation, doses.steepness)
    return DoseCurves(largest, *(np.pad(v, (0, n_new), constant_values=v[0]) for v in curves))
