"""From a .cu file to a library that runs on the CPU: translate, compile, keep, load.

library = compile(source)                       # g++, once for each text and each compiler
library["axpy"]((2,), (128,), (x, y, np.int32(n)), seed=7)
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from minirnn.kernels.emulator.library import Library
from minirnn.kernels.emulator.translate import EmulatorError, export_kernels, symbol, translate

HERE = Path(__file__).parent
SANITIZERS = ("", "address,undefined", "thread")
_FLAGS = ("-std=c++17", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused")
# A product and a sum stay two roundings, as fma() is one. A local variable that nobody wrote to holds 0xFE bytes, a huge negative number.
_KERNEL_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-ftrivial-auto-var-init=pattern")


def compiler() -> str:
    """$CXX, or g++."""
    return os.environ.get("CXX") or "g++"


def missing() -> str | None:
    """Why kernels cannot be emulated here, or None."""
    if not shutil.which(compiler()):
        return f"it needs a C++ compiler ({compiler()}), which is not installed"
    if os.uname().machine != "x86_64":
        return f"its fibers are written for x86-64, and this machine is {os.uname().machine}"
    return None


def sanitizer() -> str:
    """What $MINIRNN_SANITIZE asks for: "", "address,undefined" or "thread"."""
    return os.environ.get("MINIRNN_SANITIZE", "")


def folder() -> Path:
    """Where libraries are kept: `emulator` in $NUMBA_CACHE_DIR or in minirnn's cache folder, with what Numba has compiled."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "minirnn"), "emulator")


def compile(
    source: str, *, names: Sequence[str] = (), defines: Sequence[str] = (), sanitize: str | None = None, optimize: str | None = None
) -> Library:
    """The library of all kernels in `source` that are no templates, and of the template instances in `names`.

    defines   "NAME" or "NAME=VALUE"
    sanitize  one of SANITIZERS, by default $MINIRNN_SANITIZE
    optimize  the compiler's level, by default -O1, or -O0 where $MINIRNN_DEBUG is set: for a debugger
    """
    if reason := missing():
        raise EmulatorError(f"the emulator cannot run here: {reason}")
    sanitize = sanitizer() if sanitize is None else sanitize
    if sanitize not in SANITIZERS:
        raise ValueError(f"sanitize must be one of {SANITIZERS}, got {sanitize!r}")
    optimize = optimize or ("-O0" if os.environ.get("MINIRNN_DEBUG") else "-O1")
    text, found = export_kernels(translate(source))
    unit = _unit(text, names, defines)
    run = _runtime()  # first: the kernels are linked with it when they are loaded
    return Library(_built(unit, (optimize, *_KERNEL_FLAGS, *_sanitizer_flags(sanitize)), source), (*found, *names), source, run)


def _unit(text: str, instances: Sequence[str], defines: Sequence[str]) -> str:
    """The C++ file: the header, the kernels, and descriptions of the instances of templates that were asked for."""
    defined = (define.replace("=", " ", 1) if "=" in define else f"{define} 1" for define in defines)
    return "\n".join(
        [
            '#include "cuda_on_cpu.h"',
            *(f"#define {each}" for each in defined),
            '#line 1 "kernel.cu"',
            text,
            '#line 1 "instances"',
            *(f"EMU_EXPORT({symbol(name)}, 0, {name})" for name in instances),
            "",
        ]
    )


def _sanitizer_flags(sanitize: str) -> tuple[str, ...]:
    return (f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined") if sanitize else ()


@cache
def _compiler_version(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout


def _headers() -> str:
    return "\0".join(path.read_text() for path in sorted(HERE.rglob("*")) if path.suffix in (".h", ".cpp"))


def _built(unit: str, options: tuple[str, ...], source: str = "") -> Path:
    """The shared library of a C++ file, from the cache folder or compiled into it; it appears there whole or not at all.

    `source` is what a debugger shows, kept beside the library.
    """
    key = hashlib.sha256("\0".join([unit, source, _headers(), *options, *_FLAGS, compiler(), _compiler_version(compiler())]).encode())
    library = folder() / key.hexdigest()[:24] / "library.so"
    if not library.exists():
        library.parent.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent.parent) as temporary:
            work = Path(temporary, "work")
            work.mkdir()
            _compile_in(work, library.parent, unit, options, source)
            try:
                os.replace(work, library.parent)
            except OSError:
                if not library.exists():  # made by another process in the meantime
                    raise
    return library


def _compile_in(work: Path, final: Path, unit: str, options: tuple[str, ...], source: str) -> None:
    (work / "unit.cpp").write_text(unit)
    (work / "kernel.cu").write_text(source)
    # The debugger looks for the sources where they will be.
    paths = (f"-I{HERE / 'include'}", f"-I{HERE}", f"-fdebug-prefix-map={work}={final}")
    command = [compiler(), "-shared", *options, *_FLAGS, *paths, "unit.cpp", "-o", "library.so"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=work)
    if result.returncode:
        raise EmulatorError("the C++ compiler refused the kernel:\n" + result.stderr[:6000])


@cache
def _runtime() -> Callable[..., int]:
    """emu_launch of runtime.cpp, which runs beneath the kernels of all libraries.

    Sanitizers instrument the kernels and not this: it switches stacks under their feet.
    """
    path = _built((HERE / "runtime.cpp").read_text(), ("-O2",))
    run: Callable[..., int] = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL).emu_launch
    return run
