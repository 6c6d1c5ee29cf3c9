"""Compilation without a GPU and without its driver: CUDA C++ exactly as CuPy compiles it, Numba-CUDA kernels as numba-cuda does.

Both libraries compile for the device that they find. Here they are told which, and what they would hand to the driver is kept instead.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import subprocess
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def why_not_cupy() -> str | None:
    """Why CUDA C++ cannot be compiled here; None if it can."""
    if importlib.util.find_spec("cupy") is None:
        return 'CuPy is not installed (pip install "minirnn[cuda13]")'
    try:
        importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion()
    except (ImportError, RuntimeError) as error:
        return f"CuPy finds no NVRTC: {error}"
    return None


def why_not_numba() -> str | None:
    """Why Numba-CUDA kernels cannot be compiled here; None if they can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return 'numba-cuda is not installed (pip install "numba-cuda[cu13]")'
    try:
        ptxas()
    except FileNotFoundError as error:
        return str(error)
    return None


def versions() -> dict[str, str]:
    """Of everything that decides what is compiled, as far as it is installed."""
    found = {}
    for package in ("cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-nvrtc", "numba", "numba-cuda", "nvidia-nvvm"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if why_not_numba() is None:
        text = subprocess.run([ptxas(), "--version"], capture_output=True, text=True, check=True).stdout
        release = re.search(r"V([\d.]+)", text)
        found["ptxas"] = release[1] if release else "unknown"
    return found


def ptxas_report(source: str, options: Sequence[str], architecture: int) -> str:
    """What `ptxas -v` says of a CUDA C++ source, compiled to machine code by CuPy for sm_<architecture>."""
    _, report = _by_cupy(source, (*options, "--ptxas-options=-v"), architecture, f"-arch=sm_{architecture}", "cubin")
    return report


def ptx(source: str, options: Sequence[str], architecture: int) -> str:
    """The PTX of a CUDA C++ source, compiled by CuPy for compute_<architecture>."""
    code, _ = _by_cupy(source, tuple(options), architecture, f"-arch=compute_{architecture}", "ptx")
    return code.decode()


def numba_ptx(function: Callable[..., Any], signature: Any, architecture: int) -> str:
    """The PTX of a kernel written in Python, compiled by numba-cuda; `signature` holds the types of its arguments."""
    cuda = importlib.import_module("numba.cuda")
    capability = divmod(architecture, 10)
    device = types.SimpleNamespace(compute_capability=capability)
    # A device function that is called asks for the device.
    with _replaced(importlib.import_module("numba.cuda.dispatcher"), "get_current_device", lambda: device):
        code, _ = cuda.compile_ptx(function, signature, cc=capability)
    return str(code)


def assemble(code: str, architecture: int) -> str:
    """What `ptxas -v` says of PTX. Raises RuntimeError where it rejects it.

    A grid barrier of numba-cuda calls a function of cudadevrt, which is linked later: such code stays relocatable.
    """
    relocatable = ("-c",) if ".extern .func" in code else ()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(code)
        command = [ptxas(), "-v", *relocatable, f"-arch=sm_{architecture}", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas for sm_{architecture}: {done.stderr.strip()}")
    return done.stderr


def ptxas() -> str:
    """The assembler of the wheel nvidia-cuda-nvcc, which is as new as the compilers beside it, or else the one on the PATH."""
    toolkit = importlib.util.find_spec("nvidia")
    for folder in toolkit.submodule_search_locations or () if toolkit else ():
        for path in sorted(Path(folder).glob("*/bin/ptxas")):
            return str(path)
    found = shutil.which("ptxas")
    if found is None:
        raise FileNotFoundError("there is no ptxas: install nvidia-cuda-nvcc, or a CUDA toolkit on the PATH")
    return found


def _by_cupy(source: str, options: tuple[str, ...], architecture: int, flag: str, kind: str) -> tuple[bytes, str]:
    """The path of `cupy.RawModule`, its options and include folders, up to where the driver would load the result."""
    from cupy._core import core
    from cupy.cuda import compiler

    kept: list[bytes] = []

    class Module(compiler.function.Module):  # type: ignore[misc]
        def load(self, code: bytes) -> None:
            kept.append(code)

        def _set_mapping(self, mapping: Any) -> None:
            pass

    log = io.StringIO()
    with (
        _replaced(compiler, "function", types.SimpleNamespace(Module=Module)),
        _replaced(compiler, "_get_arch", lambda: str(architecture)),
        _replaced(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: (flag, kind)),
        _nothing_kept_on_disk(),
    ):
        core.compile_with_cache(source, options, enable_cooperative_groups=True, log_stream=log)
    return kept[0], log.getvalue()


@contextmanager
def _nothing_kept_on_disk() -> Iterator[None]:
    """A module from CuPy's cache comes without a report."""
    name = "CUPY_CACHE_IN_MEMORY"
    before, os.environ[name] = os.environ.get(name), "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
