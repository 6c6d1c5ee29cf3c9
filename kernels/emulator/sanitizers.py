"""The sanitizers of the C++ compiler, which see what a wrong result does not show: races, and accesses out of bounds."""

from __future__ import annotations

import os
import subprocess
from functools import cache

from minirnn.kernels.emulator import build

# What must be in the process before Python itself is. The address sanitizer looks for exceptions, which are libstdc++'s.
_RUNTIMES = {"": (), "address,undefined": ("libasan.so", "libstdc++.so"), "thread": ("libtsan.so",)}
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0",
}


def environment(sanitizer: str) -> dict[str, str]:
    """The variables of a process whose kernels are compiled with a sanitizer, "address,undefined" or "thread"."""
    preload = {"LD_PRELOAD": " ".join(_library(name) for name in _RUNTIMES[sanitizer])} if sanitizer else {}
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, **_OPTIONS, **preload, "MINIRNN_SANITIZE": sanitizer}


def lacks(sanitizer: str) -> str | None:
    """Why it cannot be used here, or None."""
    if reason := build.missing():
        return reason
    absent = [name for name in _RUNTIMES[sanitizer] if not os.path.isabs(_library(name))]
    return f"the compiler {build.compiler()} has no {', '.join(absent)}" if absent else None


@cache
def _library(name: str) -> str:
    command = [build.compiler(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
