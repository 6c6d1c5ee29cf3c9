"""Compilation by Numba, once for each machine: what is compiled is kept in a folder that is named after the sources it came from.

Numba by itself compiles a cached function again when the file it stands in changes, but not when a function that is inlined into it, from
`product.py` or `pointwise.py`, does: after an update it would run code that no longer exists.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.core.caching
import numba.core.runtime.nrt

QUIET = "MINIRNN_QUIET"  # set to anything, it hides the line that says that something is compiled

_config: Any = numba.config
_caching: Any = numba.core.caching
_runtime: Any = numba.core.runtime.nrt.rtsys  # what compiled functions are linked with


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` without the interpreter's lock, kept on disk; `options` are njit's."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        if not _config.DISABLE_JIT:
            with _kept_in(folder()):
                dispatcher._cache = _Kept(function)
        return dispatcher  # type: ignore[no-any-return]

    return compile_


class _Kept(_caching.FunctionCache):  # type: ignore[misc]
    """What was compiled of one function, a file of its own for each signature.

    Numba's file for all signatures is not safe: two processes that compile two of them at the same time can number them alike, and the
    one then stands under the name of the other.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As Numba's, but for its `target_context.refresh()`, which prepares the compiler (and imports SciPy): the compiler does so too."""
        _runtime.initialize(target_context)
        self._cache_file = self._file(sig, target_context.codegen())
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
        if found is None:
            _say_that_it_compiles()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        self._cache_file = self._file(sig, data.codegen)
        super().save_overload(sig, data)

    def _file(self, sig: Any, codegen: Any) -> Any:
        key = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:12]
        return _caching.IndexDataCacheFile(self._cache_path, f"{self._impl.filename_base}-{key}", self._impl.locator.get_source_stamp())


@cache
def folder() -> str:
    """$NUMBA_CACHE_DIR, or minirnn's cache folder, and in it one for the kernels as they are now."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    parent = _config.CACHE_DIR or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minirnn")
    return os.path.join(parent, f"kernels-{sources.hexdigest()[:12]}")


@cache  # once in a process
def _say_that_it_compiles() -> None:
    if not os.environ.get(QUIET) and sys.stderr is not None:
        print(f"minirnn: compiling CPU kernels for this machine, once; a few seconds (kept in {folder()})", file=sys.stderr, flush=True)


@contextmanager
def _kept_in(path: str) -> Iterator[None]:
    """Numba asks where to keep a function at the moment that it is decorated; where it cannot write there, it finds another place."""
    before, _config.CACHE_DIR = _config.CACHE_DIR, path
    try:
        yield
    finally:
        _config.CACHE_DIR = before
