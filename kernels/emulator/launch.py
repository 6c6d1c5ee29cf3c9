"""`cupy.RawModule` and `cupy.RawKernel`: the source is compiled for this CPU, and a launch is checked as a GPU would check it, and more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minirnn.kernels.emulator import build, counts, device, memory
from minirnn.kernels.emulator.arrays import MemoryPointer, ndarray
from minirnn.kernels.emulator.library import Address, Kernel, Library
from minirnn.kernels.emulator.translate import EmulatorError

_launches = 0
_seed = 2


@contextmanager
def schedule(seed: int) -> Any:
    """The threads of launches inside run in ascending order (0), in descending order (1), or in orders drawn from the seed (2 and more)."""
    global _seed, _launches
    before, _seed, _launches = (_seed, _launches), seed, 0
    try:
        yield
    finally:
        _seed, _launches = before


def next_seed() -> int:
    """Of the launch that begins: 0 and 1 stand for ascending and descending order, any other seed gives each launch an order of its own."""
    global _launches
    _launches += 1
    return _seed if _seed < 2 else _seed + _launches


class RawModule:
    """A .cu file. `options` may define macros, -DNAME=VALUE, and treat subnormal numbers as zero, --ftz=true or --use_fast_math."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool | None = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("a RawModule is made of `code` or of `path`, of one of them")
        if path is not None:
            raise NotImplementedError("a compiled module (path=) cannot be emulated; give its code")
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple, got {type(options).__name__}")
        self.code, self.options, self.backend = code or "", options, backend
        self.enable_cooperative_groups, self.name_expressions = enable_cooperative_groups, tuple(name_expressions or ())
        self._libraries: dict[str, Library] = {}

    def compile(self, log_stream: Any = None) -> None:
        self._library()

    def _library(self) -> Library:
        sanitize = build.sanitizer()
        if sanitize not in self._libraries:
            defines = [option[2:] for option in self.options if option.startswith("-D")]
            self._libraries[sanitize] = build.compile(self.code, names=self.name_expressions, defines=defines, sanitize=sanitize)
        return self._libraries[sanitize]

    def get_function(self, name: str) -> Function:
        library = self._library()
        if name not in library:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}; the file has {', '.join(library)}")
        return Function(library[name], cooperative=self.enable_cooperative_groups, flush=_flushes(self.options))


def _flushes(options: tuple[str, ...]) -> bool:
    return any(option.lstrip("-").replace("_", "-") in ("ftz=true", "use-fast-math") for option in options)


class Function:
    """A kernel that can be launched."""

    def __init__(self, kernel: Kernel, *, cooperative: bool, flush: bool) -> None:
        self._kernel, self._flush, self.enable_cooperative_groups = kernel, flush, cooperative
        self.name = kernel.name
        self.max_dynamic_shared_size_bytes = device.STATIC_SHARED
        self.max_threads_per_block = kernel.bound or 1024
        self.attributes = {"max_threads_per_block": self.max_threads_per_block}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes" and value > device.properties.shared_memory:
            raise EmulatorError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name} asks for {value} bytes of dynamic shared memory, "
                f"a block on this device has at most {device.properties.shared_memory}"
            )
        super().__setattr__(name, value)

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
        sizes = _three("grid", grid), _three("block", block)
        self._check_geometry(*sizes, shared_mem)
        if not isinstance(args, tuple):
            raise TypeError(f"the arguments of {self.name} must be a tuple, got {type(args).__name__}")
        arrays = [each for each in args if isinstance(each, ndarray)]
        prepared = [_prepared(self.name, i, each) for i, each in enumerate(args)]
        counts.launched(counts.Launch(self.name, *sizes, shared_mem, self.enable_cooperative_groups))
        self._kernel(
            *sizes,
            prepared,
            shared_memory=shared_mem,
            most_shared_memory=device.properties.shared_memory,
            cooperative=self.enable_cooperative_groups,
            seed=next_seed(),
            flush=self._flush,
        )
        for i, array in enumerate(arrays):
            if not memory.intact(array._array):
                raise EmulatorError(f"{self.name} wrote outside of an array: beside the {_ordinal(i)} array, {array.dtype} {array.shape}")

    def _check_geometry(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared_mem: int) -> None:
        threads, blocks, limits = math.prod(block), math.prod(grid), device.Device().attributes
        if min(grid + block) < 1:
            raise EmulatorError(f"{self.name}: an empty launch, grid {grid} and block {block}; CuPy would launch 1 in the place of 0")
        if threads > 1024 or block[2] > 64 or max(grid[1:]) > limits["MaxGridDimY"] or grid[0] > limits["MaxGridDimX"]:
            raise EmulatorError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: grid {grid} and block {block} exceed what any GPU takes")
        if self._kernel.bound and threads > self._kernel.bound:
            raise EmulatorError(
                f"{self.name}: CUDA_ERROR_INVALID_VALUE: {threads} threads to a block, its __launch_bounds__ allow {self._kernel.bound}"
            )
        if not 0 <= shared_mem <= self.max_dynamic_shared_size_bytes:
            raise EmulatorError(
                f"{self.name}: CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of dynamic shared memory, at most "
                f"{self.max_dynamic_shared_size_bytes} are allowed; set max_dynamic_shared_size_bytes to ask for more"
            )
        if self.enable_cooperative_groups:
            self._check_cooperative(blocks, threads, shared_mem)

    def _check_cooperative(self, blocks: int, threads: int, shared_mem: int) -> None:
        """All blocks of a cooperative launch must run at the same time, or those that run wait for the others forever."""
        if not device.properties.cooperative:
            raise EmulatorError(f"{self.name}: CUDA_ERROR_NOT_SUPPORTED: this device has no cooperative launch")
        each = device.blocks_at_once(threads, shared_mem)
        most = each * device.properties.multiprocessors
        if blocks > most:
            raise EmulatorError(
                f"{self.name}: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: {blocks} blocks, {most} of {threads} threads and {shared_mem} "
                f"bytes of dynamic shared memory run at once ({each} on each of {device.properties.multiprocessors} multiprocessors)"
            )


class RawKernel(Function):
    """One kernel and its source; compiled when first needed."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool | None = None,
    ) -> None:
        module = RawModule(code=code, options=options, enable_cooperative_groups=enable_cooperative_groups)
        function = module.get_function(name)
        super().__init__(function._kernel, cooperative=enable_cooperative_groups, flush=_flushes(options))
        self.code, self.options, self.backend = code, options, backend

    def compile(self, log_stream: Any = None) -> None:
        pass


def _three(what: str, sizes: Any) -> tuple[int, int, int]:
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3 or not all(isinstance(size, (int, np.integer)) for size in sizes):
        raise TypeError(f"{what} must be a tuple of one to three integers, got {sizes!r}")
    x, y, z = (*map(int, sizes), 1, 1)[:3]
    return x, y, z


def _prepared(kernel: str, i: int, argument: Any) -> Any:
    """What the kernel's parameter is compared with: Python's numbers are of 8 bytes, as CuPy passes them."""
    if isinstance(argument, ndarray):
        if argument._device != device.current():
            raise EmulatorError(f"{kernel}: argument {i} is on device {argument._device}, the kernel runs on device {device.current()}")
        return argument._array
    if isinstance(argument, MemoryPointer):
        return Address(argument.ptr)
    if isinstance(argument, np.ndarray):
        raise TypeError(f"Unsupported type {type(argument)}")
    if isinstance(argument, bool):
        return np.bool_(argument)
    if isinstance(argument, int):
        return np.int64(argument)
    if isinstance(argument, float):
        return np.float64(argument)
    if isinstance(argument, complex):
        return np.complex128(argument)
    if argument is None:
        return Address(0)
    if not isinstance(argument, np.generic):
        raise TypeError(f"Unsupported type {type(argument)}")
    return argument


def _ordinal(i: int) -> str:
    return ("first", "second", "third")[i] if i < 3 else f"{i + 1}th"
