"""Weights on disk: named arrays in the safetensors format, written whole or not at all, and never as pickles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


class HasStateDict(Protocol):
    def state_dict(self) -> Mapping[str, Any]: ...


def save(
    module_or_dict: HasStateDict | Mapping[str, Any], path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the arrays of a module's `state_dict()`, or of a dict of NumPy arrays by name, to the safetensors file `path`.

    `metadata` is text by name that travels in the file's header. The file replaces an older one only when it is complete.
    Raises MinirnnError for a value that is no array of a number type that the format knows, and where the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    named = module_or_dict if isinstance(module_or_dict, Mapping) else module_or_dict.state_dict()
    arrays = {name: _storable(name, value) for name, value in named.items()}
    for key, text in (metadata or {}).items():
        if not isinstance(text, str):
            raise MinirnnError(f"save: metadata {key!r} must be text, got {type(text).__name__}: write it with json.dumps first")
    write_atomically(path, to_bytes(arrays, metadata=dict(metadata) if metadata else None))


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of the safetensors file `path` by name, each a copy of its own. bfloat16 becomes float32, which holds all of its values.

    Raises MinirnnError where the file is missing, cut short, damaged or of another format.
    """
    import safetensors

    parse: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    content = _content(path)
    try:
        entries = parse(content)
    except safetensors.SafetensorError as error:
        raise MinirnnError(_damage(path, content, str(error))) from error
    return {name: _array(path, name, entry) for name, entry in entries}


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text by name that `save(..., metadata=)` put into the header of the file `path`; empty where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise MinirnnError(_damage(path, _content(path), str(error))) from error


def _storable(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise MinirnnError(f"save: {name!r} is a {type(value).__name__}, expected a NumPy array (a Tensor gives one by .numpy())")
    if value.dtype.newbyteorder("<") not in _CODES:
        known = ", ".join(dtype.name for dtype in _CODES)
        raise MinirnnError(f"save: {name!r} has dtype {value.dtype}, a safetensors file holds {known}")
    return np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")  # the format's writer reads the memory as it lies


def _array(path: str | os.PathLike[str], name: str, entry: Mapping[str, Any]) -> np.ndarray:
    code, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if code == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if code not in _DTYPES:
        raise MinirnnError(f"{os.fspath(path)}: {name!r} has dtype {code}, which NumPy does not know: convert the file to F32")
    return np.frombuffer(data, _DTYPES[code]).reshape(shape).astype(np.dtype(_DTYPES[code]).newbyteorder("="))


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise MinirnnError(f"{os.fspath(path)}: no such file") from None
    except OSError as error:
        raise MinirnnError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def _damage(path: str | os.PathLike[str], content: bytes, reason: str) -> str:
    """What is wrong with a file that cannot be read: 8 bytes of header length, a JSON header and the arrays are what it should hold."""
    if content[:4] == b"PK\x03\x04":
        return f"{os.fspath(path)} is a zip archive, as torch.save and numpy.savez write: weights are read from safetensors files alone"
    if len(content) >= 9 and content[8:9] != b"{":
        return f"{os.fspath(path)} is not a safetensors file"
    return f"{os.fspath(path)} is cut short or damaged ({len(content):,} bytes; {reason}): copy it again, or use an older checkpoint"
