"""What every benchmark says in the same way: the machine it ran on, tables, JSON and pictures."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minirnn._version import __version__
from minirnn.bench.timing import Summary
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

BUSY = 0.5  # processes that run, on average over the last minute
PACKAGES = ("numpy", "numba", "torch", "jax", "jaxlib", "flax")
STEERING = (
    "OPENBLAS_",
    "MKL_",
    "ONEDNN_",
    "DNNL_",
    "KMP_",
    "GOMP_",
    "NUMBA_CPU_",
    "MALLOC_",
)  # variables that make a library faster or slower


def load_average() -> float | None:
    """Of the last minute; ask before the benchmark's own work is part of it. None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def load_warning(load: float | None) -> str | None:
    """A sentence where other work disturbs the times."""
    if load is None or load <= BUSY:
        return None
    return f"the load average is {load:.1f}: other work on this machine spoils the timings"


def machine(threads: int, load: float | None) -> dict[str, Any]:
    """Where and when a benchmark ran, ready for JSON: versions of what matters, processor, threads, load, date."""
    from minirnn.doctor import cores, processor

    return {
        "minirnn": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "load_average": load,
        "environment": {name: value for name, value in sorted(os.environ.items()) if _steers(name)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def heading(described: Mapping[str, Any], others: Sequence[str] = ()) -> str:
    """One line of `machine`, and a second where the environment has a say; `others` are packages beside NumPy and Numba that take part."""
    packages = ", ".join(f"{name} {described['packages'][name]}" for name in ("numpy", "numba", *others) if name in described["packages"])
    steering = " ".join(f"{name}={value}" for name, value in described["environment"].items())
    with_ = f"\nwith {steering}" if steering else ""
    return f"{described['processor']}, {described['threads']} threads, Python {described['python']}, {packages}{with_}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns that are as wide as they must be; the first `left` of them begin on the left, numbers end on the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [cell.ljust(w) if column < left else cell.rjust(w) for column, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def spread(found: Summary, scale: float = 1.0, digits: int = 3) -> str:
    """The median with its quartiles, in so many significant digits: `1.23 (1.20 to 1.31)`."""
    median, lower, upper = (significant(scale * value, digits) for value in (found.median, found.lower, found.upper))
    return f"{median} ({lower} to {upper})"


def significant(value: float, digits: int = 3) -> str:
    """0.0123, 1.23, 12.3, 123, 12,345: with so many digits that mean something, never with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def for_json(value: Any) -> Any:
    """The same with tuples as lists, named tuples as objects, and numbers that JSON lacks (NaN and infinities) as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): for_json(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return for_json(value._asdict())
    if isinstance(value, list | tuple):
        return [for_json(item) for item in value]
    return value


def to_json(report: Any, indent: int | None = None) -> str:
    return json.dumps(for_json(report), indent=indent, allow_nan=False)


def check_can_write(path: str | None) -> None:
    """Raise a MinirnnError where `path` lies in no folder: better now than after minutes."""
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise MinirnnError(f"cannot write {path}: there is no such folder")


def write_json(report: Any, path: str | Path) -> None:
    write_atomically(path, to_json(report, indent=1) + "\n")


def _steers(name: str) -> bool:
    return name.startswith(STEERING) and not name.endswith("_NUM_THREADS")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
