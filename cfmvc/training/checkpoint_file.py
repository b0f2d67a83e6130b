"""A checkpoint as bytes: a safetensors file that ends with the checksum of all that is before it.

The checksum is a tensor, the last one: so any reader of safetensors opens the file, header and
tensors are protected alike, and a file is written in one pass, without a copy of its tensors.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load

FORMAT = 2
_CHECKSUM, _CHECKSUM_BYTES = "cfmvc.checksum", 32
_VALUES = "cfmvc.values"  # JSON as a tensor: a header may be no longer than 100 MB
_ALIGNMENT = 8
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on as if it had never stopped.

    Parameters
    ----------
    tensors
        Weights, states of the optimiser and of random generators, by name.
    values
        Everything else, as JSON has it: keys are text, tuples become lists. NaN and infinity are
        kept. ``step`` is the number of optimiser steps done.
    """

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.values["step"])


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


class DamagedFile(Exception):  # noqa: N818 - caught at once, never shown as such
    """The bytes are not those that were written; says what is wrong with them."""


class ForeignFile(Exception):  # noqa: N818 - as above
    """A sound file that another training, or another version, has written; says which."""


class PackedCheckpoint:
    """A checkpoint that is about to be written; its tensors are read while that is done.

    Parameters
    ----------
    checkpoint
        What to write.
    fingerprint
        Of the data, the parameters and the code that the training belongs to.
    """

    def __init__(self, checkpoint: Checkpoint, fingerprint: str) -> None:
        for name in (_CHECKSUM, _VALUES):
            if name in checkpoint.tensors:
                raise ValueError(f"'{name}' is a name of our own; give the tensor another one")
        tensors = {**checkpoint.tensors, _VALUES: _as_tensor(checkpoint.values)}
        # Wide elements first: then every tensor is aligned in the file.
        self._tensors = dict(sorted(tensors.items(), key=lambda named: -named[1].element_size()))
        self._header = _header(self._tensors, fingerprint)

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        contents = sum(tensor.nbytes for tensor in self._tensors.values())
        return len(self._header) + contents + _CHECKSUM_BYTES

    def write(self, stream: BinaryIO) -> None:
        """Write the file; every byte is read once and hashed once."""
        checksum = hashlib.sha256()
        for part in self._parts():
            checksum.update(part)
            stream.write(part)
        stream.write(checksum.digest())

    def _parts(self) -> Iterator[bytes | memoryview]:
        yield self._header
        for tensor in self._tensors.values():
            if tensor.numel():
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                yield flat.view(torch.uint8).numpy().data


def read_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read a file and check every byte of it.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DamagedFile
        If it was cut off or changed, or the disk does not give it back.
    ForeignFile
        If it is sound, but of another format or of a training with another fingerprint.
    """
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(f"cannot be read: {error.strerror}") from error
    _expect_undamaged(contents)
    metadata = _parsed_header(contents)["__metadata__"]
    if metadata["format"] != str(FORMAT):
        raise ForeignFile(
            f"it has checkpoint format {metadata['format']}, this cfmvc reads format {FORMAT}"
        )
    if metadata["fingerprint"] != fingerprint:
        raise ForeignFile("data, parameters or code have changed since")
    tensors = load(contents)
    del tensors[_CHECKSUM]
    return Checkpoint(tensors, json.loads(tensors.pop(_VALUES).numpy().tobytes()))


def _as_tensor(values: dict[str, Any]) -> torch.Tensor:
    """Return JSON that knows NaN and infinity, as bytes."""
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def _header(tensors: dict[str, torch.Tensor], fingerprint: str) -> bytes:
    """Return the first part of a safetensors file: the header's length (8 bytes), and the header.

    Its layout is that of https://github.com/huggingface/safetensors#format.
    """
    metadata = {"format": str(FORMAT), "fingerprint": fingerprint}
    entries: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, tensor in tensors.items():
        entries[name] = _entry(_dtype(name, tensor), list(tensor.shape), start, tensor.nbytes)
        start += tensor.nbytes
    entries[_CHECKSUM] = _entry("U8", [_CHECKSUM_BYTES], start, _CHECKSUM_BYTES)
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header


def _entry(dtype: str, shape: list[int], start: int, n_bytes: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + n_bytes]}


def _dtype(name: str, tensor: torch.Tensor) -> str:
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"tensor '{name}': a checkpoint cannot hold {tensor.dtype}")
    return _DTYPES[tensor.dtype]


def _expect_undamaged(contents: bytes) -> None:
    whole = memoryview(contents)
    body, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() == checksum:
        return
    expected = _expected_size(contents)
    if expected is not None and len(contents) < expected:
        raise DamagedFile(f"is cut off: {len(contents)} of {expected} bytes are there")
    if not contents:
        raise DamagedFile("is empty")
    raise DamagedFile("its checksum does not fit: bytes of it have changed on the disk")


def _expected_size(contents: bytes) -> int | None:
    """Return how long a file says it is; None if it does not get as far as that."""
    try:
        last = _parsed_header(contents)[_CHECKSUM]["data_offsets"][1]
        return 8 + _header_length(contents) + int(last)
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _header_length(contents: bytes) -> int:
    return int.from_bytes(contents[:8], "little")


def _parsed_header(contents: bytes) -> dict[str, Any]:
    parsed = json.loads(contents[8 : 8 + _header_length(contents)])
    assert isinstance(parsed, dict)
    return parsed
