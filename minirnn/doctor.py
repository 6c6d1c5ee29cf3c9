"""What there is on this machine: versions, processor, threads, BLAS, memory, GPUs, data, and which kernels can run on which device."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minirnn._version import __version__
from minirnn.errors import MinirnnError
from minirnn.kernels import Kernel, choose, kernels
from minirnn.kernels.availability import missing
from minirnn.kernels.registry import CELLS, ENVIRONMENT, OPERATIONS

REQUIRED = ("numpy", "numba", "llvmlite", "safetensors", "rich")
OPTIONAL = {
    "matplotlib": "pictures",
    "sacrebleu": "scores of translations",
    "sentencepiece": "subwords",
    "babel": "the data set cldr",
    "emoji": "the data set cldr",
    "cupy": "the GPU",
    "numba_cuda": "the kernels in Numba-CUDA on a GPU",
    "greenlet": "the kernels in Numba-CUDA on the emulated GPU",
    "ml_dtypes": "bfloat16 on a GPU, or emulated",
    "threadpoolctl": "what BLAS runs on",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DEVICES = ("cpu", "cuda", "emulated")
KIB, MIB = 1024, 1024 * 1024


def examine() -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "minirnn": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in REQUIRED},
        "extras": {name: {"version": _version(name), "for": purpose} for name, purpose in OPTIONAL.items()},
        "processor": processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "blas": _blas(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "kernel_variable": os.environ.get(ENVIRONMENT),
        "devices": {device: missing(device) for device in DEVICES},
        "gpus": {name: figures for device in DEVICES[1:] if missing(device) is None for name, figures in _gpus(device)},
        "compiler": _compiler(),
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
        lines.append(f"{device:<12}{'can be used' if reason is None else f'cannot be used: {reason}'}")
        if reason is not None:
            continue
        lines += [f"  {_described(name, gpu)}" for name, gpu in found["gpus"].items() if name.partition(":")[0] == device]
        if device == "emulated":
            lines.append(f"  its kernels are compiled by {found['compiler']}")
        for entry in (entry for entry in found["kernels"] if entry["device"] == device and entry["made_for_it"]):
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


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
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


def _gpus(device: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The GPUs of a device that can be used, and what each says of itself."""
    from minirnn.device import module_of
    from minirnn.kernels.cuda.devices import here

    xp = module_of(device)
    for index in range(xp.cuda.runtime.getDeviceCount()):
        with xp.cuda.Device(index):
            gpu = here(xp)
            figures = {
                "name": gpu.name,
                "compute_capability": ".".join(map(str, gpu.compute_capability)),
                "multiprocessors": gpu.multiprocessors,
                "shared_memory_per_block": gpu.shared_per_block,
                "l2_cache": gpu.l2,
                "memory": int(xp.cuda.Device(index).mem_info[1]),
            }
            if device == "cuda":
                figures |= {"driver": xp.cuda.runtime.driverGetVersion(), "runtime": xp.cuda.runtime.runtimeGetVersion()}
            yield (f"cuda:{index}" if device == "cuda" else device), figures


def _described(name: str, gpu: Mapping[str, Any]) -> str:
    cuda = f", CUDA runtime {_cuda_version(gpu['runtime'])} on a driver for {_cuda_version(gpu['driver'])}" if "runtime" in gpu else ""
    return (
        f"{name}: {gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors with "
        f"{gpu['shared_memory_per_block'] // KIB} KiB for a block, L2 {gpu['l2_cache'] / MIB:.3g} MiB, "
        f"memory {gpu['memory'] / 2**30:.3g} GiB{cuda}"
    )


def _cuda_version(number: int) -> str:
    """13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _compiler() -> str | None:
    """The C++ compiler that the emulator uses, as it names itself; None where there is none."""
    from minirnn.kernels.emulator.build import compiler

    try:
        said = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.partition("\n")[0].strip() or compiler()


def _kernel(kernel: Kernel, device: str) -> dict[str, Any]:
    reason = kernel.why_not("float32", device)
    try:
        chosen = choose(kernel.cell, dtype="float32", device=device).name == kernel.name
    except (RuntimeError, ValueError):
        chosen = False
    return {
        "device": device,
        "cell": kernel.cell,
        "name": kernel.name,
        "where": kernel.where,
        "made_for_it": kernel.devices is None or device in kernel.devices,
        "why_not": reason,
        "chosen": chosen,
    }


def _cache() -> str:
    from minirnn.data import cache_folder

    try:
        return str(cache_folder())
    except MinirnnError as error:
        return str(error)
