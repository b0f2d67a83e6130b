"""A trained model as a folder: weights as safetensors, everything else as JSON; no pickle."""

from collections.abc import Mapping
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

FORMAT = 11
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
                "files": sorted(path.name for path in made.iterdir()),
                "sizes": bundle.model.sizes,
                "vocabulary": bundle.vocabulary.to_json(),
                "gene_names": bundle.gene_names,
                "median_library": bundle.median_library,
                "settings": bundle.settings,
            },
        )


def _weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return what was trained: after the VAE's stage, encoder and decoder alone.

    An untrained flow in the file would tie a trained VAE to the flow's code and shape. Of a model
    that no stage has made nobody knows what was trained.
    """
    kept = _VAE if is_vae_alone(bundle.settings) else ("",)
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in bundle.model.state_dict().items()
        if name.startswith(kept)
    }


def is_vae_alone(settings: Mapping[str, Any]) -> bool:
    """Return whether settings are those of a VAE whose flow is still to be trained."""
    return "vae" in settings and "flow" not in settings


def _has_flow(weights: Mapping[str, torch.Tensor]) -> bool:
    return any(not name.startswith(_VAE) for name in weights)


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
    description = _described(folder)
    model = CFMVCModel(**description["sizes"]).to(device)
    weights = _tensors(folder / WEIGHTS, device)
    settings = description["settings"]
    is_vae = is_vae_alone(settings) or not (settings or _has_flow(weights))
    _load(model, weights, is_whole=not is_vae, folder=folder)
    files = description["files"]
    if REFERENCE in files:
        model.reference = ReferenceCells(**_tensors(folder / REFERENCE, device))
    return Bundle(
        model.eval(),
        Vocabulary.from_json(description["vocabulary"]),
        description["gene_names"],
        description["median_library"],
        description["settings"],
        _seen(folder / SEEN) if SEEN in files else None,
        MeanResponse.from_tensors(_tensors(folder / RESPONSE)) if RESPONSE in files else None,
    )


def _seen(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise CfmvcError(f"{path}: damaged ({error}); copy the whole folder again") from error


def _described(folder: Path) -> dict[str, Any]:
    """Read the description of a model of which no file is missing: without one it would differ."""
    try:
        description = dict(read_json(folder / DESCRIPTION))
    except (OSError, ValueError) as error:
        raise CfmvcError(
            f"{folder}: not a cfmvc model (no {DESCRIPTION} that can be read: {error}); give the "
            "folder that `cfmvc fit` or the stage train_flow has made"
        ) from error
    if description.get("format") != FORMAT:
        raise CfmvcError(
            f"{folder}: model format {description.get('format')}, this cfmvc reads format "
            f"{FORMAT}; train the model again with this version"
        )
    missing = [name for name in description["files"] if not (folder / name).is_file()]
    if missing:
        raise CfmvcError(f"{folder}: {listed(missing)} is missing; copy the whole folder again")
    return description


def _tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    try:
        return load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise CfmvcError(f"{path}: damaged ({error}); copy the whole folder again") from error
