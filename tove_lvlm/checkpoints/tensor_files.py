"""safetensors files rewritten without loading them: tensors left out or put in, every byte of the others kept.

Written at the level of the file format (8 bytes of header length, a JSON header, one buffer), so that a 7B model passes
through in pieces of 16 MiB. What comes out has the same bytes as safetensors' own writer gives.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage import WeightsError

_CHUNK = 1 << 24
_ALIGN = 8
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class TensorAt:
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    """As the format writes it: F32, BF16, ..."""
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    num_bytes: int

    @property
    def numel(self) -> int:
        """How many numbers."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file's header."""

    tensors: dict[str, TensorAt]
    """In the order of their bytes."""
    metadata: dict[str, str] | None


def read_header(file: Path) -> TensorFile:
    """The tensors of a safetensors file, none of them read.

    Raises:
        WeightsError: It is truncated or no such file.
    """
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(stream.read(length))
        metadata = header.pop(_METADATA, None)
        tensors = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            tensors[name] = TensorAt(file, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
        if any(tensor.start + tensor.num_bytes > size for tensor in tensors.values()):
            raise ValueError("tensors beyond the end of the file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"weights `{file}` are truncated or not safetensors: {error}") from error
    return TensorFile(tensors=tensors, metadata=metadata)


def write_file(file: Path, tensors: Mapping[str, TensorAt], metadata: Mapping[str, str] | None) -> None:
    """Write a safetensors file out of parts of others, in the order given.

    Args:
        file: To write; its folder exists.
        tensors: Name to where its bytes are now.
        metadata: For the header.

    Raises:
        WeightsError: A source is shorter than its header says.
    """
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        offsets = [offset, offset + tensor.num_bytes]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN)
    with open(file, "xb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for chunk in read_bytes(tensor):
                target.write(chunk)


def read_bytes(tensor: TensorAt) -> Iterator[bytes]:
    """A tensor's bytes in pieces.

    Raises:
        WeightsError: The file ends before them.
    """
    with open(tensor.file, "rb") as source:
        source.seek(tensor.start)
        remaining = tensor.num_bytes
        while remaining:
            chunk = source.read(min(remaining, _CHUNK))
            if not chunk:
                raise WeightsError(f"weights `{tensor.file}` are truncated: {remaining} bytes of a tensor are missing")
            remaining -= len(chunk)
            yield chunk


def fingerprint(tensors: Mapping[str, TensorAt]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, as hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tensor.shape}|".encode())
        for chunk in read_bytes(tensor):
            digest.update(chunk)
    return digest.hexdigest()
