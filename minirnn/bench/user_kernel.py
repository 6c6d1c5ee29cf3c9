"""A kernel of the user's own: a Python file with `forward` and `backward`, as `minirnn.kernels.contract` states them.

It is registered under the name of its file and then is a kernel as any other. Before that it runs on small awkward batches, dense and
ragged, and all that it returns is compared with the NumPy kernel in float64: what is wrong is named with its time step, sequence and unit.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minirnn.bench.cases import CELLS, GATES, STATES, Array, Arrays
from minirnn.bench.validation import AGREEMENT, difference
from minirnn.errors import MinirnnError
from minirnn.kernels import Kernel, kernels, register
from minirnn.kernels import load as load_kernel

# Batch sizes of each step, and H.
AWKWARD: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1,), 1),
    ((3,) * 6, 5),
    ((2,), 8),
    ((1,) * 7, 3),
    ((5, 4, 4, 2, 1, 1), 4),
    ((7, 7, 6, 3), 17),
)
MODULE = "minirnn_user_kernel_"  # and the name of the file: where Python keeps it
# What a tape must have, and what the backward pass returns, with symbolic shapes; whatever else a tape holds is the kernel's own business.
OUTPUTS = {
    "lstm": {"h": "SH", "c": "SH", "h_n": "NH", "c_n": "NH"},
    "gru": {"h": "SH", "h_n": "NH"},
    "rnn": {"h": "SH", "h_n": "NH"},
}
GRADIENTS = {
    "lstm": {"dz": "SG", "dw_hh": "GH", "dh0": "NH", "dc0": "NH"},
    "gru": {"dz": "SG", "dw_hh": "GH", "db_hn": "H", "dh0": "NH"},
    "rnn": {"dz": "SG", "dw_hh": "GH", "dh0": "NH"},
}


def load(path: str, cell: str) -> tuple[str, ModuleType]:
    """Import the file and register it as a kernel of the cell: its name and the module. Raises MinirnnError where that cannot be."""
    name, said = Path(path).stem, f"--kernel {path}"
    if Path(path).is_file() and name in {kernel.name for known in CELLS for kernel in kernels(known)}:
        raise MinirnnError(f"{said}: there is a kernel named {name!r} already; name the file differently")
    module = imported(path, said)
    register(Kernel(cell, name, where="any CPU", how=f"the user's: {path}", module=module.__name__, devices=("cpu",)))
    return name, module


def imported(path: str, said: str) -> ModuleType:
    """The file as a module that has `forward` and `backward`, read anew at each call. `said` begins the MinirnnError where it has not."""
    file = Path(path)
    if not file.is_file():
        raise MinirnnError(f"{said}: there is no such file")
    spec = importlib.util.spec_from_file_location(MODULE + file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise MinirnnError(f"{said}: cannot be imported: {told(error, str(spec.origin))}") from error
    for function in ("forward", "backward"):
        if not callable(getattr(module, function, None)):
            raise MinirnnError(f"{said}: has no function {function!r}; minirnn.kernels.contract says what it takes and returns")
    return module


def check(module: ModuleType, cell: str, dtype: str) -> list[str]:
    """What is wrong with a kernel, a sentence each, of the first awkward batch on which anything is; nothing if all is well."""
    for batch_sizes, H in AWKWARD:
        faults = [f"at batch_sizes {list(batch_sizes)}, H={H}: {fault}" for fault in _faults(module, cell, dtype, np.array(batch_sizes), H)]
        if faults:
            return faults
    return []


def _faults(module: ModuleType, cell: str, dtype: str, batch_sizes: Array, H: int) -> Iterator[str]:
    drawn = _draw(cell, batch_sizes, H)
    exact = {name: array.astype(dtype).astype(np.float64) for name, array in drawn.items()}
    given = {name: array.astype(dtype) for name, array in drawn.items()}
    for nonlinearity in ("tanh", "relu") if cell == "rnn" else (None,):
        options = {"batch_sizes": batch_sizes} | ({"nonlinearity": nonlinearity} if nonlinearity else {})
        for everything in (True, False):
            yield from _run(module, cell, given, options, exact, _names(cell, everything))


def _run(module: Any, cell: str, given: Arrays, options: dict[str, Any], exact: Arrays, wanted: Sequence[str]) -> Iterator[str]:
    """Forward and backward of the kernel and of the reference, called as the layers do; `wanted` are the gradients that are not None."""
    batch_sizes = options["batch_sizes"]
    reference: Any = load_kernel(cell, "numpy")
    inputs = [*(("z", "w_hh", "b_hn") if cell == "gru" else ("z", "w_hh")), *(f"{s}0" for s in STATES[cell])]
    gradients = _names(cell, everything=True)
    before = {name: array.copy() for name, array in given.items()}
    right = reference.forward(*(exact[name] for name in inputs), **options)
    right_grads = reference.backward(right, exact["w_hh"], *(exact[name] if name in wanted else None for name in gradients))
    without = ", ".join(name for name in gradients if name not in wanted)
    note = f" where {without} {'is' if ',' not in without else 'are'} None" if without else ""
    path = str(module.__file__)
    try:
        tape = module.forward(*(given[name] for name in inputs), **options)
    except Exception as error:
        yield f"forward raised {told(error, path)}"
        return
    yield from (faults := list(_compare(tape, right, OUTPUTS[cell], exact, batch_sizes, given["z"].dtype, False)))
    if faults:
        return
    try:
        grads = module.backward(tape, given["w_hh"], *(given[name] if name in wanted else None for name in gradients))
    except Exception as error:
        yield f"backward{note} raised {told(error, path)}"
        return
    for fault in _compare(grads, right_grads, GRADIENTS[cell], exact, batch_sizes, given["z"].dtype, True):
        yield fault + note
    for name, array in given.items():
        if not np.array_equal(array, before[name]):
            yield f"it writes to its argument {name}, which belongs to the caller"


def _compare(
    found: Any, right: Any, shapes: dict[str, str], exact: Arrays, batch_sizes: Array, dtype: np.dtype[Any], backwards: bool
) -> Iterator[str]:
    function = "backward" if backwards else "forward"
    H, GH = exact["w_hh"].shape[1], exact["w_hh"].shape[0]
    sizes = {"S": int(batch_sizes.sum()), "N": int(batch_sizes[0]), "H": H, "G": GH}
    for name, symbols in shapes.items():
        array = getattr(found, name, None)
        expected = tuple(sizes[letter] for letter in symbols)
        shown = f"({', '.join('GH' if letter == 'G' else letter for letter in symbols)}) = {expected}"
        if array is None:
            yield f"{function} returns no {name}, which must be {shown}"
        elif not isinstance(array, np.ndarray):
            yield f"{function}: {name} must be a NumPy array {shown}, got {type(array).__name__}"
        elif array.shape != expected:
            yield f"{function}: {name} must be {shown}, got {array.shape}"
        elif array.dtype != dtype:
            yield f"{function}: {name} must be {dtype} as the arguments are, got {array.dtype}"
        else:
            off = _difference(name, array, getattr(right, name), AGREEMENT[dtype.name], symbols, batch_sizes, backwards)
            if not off.right:
                yield off.fault()


def _difference(name: str, found: Array, right: Array, bound: float, symbols: str, batch_sizes: Array, backwards: bool) -> Any:
    if symbols[0] != "S":
        axes = {"NH": ("sequence", "unit"), "GH": ("row", "column"), "H": ("unit",)}[symbols]
        return difference(name, found, right, bound, axes)
    wide = right.shape[1]
    dense = np.zeros((2, len(batch_sizes), int(batch_sizes[0]), wide))  # (T, N, wide) each
    rows = np.arange(batch_sizes[0]) < batch_sizes[:, None]  # (T, N)
    dense[0][rows], dense[1][rows] = found, right
    return difference(name, dense[0], dense[1], bound, ("time step", "sequence", "unit" if symbols[1] == "H" else "row of w_hh"), backwards)


def _draw(cell: str, batch_sizes: Array, H: int) -> Arrays:
    rng = np.random.default_rng(0)
    S, N, GH = int(batch_sizes.sum()), int(batch_sizes[0]), GATES[cell] * H
    shapes: dict[str, tuple[int, ...]] = {"z": (S, GH), "w_hh": (GH, H), "dh": (S, H)}
    shapes |= {"b_hn": (H,)} if cell == "gru" else {}
    shapes |= {"dc": (S, H)} if cell == "lstm" else {}
    shapes |= {name: (N, H) for state in STATES[cell] for name in (f"{state}0", f"d{state}_n")}
    return {name: rng.standard_normal(shape) / (np.sqrt(H) if name == "w_hh" else 1) for name, shape in shapes.items()}


def _names(cell: str, everything: bool) -> list[str]:
    """Of the gradients that a backward pass takes, in their order; not everything: of the output alone, as in most training."""
    names = ["dh", "dc", "dh_n", "dc_n"] if cell == "lstm" else ["dh", "dh_n"]
    return names if everything else names[:1]


def told(error: Exception, path: str) -> str:
    """The exception, and the line of the user's file that it came from."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f", line {line}" if line else ""
    return f"{type(error).__name__}: {error}{where}"
