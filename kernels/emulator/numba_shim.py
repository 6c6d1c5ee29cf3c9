"""What a module of Numba-CUDA kernels finds in the place of `numba`, `numba.cuda` and `math` when the engine executes it.

A name that is not here raises an AttributeError: the engine would rather refuse a kernel than run it wrongly.
"""

from __future__ import annotations

import math as _math
from collections.abc import Callable
from sys import _getframe
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from minirnn.kernels.emulator import numba_engine
from minirnn.kernels.emulator.numba_engine import (
    SYNC,
    WARP,
    BarrierError,
    Index,
    Launch,
    LaunchError,
    blocks_at_once,
    current_device,
    wait,
)
from minirnn.kernels.emulator.numba_memory import SOURCES, Array, array, here, line, note_atomic, now, place, uninitialised
from minirnn.kernels.emulator.translate import EmulatorError

SOURCES.add(__file__)
ALL_LANES = 0xFFFFFFFF
# Parameters of cuda.jit: what they change about the compiled code, no emulation shows
OPTIONS = {"inline", "fastmath", "max_registers", "lineinfo", "opt", "cache", "launch_bounds", "shared_memory_carveout"}


class DeviceArray:
    """What `cuda.as_cuda_array` makes: a view of memory that the engine takes for device memory."""

    def __init__(self, data: np.ndarray[Any, Any]):
        self.data = data
        self.shape, self.dtype, self.size = data.shape, data.dtype, data.size


class Kernel:
    """A function decorated with `cuda.jit`; `kernel[grid, block, stream, shared](*arguments)` launches it."""

    def __init__(self, function: Callable[..., None]):
        self.py_func = function
        self.allowed_shared = 0  # bytes of dynamic shared memory that were asked for

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise LaunchError(f"{self.py_func.__name__}: launch with [grid, block], [grid, block, stream] or [grid, block, stream, shared]")
        grid, block, _, shared = (*configuration, 0, 0)[:4]

        def launch(*arguments: Any) -> None:
            expected = self.py_func.__code__.co_argcount
            if len(arguments) != expected:
                raise TypeError(f"{self.py_func.__name__}: takes {expected} arguments, got {len(arguments)}")
            Launch(self.py_func, _index(grid), _index(block), shared, self.allowed_shared, arguments).run()

        return launch

    def __call__(self, *arguments: Any) -> None:
        raise LaunchError(f"{self.py_func.__name__}: a kernel is launched with [grid, block]")

    def specialize(self, *arguments: Any) -> Kernel:
        return self

    @property
    def overloads(self) -> dict[Any, Kernel]:
        return {None: self}

    def max_cooperative_grid_blocks(self, block: Any, shared: int = 0) -> int:
        if shared > max(self.allowed_shared, numba_engine.DEFAULT_SHARED) or shared > current_device().shared_per_block:
            return 0
        return blocks_at_once(current_device(), _index(block), shared)

    @property
    def _codelibrary(self) -> Any:
        function = SimpleNamespace(handle=self, device=SimpleNamespace(id=0))
        return SimpleNamespace(get_cufunc=lambda: function)


def jit(signature: Any = None, device: bool = False, **options: Any) -> Any:
    """`@cuda.jit` and `@cuda.jit(device=True)`; a device function is an ordinary one here."""
    unknown = options.keys() - OPTIONS
    if unknown:
        raise TypeError(f"cuda.jit: the engine does not know {', '.join(sorted(unknown))}")

    def decorate(function: Callable[..., Any]) -> Any:
        return function if device else Kernel(function)

    return decorate(signature) if callable(signature) else decorate


def _index(size: Any) -> Index:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    if not 1 <= len(sizes) <= 3:
        raise LaunchError(f"a grid or block has one to three sizes, got {size}")
    return Index(*(int(n) for n in (*sizes, 1, 1)[:3]))


def _meet(mask: int, value: Any) -> dict[int, Any]:
    """Shuffles, votes and syncwarp: the lanes of the mask meet, at the same line. What they brought, by lane."""
    thread = now.thread
    mask = int(mask) & ALL_LANES
    if not mask >> thread.lane & 1:
        raise BarrierError(f"{here()}: lane {thread.lane} calls a warp primitive whose mask {mask:#x} does not name it")
    if mask == ALL_LANES:  # of a warp that is not full, the lanes that are there
        size = len(thread.block.threads) - (thread.number - thread.lane)
        mask &= (1 << min(WARP, size)) - 1
    answer: dict[int, Any] = wait(mask, value)
    return answer


def _shuffle(mask: int, value: Any, lane: int) -> Any:
    values = _meet(mask, value)
    if lane not in values:
        raise BarrierError(f"{here()}: shuffle from lane {lane}, which does not take part")
    return values[lane]


class _Coordinates:
    """cuda.threadIdx and its kin, of the thread that runs."""

    def __init__(self, find: Callable[[Any], Index]):
        self.find = find

    x = property(lambda self: self.find(now.thread).x)
    y = property(lambda self: self.find(now.thread).y)
    z = property(lambda self: self.find(now.thread).z)


def _shared_array(shape: Any, dtype: Any) -> Array:
    """The same memory for all threads of the block; `shape` 0 means the dynamic shared memory of the launch, all of it."""
    thread, kind = now.thread, np.dtype(dtype)
    block = thread.block
    if shape == 0:
        whole = len(block.dynamic) // kind.itemsize * kind.itemsize
        return array(block.dynamic[:whole].view(kind), "shared")
    at, where = thread.shared_arrays, place()
    thread.shared_arrays += 1
    if at == len(block.shared):
        block.shared.append((where, array(block.launch.keep(uninitialised(shape, kind)), "shared")))
        block.launch.check_static_shared(block)
    first, kept = block.shared[at]
    if line(first) != line(where):
        raise BarrierError(f"{here()}: shared array number {at + 1} of {thread}; other threads declare it at {line(first)}")
    return kept  # type: ignore[no-any-return]


def _local_array(shape: Any, dtype: Any) -> Array:
    return array(now.thread.block.launch.keep(uninitialised(shape, np.dtype(dtype))), "local")


def _constant_array(values: np.ndarray[Any, Any]) -> Array:
    memory = values.copy()
    memory.flags.writeable = False
    return array(now.thread.block.launch.keep(memory), "constant")


def _atomic(function: Callable[..., int]) -> Callable[..., int]:
    def update(target: Array, index: Any, *values: int) -> int:
        if not target.whole:
            raise EmulatorError(f"{here()}: an atomic operation on {target.dtype}: its result would depend on the order of the threads")
        target.check_store(0)
        note_atomic(target.address(index))
        old = int(target.data[index])
        target.data[index] = function(old, *values)
        return old

    return update


def _exchange_if(old: int, expected: int, value: int) -> int:
    return value if old == expected else old


class _GridGroup:
    def sync(self) -> None:
        wait("grid")


def _this_grid() -> _GridGroup:
    now.thread.block.launch.cooperate()
    return _grid_group


_grid_group = _GridGroup()


def _grid(axes: int) -> Any:
    """The place of the thread in the grid, along the first one, two or three axes."""
    thread = now.thread
    launch, block, index = thread.block.launch, thread.block.index, thread.index
    along = (block.x * launch.block.x + index.x, block.y * launch.block.y + index.y, block.z * launch.block.z + index.z)
    return along[0] if axes == 1 else along[:axes]


def _gridsize(axes: int) -> Any:
    """How many threads the grid has, along the same axes."""
    launch = now.thread.block.launch
    along = (launch.grid.x * launch.block.x, launch.grid.y * launch.block.y, launch.grid.z * launch.block.z)
    return along[0] if axes == 1 else along[:axes]


def _load(target: Array, index: Any) -> Any:
    """ldcg and its kin: there are no caches here."""
    return target.read(index, _getframe(1))


def _store(target: Array, index: Any, value: Any) -> None:
    target[index] = value


def _as_cuda_array(obj: Any, sync: bool = True) -> DeviceArray:
    """Takes the arrays of the stand-in for CuPy, and not NumPy's, as Numba does not."""
    from minirnn.kernels.emulator import stand_in

    if isinstance(obj, DeviceArray):
        return obj
    if not isinstance(obj, stand_in.ndarray):
        raise TypeError(f"as_cuda_array: {type(obj).__name__} has no CUDA array interface; a NumPy array must be moved to the device first")
    return DeviceArray(obj._array)


def _ask_for_shared(attribute: str, value: int, kernel: Kernel, device: int) -> None:
    if attribute == "MAX_DYNAMIC_SHARED_SIZE_BYTES":
        most = current_device().shared_per_block
        if value > most:
            raise LaunchError(f"{kernel.py_func.__name__}: {value} bytes of dynamic shared memory asked for, and the device has {most}")
        kernel.allowed_shared = value


class _Math(ModuleType):
    """Python's `math` with Numba's types: a float32 in, a float32 out."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(_math, name)
        if not callable(real):
            return np.float64(real)

        def typed(*values: Any) -> Any:
            result = real(*values)
            if not isinstance(result, float):
                return result
            return np.float32(result) if all(value.__class__ is np.float32 for value in values) else np.float64(result)

        setattr(self, name, typed)
        return typed


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(contents)
    return module


class _Cuda(ModuleType):
    laneid = property(lambda self: now.thread.lane)


def _syncthreads() -> None:
    wait("block")


def _syncwarp(mask: int = ALL_LANES) -> None:
    _meet(mask, SYNC)


def _nanosleep(nanoseconds: int) -> None:
    """Others run meanwhile: what a thread that spins on a flag must call."""
    wait("pause")


_TYPES = {name: getattr(np, name) for name in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")}

_cuda = _Cuda("numba.cuda")
_cuda.__dict__.update(
    jit=jit,
    warpsize=WARP,
    threadIdx=_Coordinates(lambda thread: thread.index),
    blockIdx=_Coordinates(lambda thread: thread.block.index),
    blockDim=_Coordinates(lambda thread: thread.block.launch.block),
    gridDim=_Coordinates(lambda thread: thread.block.launch.grid),
    grid=_grid,
    gridsize=_gridsize,
    cg=SimpleNamespace(this_grid=_this_grid),
    shared=SimpleNamespace(array=_shared_array),
    local=SimpleNamespace(array=_local_array),
    const=SimpleNamespace(array_like=_constant_array),
    syncthreads=_syncthreads,
    syncthreads_count=lambda value: sum(map(bool, wait("block", value).values())),
    syncthreads_and=lambda value: int(all(wait("block", value).values())),
    syncthreads_or=lambda value: int(any(wait("block", value).values())),
    syncwarp=_syncwarp,
    shfl_sync=lambda mask, value, lane: _shuffle(mask, value, lane % WARP),
    shfl_xor_sync=lambda mask, value, other: _shuffle(mask, value, now.thread.lane ^ other),
    shfl_up_sync=lambda mask, value, by: _shuffle(mask, value, now.thread.lane - by * (now.thread.lane >= by)),
    shfl_down_sync=lambda mask, value, by: _shuffle(mask, value, now.thread.lane + by * (now.thread.lane + by < WARP)),
    ballot_sync=lambda mask, value: sum(1 << lane for lane, voted in _meet(mask, value).items() if voted),
    all_sync=lambda mask, value: all(_meet(mask, value).values()),
    any_sync=lambda mask, value: any(_meet(mask, value).values()),
    nanosleep=_nanosleep,
    threadfence=lambda: None,
    atomic=SimpleNamespace(
        add=_atomic(lambda old, value: old + value),
        sub=_atomic(lambda old, value: old - value),
        max=_atomic(max),
        min=_atomic(min),
        exch=_atomic(lambda old, value: value),
        cas=_atomic(_exchange_if),
    ),
    ldcg=_load,
    ldca=_load,
    ldcs=_load,
    stcg=_store,
    stcs=_store,
    as_cuda_array=_as_cuda_array,
    external_stream=lambda pointer: pointer,
    **_TYPES,
)
_ATTRIBUTES = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="MAX_DYNAMIC_SHARED_SIZE_BYTES")
MODULES: dict[str, Any] = {  # by name: what an import of it gives
    "math": _Math("math"),
    "numba": _module("numba", cuda=_cuda, **_TYPES),
    "numba.cuda.core": _module("numba.cuda.core", config=SimpleNamespace(CUDA_LOW_OCCUPANCY_WARNINGS=1)),
    "numba.cuda.cudadrv.driver": _module(
        "numba.cuda.cudadrv.driver",
        driver=SimpleNamespace(cuKernelSetAttribute=_ask_for_shared),
        binding=SimpleNamespace(CUfunction_attribute=_ATTRIBUTES),
    ),
}
