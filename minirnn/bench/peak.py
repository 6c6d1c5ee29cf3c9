"""The most memory that a process has had, by the Linux kernel's own count; elsewhere it is not measured.

    peak = Peak()            # from here on
    run()
    peak.rise()              # bytes beyond those at the beginning, or None

Resident memory, of all libraries and however they allocate it. Its high-water mark (VmHWM in /proc/self/status) is set back first, so that
what happened before does not count; where that is not allowed, an earlier peak hides a lower one. Memory that was freed before and is still
the process's own counts as there already: measure in a fresh process.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

HOW = "resident memory (VmHWM of /proc/self/status) in a fresh process, beyond what it had before the first call"
NOT_HERE = "not measured: there is no /proc/self/status"


class Peak:
    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: set VmHWM back to VmRSS
        self.before = resident("VmRSS")

    def rise(self) -> int | None:
        """Bytes that were resident at most since the beginning, beyond those that were at the beginning; None where nobody counts."""
        most = resident("VmHWM")
        return None if most is None or self.before is None else max(0, most - self.before)


def release() -> None:
    """Give memory that is free back to the system, as far as the C library can (glibc), so that it counts again when it is used again."""
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def resident(what: str = "VmRSS") -> int | None:
    """Bytes of this process that are in memory now (VmRSS), or were at most (VmHWM); None where nobody counts."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(what + ":"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None
