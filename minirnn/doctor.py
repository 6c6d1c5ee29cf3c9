"""What there is on this machine: versions, processor, threads, BLAS, memory, data, and which kernels can run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from minirnn._version import __version__
from minirnn.errors import MinirnnError
from minirnn.kernels import Kernel, choose, kernels
from minirnn.kernels.registry import CELLS, ENVIRONMENT, OPERATIONS

REQUIRED = ("numpy", "numba", "llvmlite", "safetensors", "rich")
OPTIONAL = {
    "matplotlib": "pictures",
    "sacrebleu": "scores of translations",
    "sentencepiece": "subwords",
    "babel": "the data set cldr",
    "emoji": "the data set cldr",
    "cupy": "the GPU",
    "threadpoolctl": "what BLAS runs on",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DEVICES = ("cpu", "cuda")


def examine() -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "minirnn": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in REQUIRED},
        "extras": {name: {"version": _version(name), "for": purpose} for name, purpose in OPTIONAL.items()},
        "processor": _processor(),
        "cores": _cores(),
        "memory_gib": _memory(),
        "blas": _blas(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "kernel_variable": os.environ.get(ENVIRONMENT),
        "devices": {device: _device(device) for device in DEVICES},
        "kernels": [_kernel(kernel, device) for device in DEVICES for cell in CELLS + OPERATIONS for kernel in kernels(cell)],
        "data": {"MINIRNN_DATA": os.environ.get("MINIRNN_DATA"), "cache": _cache()},
    }


def report(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"minirnn {found['minirnn']}, Python {found['python']}, {found['system']}",
        "",
        f"processor   {found['processor']}, {found['cores']} cores for this process, {found['memory_gib'] or '?'} GiB of memory",
        f"BLAS        {found['blas']}",
        f"threads     {', '.join(f'{k}={v}' for k, v in found['threads'].items()) or 'no limit is set'}",
        f"packages    {', '.join(f'{name} {version}' if version else f'{name} MISSING' for name, version in found['packages'].items())}",
    ]
    for name, extra in found["extras"].items():
        lines.append(f"  {name:<14}{extra['version'] or 'not installed'} ({extra['for']})")
    data = found["data"]
    lines += ["", f"data        MINIRNN_DATA={data['MINIRNN_DATA'] or '(not set)'}, cache {data['cache']}", ""]
    for device, reason in found["devices"].items():
        lines.append(f"{device:<12}{reason or 'can be used'}")
        if reason is not None:
            continue
        for entry in (entry for entry in found["kernels"] if entry["device"] == device):
            state = "chosen" if entry["chosen"] else entry["why_not"] or "can run"
            lines.append(f"  {entry['cell']:<14}{entry['name']:<12}{state}")
    if found["kernel_variable"]:
        lines += ["", f"{ENVIRONMENT}={found['kernel_variable']} asks for one kernel"]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    for name in importlib.metadata.packages_distributions().get(package, [package]):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _blas() -> str:
    described = np.show_config(mode="dicts")
    blas = described["Build Dependencies"]["blas"] if described else {}
    built = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    if importlib.util.find_spec("threadpoolctl") is None:
        return built
    found = importlib.import_module("threadpoolctl").threadpool_info()
    pools = [f"{pool['internal_api']} {pool['version']} with {pool['num_threads']} threads" for pool in found]
    return f"{built} ({', '.join(pools)})" if pools else built


def _device(device: str) -> str | None:
    """Why a device cannot be used; None if it can."""
    if device == "cpu":
        return None
    if importlib.util.find_spec("cupy") is None:
        return 'cannot be used: CuPy is not installed (pip install "minirnn[cuda12]" or "minirnn[cuda13]")'
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"cannot be used: {error}"
    return None if count else "cannot be used: there is no device"


def _kernel(kernel: Kernel, device: str) -> dict[str, Any]:
    reason = kernel.why_not("float32", device)
    try:
        chosen = choose(kernel.cell, dtype="float32", device=device).name == kernel.name
    except (RuntimeError, ValueError):
        chosen = False
    return {"device": device, "cell": kernel.cell, "name": kernel.name, "where": kernel.where, "why_not": reason, "chosen": chosen}


def _cache() -> str:
    from minirnn.data import cache_folder

    try:
        return str(cache_folder())
    except MinirnnError as error:
        return str(error)
