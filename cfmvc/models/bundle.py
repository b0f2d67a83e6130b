"""A trained model as a folder: weights as safetensors, everything else as JSON; no pickle."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cfmvc.data.vocabulary import Vocabulary
from cfmvc.errors import CfmvcError, listed
from cfmvc.files import atomic_path, read_json, write_json
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.mean_response import MeanResponse
from cfmvc.models.reference import ReferenceCells

FORMAT = 6
_VAE = ("encoder.", "decoder.")
WEIGHTS, DESCRIPTION, REFERENCE = "weights.safetensors", "model.json", "reference.safetensors"
RESPONSE, SEEN = "response.safetensors", "seen_cells.npy"


@dataclass
class Bundle:
    """A model with what is needed to use it.

    Parameters
    ----------
    model
        The module, in ``eval()`` mode after loading.
    vocabulary
        Labels and their columns.
    gene_names
        Genes in the order of the model's columns.
    settings
        Resolved parameters of the stages that made the model, by section.
    median_library
        Median total counts of the training cells.
    seen
        Hashes of the cells that it was trained and validated on, sorted, uint64 (see
        :mod:`cfmvc.data.cell_ids`); None where the data had none.
    response
        The mean response that conditions are expected to have; None where the flow is alone.
    """

    model: CFMVCModel
    vocabulary: Vocabulary
    gene_names: list[str]
    median_library: float
    settings: dict[str, Any] = field(default_factory=dict)
    seen: NDArray[np.uint64] | None = None
    response: MeanResponse | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.latent_mean.device


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle, whole or not at all; the same model gives the same bytes."""
    with atomic_path(folder) as made:
        made.mkdir()
        # Not save_file: it makes files that nobody else may read, whatever the umask says.
        (made / WEIGHTS).write_bytes(save(_weights(bundle)))
        if bundle.model.reference is not None:
            reference = bundle.model.reference.to(torch.device("cpu"))
            (made / REFERENCE).write_bytes(save(reference.as_tensors()))
        if bundle.response is not None:
            (made / RESPONSE).write_bytes(save(bundle.response.as_tensors()))
        if bundle.seen is not None:
            np.save(made / SEEN, bundle.seen)
        write_json(
            made / DESCRIPTION,
            {
                "format": FORMAT,
                "sizes": bundle.model.sizes,
                "vocabulary": bundle.vocabulary.to_json(),
                "gene_names": bundle.gene_names,
                "median_library": bundle.median_library,
                "settings": bundle.settings,
            },
        )


def _weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return what was trained: before the flow, encoder and decoder alone.

    An untrained flow in the file would tie a trained VAE to the flow's code and shape.
    """
    kept = ("",) if "flow" in bundle.settings else _VAE
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in bundle.model.state_dict().items()
        if name.startswith(kept)
    }


def _load(
    model: CFMVCModel, weights: dict[str, torch.Tensor], is_whole: bool, folder: Path
) -> None:
    missing, unknown = model.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if is_whole or name.startswith(_VAE)]
    if lacking or unknown:
        raise CfmvcError(
            f"{folder}: made by another version of cfmvc (missing: {listed(lacking, 3)}; unknown: "
            f"{listed(unknown, 3)}); train the model again with this version"
        )


def load_bundle(folder: Path, device: torch.device | str = "cpu") -> Bundle:
    """Read a bundle.

    Raises
    ------
    CfmvcError
        If the folder is no bundle, or of another format.
    """
    folder = Path(folder)
    try:
        description = read_json(folder / DESCRIPTION)
        weights = load_file(folder / WEIGHTS, device=str(device))
    except (OSError, ValueError, SafetensorError) as error:
        raise CfmvcError(
            f"{folder}: not a cfmvc model (expected {DESCRIPTION} and {WEIGHTS}): {error}"
        ) from error
    if description.get("format") != FORMAT:
        raise CfmvcError(
            f"{folder}: model format {description.get('format')}, this cfmvc reads format "
            f"{FORMAT}; train the model again with this version"
        )
    model = CFMVCModel(**description["sizes"]).to(device)
    _load(model, weights, is_whole="flow" in description["settings"], folder=folder)
    if (folder / REFERENCE).is_file():
        model.reference = ReferenceCells(**load_file(folder / REFERENCE, device=str(device)))
    return Bundle(
        model.eval(),
        Vocabulary.from_json(description["vocabulary"]),
        description["gene_names"],
        description["median_library"],
        description["settings"],
        np.load(folder / SEEN, allow_pickle=False) if (folder / SEEN).is_file() else None,
        _response(folder),
    )


def _response(folder: Path) -> MeanResponse | None:
    path = folder / RESPONSE
    return MeanResponse.from_tensors(load_file(path)) if path.is_file() else None
