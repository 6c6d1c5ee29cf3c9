"""What implementations of each recurrence and fused operation there are, which can run here and, if not, why not; and the choice."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minirnn.kernels.availability import emulator_lacks, installed, missing
from minirnn.kernels.costs import itemsize, kalman_costs, recurrence_costs
from minirnn.kernels.modules import device_kind

ENVIRONMENT = "MINIRNN_KERNEL"
CELLS = ("lstm", "gru", "rnn")
ON_ANY_DEVICE = ("cross_entropy", "embedding", "adam", "dropout", "layer_norm", "kalman")
ON_THE_CPU = ("attention", "conv", "matmul", "max_pool", "relu", "group_norm", "squares")  # elsewhere these are made of other operations
OPERATIONS = ON_ANY_DEVICE + ON_THE_CPU  # fused; `choose` and `load` serve them as well
GPU = ("cuda", "emulated")
SINGLE_AND_DOUBLE = ("float32", "float64")
PUBLISHED = ("H100", "A100", "RTX 4090")  # the devices of minirnn.kernels.cuda.devices

_asked_for: ContextVar[str | None] = ContextVar("minirnn_kernel", default=None)
_stand_in: ContextVar[Callable[[ModuleType], Any] | None] = ContextVar("minirnn_kernel_stand_in", default=None)


@dataclass(frozen=True)
class Kernel:
    """One implementation of one recurrence (or operation), and what it needs in order to run."""

    cell: str
    name: str
    where: str  # for a reader: the hardware
    how: str  # for a reader: one line
    module: str | None  # where forward and backward live; None: made of Tensor operations, minirnn.ops.recurrence has it
    devices: tuple[str, ...] | None = None  # kinds, without an index; None: any
    dtypes: tuple[str, ...] | None = None  # None: any
    requires: tuple[str, ...] = ()  # packages that must be installed; the emulator does without them
    least_steps: int = 1  # with fewer, what it prepares once per call does not pay, and `choose` prefers another
    emulator: str = "build"  # the part of `minirnn.kernels.emulator` that runs it on the device "emulated"

    def why_not(self, dtype: Any = "float32", device: str = "cpu") -> str | None:
        """Why this kernel cannot run here on such arrays; None if it can."""
        return self.does_not_take(dtype, device) or self.lacks(dtype, device)

    def does_not_take(self, dtype: Any, device: str) -> str | None:
        """Why it could not run on such arrays anywhere; None if it could."""
        if self.devices is not None and self.is_for_another(device):
            return f"it runs on {' or '.join(self.devices)}, and the device is {device}"
        if self.dtypes is not None and dtype_name(dtype) not in self.dtypes:
            return f"it takes {' or '.join(self.dtypes)}, and the dtype is {dtype_name(dtype)}"
        return None

    def is_for_another(self, device: str) -> bool:
        """Whether it is made for other devices than this one."""
        return self.devices is not None and _kind(device) not in self.devices

    def lacks(self, dtype: Any, device: str) -> str | None:
        """What it needs and this machine has not; None if nothing is missing."""
        kind = _kind(device)
        packages = ("ml_dtypes",) if dtype_name(dtype) == "bfloat16" else ()
        for package in packages if kind == "emulated" else (*self.requires, *packages):
            if not installed(package):
                return f"it needs the package {package}, which is not installed"
        if packages and kind == "cuda" and np.lib.NumpyVersion(np.__version__) < "2.1.2":
            return f"CuPy takes bfloat16 with NumPy 2.1.2 or newer, and this is {np.__version__}"
        if self.devices is None:
            return None
        return emulator_lacks(self.emulator) if kind == "emulated" else missing(device)


def dtype_name(dtype: Any) -> str:
    """The name of a dtype; "bfloat16" is NumPy's only where the package ml_dtypes has been imported."""
    return dtype if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name


def _kind(device: str) -> str:
    """ "cpu", "cuda" or "emulated"; a GPU that is known by its published figures is a "cuda" one."""
    return "cuda" if device in PUBLISHED else device.partition(":")[0]


_kernels: dict[tuple[str, str], Kernel] = {}
_fused: dict[tuple[str, Any, str, str | None], ModuleType] = {}  # what `fused` has answered
_most_least_steps = 1  # of all kernels
_recurrences: dict[tuple[str, Any, str, str | None, int], ModuleType | None] = {}  # what `recurrence` has answered


def register(kernel: Kernel) -> None:
    """Add a kernel. `choose` prefers, among those that can run, the one registered first."""
    global _most_least_steps
    _known_cell(kernel.cell, "register")
    if (kernel.cell, kernel.name) in _kernels:
        raise ValueError(f"register: {kernel.cell} has a kernel named {kernel.name!r} already")
    _kernels[kernel.cell, kernel.name] = kernel
    _fused.clear()
    _recurrences.clear()
    _most_least_steps = max(_most_least_steps, kernel.least_steps)


def kernels(cell: str) -> tuple[Kernel, ...]:
    """The kernels of a cell ("lstm", "gru", "rnn") or operation, the preferred one first."""
    _known_cell(cell, "kernels")
    return tuple(kernel for kernel in _kernels.values() if kernel.cell == cell)


def load(cell: str, name: str, device: str = "cpu") -> ModuleType:
    """The module of a kernel, imported on first use: it has `forward` and `backward` as `minirnn.kernels.contract` states them.

    On the device "emulated" the Numba-CUDA kernels come from the emulator's engine, which runs their source on the CPU.
    """
    module: ModuleType = _seen(_load(cell, name, device))
    return module


def _load(cell: str, name: str, device: str) -> ModuleType:
    kernel = _find(cell, name, "load")
    if kernel.module is None:
        raise ValueError(f"load: {cell} kernel {name!r} is made of Tensor operations and has no array module; see minirnn.ops.recurrence")
    if name == "numba-cuda" and device == "emulated":
        module: ModuleType = importlib.import_module("minirnn.kernels.emulator.numba_engine").load(kernel.module)
        return module
    return importlib.import_module(kernel.module)


@contextmanager
def kernel(name: str | None) -> Iterator[None]:
    """Inside the `with` block, recurrences run on the kernel of this name (None: on the one that `choose` finds by itself).

        with minirnn.kernel("numpy"):
            output, state = lstm(x)

    An argument `kernel=` given to a layer goes before it; the environment variable MINIRNN_KERNEL comes after it.
    """
    if name is not None:
        _known(name, "kernel")
    token = _asked_for.set("" if name is None else name)
    try:
        yield
    finally:
        _asked_for.reset(token)


def choose(
    cell: str,
    *,
    dtype: Any,
    device: str = "cpu",
    kernel: str | None = None,
    T: int | None = None,
    N: int | None = None,
    H: int | None = None,
) -> Kernel:
    """The kernel that runs T steps of N sequences with H hidden units; the sizes are left out for an operation.

    Asked for by name, in this order: the argument `kernel`, the innermost `with minirnn.kernel(name)`, the environment variable
    MINIRNN_KERNEL. Otherwise the first of `kernels(cell)` that can run and pays for T steps. Raises RuntimeError where the one asked for
    cannot run, or none can.
    An operation follows the `with` block and the environment only where it has a kernel of that name for the device: they speak of
    recurrences first.
    """
    name, asked_by = _asked(kernel)
    if name and kernel is None and cell in OPERATIONS:
        _known(name, asked_by)
        meant = _kernels.get((cell, name))
        if meant is None or meant.is_for_another(device):
            name = None

    def case() -> str:
        sizes = "".join(f", {letter}={size}" for letter, size in (("T", T), ("N", N), ("H", H)) if size is not None)
        return f"{dtype_name(dtype)} on {device}{sizes}"

    if name:
        chosen = _find(cell, name, asked_by)
        reason = chosen.why_not(dtype, device)
        if reason is None:
            return chosen
        others = [k.name for k in kernels(cell) if k.why_not(dtype, device) is None]
        raise RuntimeError(f"{asked_by}: the {cell} kernel {name!r} cannot run {case()}: {reason}; can run: {', '.join(others) or 'none'}")
    able = []
    for candidate in kernels(cell):
        if candidate.why_not(dtype, device) is None:
            if T is None or candidate.least_steps <= T:
                return candidate
            able.append(candidate)
    if not able:
        if cell in ON_THE_CPU and _kind(device) != "cpu":
            raise RuntimeError(f"no {cell} kernel can run {case()}: it is fused on the CPU alone; elsewhere minirnn.ops makes it of others")
        reasons = "; ".join(f"{candidate.name}: {candidate.why_not(dtype, device)}" for candidate in kernels(cell))
        raise RuntimeError(f"no {cell} kernel can run {case()}: {reasons or 'none is registered'}")
    return able[0]


def fused(operation: str, array: Any) -> ModuleType:
    """The module of the kernel that runs an operation, one of OPERATIONS, on arrays like this one, on the array's own device."""
    device = device_kind(array)
    key = operation, array.dtype, device, _asked(None)[0]
    if key not in _fused:  # an optimiser asks for every parameter at every step
        _fused[key] = _load(operation, choose(operation, dtype=array.dtype, device=device).name, device)
    module = _fused[key]
    return module if _stand_in.get() is None else _seen(module)


def recurrence(cell: str, T: int, N: int, H: int, array: Any, kernel: str | None = None) -> ModuleType | None:
    """The module of the kernel that `choose` finds for arrays like this one, on the array's device; None for "unrolled", which has none."""
    device = device_kind(array)
    key = cell, array.dtype, device, _asked(kernel)[0], min(T, _most_least_steps)
    if key not in _recurrences:
        chosen = choose(cell, T=T, N=N, H=H, dtype=array.dtype, device=device, kernel=kernel)
        _recurrences[key] = None if chosen.module is None else _load(cell, chosen.name, device)
    module = _recurrences[key]
    return module if module is None or _stand_in.get() is None else _seen(module)


@contextmanager
def shown(stand_in: Callable[[ModuleType], Any]) -> Iterator[None]:
    """Inside the `with` block, whoever asks for a kernel gets what `stand_in` makes of its module: a profiler times the functions so."""
    token = _stand_in.set(stand_in)
    try:
        yield
    finally:
        _stand_in.reset(token)


def _seen(module: ModuleType) -> Any:
    stand_in = _stand_in.get()
    return module if stand_in is None else stand_in(module)


def name_of(module: ModuleType) -> tuple[str, ...]:
    """Cell, or operation, and name of the kernel that a module is: ("lstm", "numba"). One that is not registered goes by its own name."""
    path = module.__name__
    return next(((k.cell, k.name) for k in _kernels.values() if k.module == path), (path.rpartition(".")[2],))


def explain(T: int, N: int, D: int, H: int, dtype: Any = "float32", device: str = "cpu", cell: str = "lstm", measure: bool = False) -> str:
    """Which kernel would run T steps of N sequences, D features in and H hidden units, why the others would not, and what it costs.

    device   "cpu", "cuda", "emulated", or a GPU whose published figures are known and which need not be here: "H100", "A100", "RTX 4090"
    cell     "lstm", "gru", "rnn", or "kalman", for which D is the size of an observation and H of the state
    measure  on the CPU: the floor, the time of the layer's own matrix products, is timed here (NumPy) and not only given as operations

    On a GPU the rest is its plan: form, tiles, what stays on chip, bytes and operations of a step, floor, predicted step time.
    """
    if cell not in (*CELLS, "kalman"):
        raise ValueError(f"explain: cell must be one of {', '.join((*CELLS, 'kalman'))}, got {cell!r}")
    elsewhere = device in PUBLISHED
    found = kernels(cell)
    if elsewhere:
        able = [candidate for candidate in found if candidate.does_not_take(dtype, device) is None]
        chosen = next((candidate for candidate in able if candidate.name == _asked(None)[0]), able[0])
    else:
        chosen = choose(cell, T=T, N=N, H=H, dtype=dtype, device=device)
    sizes = f"p={D} observed, n={H} states" if cell == "kalman" else f"D={D} features, H={H} hidden units"
    lines = [f"{cell}: T={T} steps, N={N} sequences, {sizes}, {dtype_name(dtype)} on {device}", ""]
    for candidate in found:
        reason = candidate.does_not_take(dtype, device) if elsewhere else candidate.why_not(dtype, device)
        if candidate is chosen and not elsewhere and missing(device):  # made of operations, it needs nothing but the device
            verdict = "could run, on a machine with that device"
        elif candidate is chosen:
            verdict = f"runs ({_asked(None)[1]})" if _asked(None)[0] else "runs"
        elif reason:
            verdict = f"cannot run: {reason}"
        elif candidate.least_steps > T:
            verdict = f"can run; {chosen.name} is preferred for fewer than {candidate.least_steps} steps"
        else:
            verdict = f"can run; {chosen.name} is preferred"
        lines.append(f"  {candidate.name:<12}{candidate.where}: {candidate.how}")
        lines.append(f"  {'':<12}{verdict}")
    if cell == "kalman":
        costs = kalman_costs(T, N, D, H, itemsize(dtype_name(dtype)))
    elif device == "cpu" or chosen.module is None:
        costs = recurrence_costs(T, N, D, H, dtype_name(dtype), cell, measure)
    else:
        describe = importlib.import_module("minirnn.kernels.cuda.explain").describe
        costs = describe(cell, T, N, D, H, dtype_name(dtype), device, kernel=chosen.name)
    return "\n".join([*lines, "", *costs])


def _asked(argument: str | None) -> tuple[str | None, str]:
    """The name asked for, if any, and by what."""
    if argument is not None:
        return argument, f"kernel={argument!r}"
    inner = _asked_for.get()
    if inner is not None:
        return inner, f"with minirnn.kernel({inner!r})"
    name = os.environ.get(ENVIRONMENT)
    return name, f"{ENVIRONMENT}={name}"


def _known_cell(cell: str, asked_by: str) -> None:
    if cell not in CELLS + OPERATIONS:
        raise ValueError(f"{asked_by}: cell must be one of {', '.join(CELLS + OPERATIONS)}, got {cell!r}")


def _known(name: str, asked_by: str) -> None:
    names = list(dict.fromkeys(known for _, known in _kernels))
    if name not in names:
        raise ValueError(f"{asked_by}: there is no kernel named {name!r}; there are {', '.join(names)}")


def _find(cell: str, name: str, asked_by: str) -> Kernel:
    _known(name, asked_by)
    names = [kernel.name for kernel in kernels(cell)]
    if name not in names:
        raise ValueError(f"{asked_by}: {cell} has no kernel named {name!r}; it has {', '.join(names)}")
    return _kernels[cell, name]


_CUPY = {
    "cross_entropy": "CUDA C++: log-softmax, loss and gradient, one pass over the logits each",
    "embedding": "CUDA C++: the rows of each id summed in their order, without atomics",
    "adam": "CUDA C++: one pass over a parameter and its state",
    "dropout": "CUDA C++: the mask is computed where it is needed, in either pass",
    "layer_norm": "CUDA C++: statistics, weight and bias in one pass",
    "kalman": "array operations on all sequences at once, step by step",
}


def _register_all() -> None:
    for cell in (*CELLS, *OPERATIONS):
        module = f"minirnn.kernels.{cell}"
        register(
            Kernel(
                cell,
                "numba",
                where="CPU",
                how="fused, vectorised, parallel; no allocation per step",
                module=f"{module}.numba_cpu",
                devices=("cpu",),
                dtypes=SINGLE_AND_DOUBLE,
                requires=("numba",),
                least_steps=2 if cell in CELLS else 1,  # it packs w_hh
            )
        )
        register(
            Kernel(
                cell,
                "numpy",
                where="any CPU",
                how="the mathematics, line by line: the reference and the fallback",
                module=f"{module}.numpy_",
                devices=("cpu",),
            )
        )
        if cell in ON_THE_CPU:
            continue
        register(
            Kernel(
                cell,
                "cupy",
                where="GPU",
                how=_CUPY.get(cell, "CUDA C++: one kernel for the whole sequence where w_hh fits on chip, else one for each step"),
                module=f"{module}.cupy_",
                devices=GPU,
                dtypes=SINGLE_AND_DOUBLE if cell == "kalman" else ("float16", "bfloat16", *SINGLE_AND_DOUBLE),
                requires=("cupy",),
            )
        )
    for cell in CELLS:
        register(
            Kernel(
                cell,
                "numba-cuda",
                where="GPU",
                how="the same as cupy, in Numba-CUDA",
                module=f"minirnn.kernels.{cell}.numba_cuda",
                devices=GPU,
                dtypes=SINGLE_AND_DOUBLE,
                requires=("cupy", "numba", "numba_cuda"),
                emulator="numba_engine",
            )
        )
        register(
            Kernel(
                cell,
                "unrolled",
                where="any",
                how="primitive Tensor operations, one step at a time: for study, and for second derivatives",
                module=None,
            )
        )
    for name, how in (
        ("square_root", "factors of the covariances in place of them: half as many digits do; no derivative"),
        ("parallel", "all time steps at once, by an associative scan; no derivative"),
    ):
        register(Kernel("kalman", name, where="any CPU", how=how, module=f"minirnn.kernels.kalman.{name}", devices=("cpu",)))


_register_all()
