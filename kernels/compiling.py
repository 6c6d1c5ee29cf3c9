"""Compilation by Numba, once for each machine: what is compiled is kept in a folder that is named after the sources it came from.

Numba by itself compiles a cached function again when the file it stands in changes, but not when a function that is inlined into it, from
`product.py` or `pointwise.py`, does: after an update it would run code that no longer exists.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba

_config: Any = numba.config


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` without the interpreter's lock, kept on disk; `options` are njit's."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        with _kept_in(folder()):
            return numba.njit(cache=True, nogil=True, **options)(function)  # type: ignore[no-any-return]

    return compile_


@cache
def folder() -> str:
    """$NUMBA_CACHE_DIR, or minirnn's cache folder, and in it one for the kernels as they are now."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    parent = _config.CACHE_DIR or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minirnn")
    return os.path.join(parent, f"kernels-{sources.hexdigest()[:12]}")


@contextmanager
def _kept_in(path: str) -> Iterator[None]:
    """Numba asks where to keep a function at the moment that it is decorated; where it cannot write there, it finds another place."""
    before, _config.CACHE_DIR = _config.CACHE_DIR, path
    try:
        yield
    finally:
        _config.CACHE_DIR = before
