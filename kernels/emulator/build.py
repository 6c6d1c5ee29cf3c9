"""A shared library of CUDA kernels that runs on the CPU: translate, compile, keep, load.

library = compile(source)                       # g++, once for each text and each compiler
library["axpy"]((2,), (128,), (x, y, np.int32(n)), seed=7)
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from minirnn.kernels.emulator.translate import EmulatorError, kernels, translate

Array: TypeAlias = Any
HERE = Path(__file__).parent
SANITIZERS = ("", "address,undefined", "thread")
_FLAGS = (
    "-std=c++17",
    "-g",
    "-fPIC",
    "-fno-gnu-unique",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-unused",
)


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
    parent = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minirnn"
    )
    return Path(parent, "emulator")


def compile(
    source: str,
    *,
    names: Sequence[str] = (),
    defines: Sequence[str] = (),
    sanitize: str | None = None,
    optimize: str = "-O1",
    filename: str = "kernel.cu",
) -> Library:
    """The library of all kernels in `source` that are no templates, and of the template instances in `names`.

    `defines` are "NAME" or "NAME=VALUE"; `sanitize` is one of SANITIZERS, by default $MINIRNN_SANITIZE.
    """
    if reason := missing():
        raise EmulatorError(f"the emulator cannot run here: {reason}")
    sanitize = sanitizer() if sanitize is None else sanitize
    if sanitize not in SANITIZERS:
        raise ValueError(f"sanitize must be one of {SANITIZERS}, got {sanitize!r}")
    bounds = {**dict.fromkeys(names), **kernels(source)}
    symbols = {name: f"k{i}_" + re.sub(r"\W", "_", name) for i, name in enumerate(bounds)}
    unit = _unit(source, symbols, defines, filename)
    options = (optimize, *_sanitizer_flags(sanitize))
    return Library(_built(unit, options), symbols, bounds)


def _unit(source: str, symbols: Mapping[str, str], defines: Sequence[str], filename: str) -> str:
    """The C++ file: the header, the kernels, and a description of each kernel that Python can read."""
    return "\n".join(
        [
            '#include "cuda_on_cpu.h"',
            *(f"#define {define.replace('=', ' ', 1) if '=' in define else define + ' 1'}" for define in defines),
            f'#line 1 "{filename}"',
            translate(source),
            '#line 1 "exports"',
            *(f"EMU_EXPORT({symbol}, {name})" for name, symbol in symbols.items()),
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


def _built(unit: str, options: tuple[str, ...]) -> Path:
    """The shared library of a C++ file, from the cache folder or compiled into it; it appears there whole or not at all."""
    key = hashlib.sha256("\0".join([unit, _headers(), *options, *_FLAGS, compiler(), _compiler_version(compiler())]).encode())
    library = folder() / f"{key.hexdigest()[:24]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as work:
            _compile_in(Path(work), unit, options)
            os.replace(Path(work, "library.so"), library)
    return library


def _compile_in(work: Path, unit: str, options: tuple[str, ...]) -> None:
    (work / "unit.cpp").write_text(unit)
    include = [f"-I{HERE / 'include'}", f"-I{HERE}"]
    command = [compiler(), "-shared", *options, *_FLAGS, *include, str(work / "unit.cpp"), "-o", str(work / "library.so")]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise EmulatorError("the C++ compiler refused the kernel:\n" + result.stderr[:6000])


@cache
def _runtime() -> ctypes.CDLL:
    """What runs beneath the kernels of all libraries, for all of them to link with. Sanitizers instrument the kernels and not this: it
    switches stacks under their feet."""
    return ctypes.CDLL(str(_built((HERE / "runtime.cpp").read_text(), ("-O2",))), mode=ctypes.RTLD_GLOBAL)


_running = threading.Lock()  # one launch at a time: the runtime has one scheduler


class Address(int):
    """A pointer that is passed as it is; 0 is null."""


class _Description(ctypes.Structure):
    """emulator::Kernel of cuda_on_cpu.h."""

    _fields_ = (("run", ctypes.c_void_p), ("types", ctypes.c_char_p), ("elements", ctypes.c_char_p), ("constness", ctypes.c_char_p))


class Library(Mapping[str, "Kernel"]):
    """The kernels of one file, by name."""

    def __init__(self, path: Path, symbols: Mapping[str, str], bounds: Mapping[str, str | None]) -> None:
        self.path, self._symbols, self._bounds = path, symbols, bounds
        self._launch = _runtime().emu_launch
        self._loaded = ctypes.CDLL(str(path))
        void, size = ctypes.c_void_p, ctypes.c_size_t
        self._launch.argtypes = [void, void, void, size, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, size]

    def __getitem__(self, name: str) -> Kernel:
        description = _Description.in_dll(self._loaded, "emu_k_" + self._symbols[name])
        bound = self._bounds[name]
        return Kernel(self._launch, name, description, int(bound) if bound and bound.isdigit() else None)

    def __iter__(self) -> Any:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)


def type_code(dtype: Any) -> str:
    """The letter of a NumPy dtype that cuda_on_cpu.h gives to the C++ type: long is the 64-bit integer on Linux."""
    char = np.dtype(dtype).char
    return {"l": "q", "L": "Q"}.get(char, char)


class Kernel:
    """One kernel. Arguments are arrays for pointers and NumPy scalars for the rest, of exactly the types that the kernel declares."""

    def __init__(self, launch: Any, name: str, description: _Description, bound: int | None) -> None:
        self._launch, self.name, self._description, self.bound = launch, name, description, bound
        self.types = description.types.decode()  # a letter for each parameter, P for a pointer
        self.elements = description.elements.decode()  # of each pointer, the letter of what it points to

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_memory: int = 0,
        cooperative: bool = False,
        seed: int = 2,
        flush: bool = False,
    ) -> None:
        """Run the grid. `seed` 0 takes threads in ascending order, 1 in descending order, others draw the order from the seed; `flush` treats
        subnormal numbers as zero."""
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        if len(args) != len(self.types):
            raise EmulatorError(f"{self.name} takes {len(self.types)} arguments, got {len(args)}")
        slots = (ctypes.c_uint64 * max(len(args), 1))(*(self._slot(i, argument) for i, argument in enumerate(args)))
        pointers = (ctypes.c_void_p * len(slots))(*(ctypes.addressof(slots) + 8 * i for i in range(len(slots))))
        sizes = (ctypes.c_uint * 6)(*grid, *block)
        message = ctypes.create_string_buffer(1024)
        description = ctypes.addressof(self._description)
        with _running:
            failed = self._launch(description, pointers, sizes, shared_memory, int(cooperative), seed, int(flush), message, len(message))
        if failed:
            raise EmulatorError(f"{self.name}: {message.value.decode()}")

    def _slot(self, i: int, argument: Any) -> int:
        """The eight bytes that hold argument i."""
        expected = self.types[i]
        if expected == "P":
            return self._address(i, argument)
        if not isinstance(argument, np.generic) or type_code(argument.dtype) != expected:
            raise EmulatorError(f"{self.name}: argument {i} must be a NumPy scalar of type {expected!r}, got {_described(argument)}")
        return int.from_bytes(argument.tobytes(), "little")

    def _address(self, i: int, argument: Any) -> int:
        element = self.elements[i]
        if isinstance(argument, np.uintp) and argument == 0:  # a null pointer
            return 0
        if not isinstance(argument, np.ndarray):
            raise EmulatorError(f"{self.name}: argument {i} is a pointer and needs an array, got {_described(argument)}")
        if element not in "vS" and type_code(argument.dtype) != element:
            raise EmulatorError(f"{self.name}: argument {i} is a pointer to {element!r} and cannot take an array of {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise EmulatorError(f"{self.name}: argument {i} must be a C-contiguous array, this one has strides {argument.strides}")
        return int(argument.ctypes.data)


def _described(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if np.ndim(value) == 0 else f"{type(value).__name__} of {value.dtype}"
