"""The page of an example: one HTML file that opens from disk and asks no network for anything.

    page.write(example, "page.html")

What is shown lies in the file as JSON, arrays as the base64 of their float32 numbers; the scripts of `assets/` draw it. The file's own
policy (Content-Security-Policy) lets the browser run these scripts and load nothing: no text of the example can become code.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.files import write_atomically
from minirnn.study.example import Example

ASSETS = Path(__file__).with_name("assets")
# One script in the page, of these parts in this order; each may use what those before it define.
SCRIPTS = ("numbers", "plane", "drawing", "choice", "influence", "path", "units", "attention", "training", "page")


def write(example: Example, path: str | os.PathLike[str]) -> None:
    """Write the page of `example` to the file `path`, all of it or nothing. The same example gives the same bytes.

    The file is 4/3 as large as the float32 numbers of the example, and what draws them. It opens in any browser that knows the colours of
    CSS by `light-dark()`: those since the middle of 2024.

    Raises:
        MinirnnError: where the file cannot be written.
    """
    write_atomically(path, render(example))


def render(example: Example) -> bytes:
    """The page of `example`, in UTF-8."""
    style = _asset("page.css")
    script = "".join(_asset(f"{name}.js") for name in SCRIPTS)
    parts = {
        "title": html.escape(example.title),
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "script": script,
        "data": _json(example),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))
    return page.encode("utf-8", "replace")  # a lone surrogate in a title becomes a question mark


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a policy calls this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(example: Example) -> str:
    """In ASCII, and without the characters that end a script or begin a comment in it."""
    text = json.dumps(_plain(example), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """What JSON can say: dataclasses and mappings by name, arrays as bytes, a number that is none as null."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"page: cannot write a {type(value).__name__}: an Example holds texts, numbers, arrays, and lists and mappings of them")


def _array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    kind = "uint8" if array.dtype == np.uint8 else "float32"
    with np.errstate(over="ignore"):  # a number that float32 cannot hold is infinite there
        data = np.ascontiguousarray(array, "<f4" if kind == "float32" else np.uint8).tobytes()
    return {"shape": list(array.shape), kind: base64.b64encode(data).decode()}
