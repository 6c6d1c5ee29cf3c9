"""A kernel of a recurrence, however it is named, run forward and backward on a packed batch: what `minirnn.study.compare` compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minirnn.bench.cases import CELLS, GATES, STATES
from minirnn.device import Array, to_device
from minirnn.errors import MinirnnError
from minirnn.kernels import kernels, load
from minirnn.kernels.contract import check_nonlinearity, check_packed

Arrays: TypeAlias = dict[str, Array]
COTANGENTS = {"lstm": ("dh", "dc", "dh_n", "dc_n"), "gru": ("dh", "dh_n"), "rnn": ("dh", "dh_n")}
TAPS = {"lstm": ("dh_t", "dc_t"), "gru": ("dh_t",), "rnn": ("dh_t",)}


class Symbols(NamedTuple):
    """The shape of a quantity: S rows of all steps, N sequences, H units, G = gates times H. Whether the backward pass computes it."""

    shape: str
    backwards: bool


def quantities(cell: str) -> dict[str, Symbols]:
    """All that a kernel returns, in the order in which it is computed. `gates` and `hn` are a kernel's own business, and taps an offer."""
    forward = {"lstm": {"gates": "SG", "c": "SH", "h": "SH"}, "gru": {"hn": "SH", "gates": "SG", "h": "SH"}, "rnn": {"h": "SH"}}[cell]
    forward |= {f"{state}_n": "NH" for state in STATES[cell]}
    backward = dict.fromkeys(TAPS[cell], "SH") | {"dz": "SG", "dw_hh": "GH"} | ({"db_hn": "H"} if cell == "gru" else {})
    backward |= {f"d{state}0": "NH" for state in STATES[cell]}
    return {name: Symbols(shape, False) for name, shape in forward.items()} | {
        name: Symbols(shape, True) for name, shape in backward.items()
    }


OPTIONAL = ("gates", "hn", "dh_t", "dc_t")


@dataclass(frozen=True)
class Batch:
    """What a recurrence runs on, packed (see `minirnn.kernels.contract`): NumPy arrays of one dtype, sequences sorted, the longest first.

    Args:
        z: (S, GH) input projection of every row, biases included; G gates.
        w_hh: (GH, H).
        batch_sizes: (T,) rows of each step, never increasing.
        h0, c0: (N, H) first states; None is zero. c0 is an LSTM's.
        b_hn: (H,) the bias of a GRU that its reset gate multiplies; None is zero.
        dh, dc: (S, H) what the loss reads from each state; None is zero.
        dh_n, dc_n: (N, H) what it reads from each sequence's last states; None is zero. Where none of the four is given, all are drawn.
    """

    z: Array
    w_hh: Array
    batch_sizes: Array
    h0: Array | None = None
    c0: Array | None = None
    b_hn: Array | None = None
    dh: Array | None = None
    dc: Array | None = None
    dh_n: Array | None = None
    dc_n: Array | None = None


def batch_of(given: Any, cell: str, dtype: Any, seed: int) -> tuple[Arrays, Array]:
    """The arrays of a batch by name, complete and checked, and its batch_sizes: those that are given, or drawn for the sizes given."""
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 4:
        given = dict(zip("TNDH", given, strict=True))
    if isinstance(given, Batch):
        given = {field.name: getattr(given, field.name) for field in fields(given)}
    if not isinstance(given, Mapping):
        raise TypeError(f"compare: batch must be sizes (T, N, D, H), a dict or a Batch, got {type(given).__name__}")
    if "z" not in given:
        return _drawn(cell, dtype or "float32", np.random.default_rng(seed), **given)
    arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
    if missing := {"w_hh", "batch_sizes"} - arrays.keys():
        raise ValueError(f"compare: batch has no {' and no '.join(sorted(missing))}; it has {', '.join(arrays)}")
    if unknown := arrays.keys() - {field.name for field in fields(Batch)}:
        raise ValueError(f"compare: batch has {', '.join(sorted(unknown))}, which is none of {', '.join(f.name for f in fields(Batch))}")
    batch_sizes = arrays.pop("batch_sizes")
    arrays = {name: np.ascontiguousarray(array, dtype) for name, array in arrays.items()}
    N, H, kind = int(batch_sizes[0]), arrays["w_hh"].shape[-1], arrays["z"].dtype
    zeros = {f"{state}0": np.zeros((N, H), kind) for state in STATES[cell]} | ({"b_hn": np.zeros(H, kind)} if cell == "gru" else {})
    shapes = {"dh": (len(arrays["z"]), H), "dc": (len(arrays["z"]), H), "dh_n": (N, H), "dc_n": (N, H)}
    if not arrays.keys() & set(COTANGENTS[cell]):
        arrays |= {name: np.random.default_rng(seed).standard_normal(shapes[name]).astype(kind) for name in COTANGENTS[cell]}
    arrays = zeros | arrays
    check_packed(cell.upper(), GATES[cell], arrays["z"], arrays["w_hh"], batch_sizes, **{name: arrays[name] for name in zeros})
    for name in COTANGENTS[cell]:
        if name in arrays and arrays[name].shape != shapes[name]:
            raise ValueError(
                f"compare: {name} must be ({'S' if shapes[name][0] != N else 'N'}, H) = {shapes[name]}, got {arrays[name].shape}"
            )
    return arrays, batch_sizes


def _drawn(
    cell: str,
    dtype: Any,
    rng: np.random.Generator,
    T: int | None = None,
    N: int | None = None,
    D: int | None = None,
    H: int | None = None,
    lengths: Sequence[int] | None = None,
) -> tuple[Arrays, Array]:
    """Standard normal input, first states and gradients; parameters as layers draw theirs, uniform on +-1 / sqrt(H)."""
    steps = np.sort(np.asarray([T] * N if lengths is None and T and N else lengths or []))[::-1]
    if H is None or not len(steps) or min(H, D or H, *steps.tolist()) < 1:
        raise ValueError("compare: a batch is drawn for T, N, D, H or lengths, D, H, whole numbers above 0 (D may be left out)")
    batch_sizes = (steps[:, None] > np.arange(steps[0])).sum(axis=0)  # (T,)
    S, N, GH, D = int(batch_sizes.sum()), len(steps), GATES[cell] * H, D or H

    def parameter(*shape: int) -> Array:
        return rng.uniform(-(H**-0.5), H**-0.5, shape)

    arrays = {"z": rng.standard_normal((S, D)) @ parameter(D, GH) + parameter(GH), "w_hh": parameter(GH, H)}
    arrays |= {"b_hn": parameter(H)} if cell == "gru" else {}
    arrays |= {f"{state}0": rng.standard_normal((N, H)) for state in STATES[cell]}
    arrays |= {name: rng.standard_normal((N if name.endswith("n") else S, H)) for name in COTANGENTS[cell]}
    return {name: array.astype(dtype_of(dtype)) for name, array in arrays.items()}, batch_sizes


def dtype_of(name: Any) -> Any:
    if isinstance(name, str) and name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class Runner(NamedTuple):
    """A kernel, ready to run: its name, its module (or what has `forward` and `backward` like one), and the device of its arrays."""

    name: str
    module: Any
    device: str = "cpu"
    path: str | None = None  # of a user's file

    @property
    def taps(self) -> bool:
        return getattr(self.module, "taps", False) is True


def runner(kernel: Any, cell: str, dtype: np.dtype[Any], device: str) -> Runner:
    """Of a name in the registry, a path to a Python file, or a module; `device` is where GPU kernels run."""
    if not isinstance(kernel, str | Path):
        if not callable(getattr(kernel, "forward", None)) or not callable(getattr(kernel, "backward", None)):
            raise TypeError(f"compare: a kernel must have forward and backward, as minirnn.kernels.contract says; got {kernel!r}")
        return Runner(getattr(kernel, "__name__", type(kernel).__name__).rpartition(".")[2], kernel, device if _for_gpu(kernel) else "cpu")
    if str(kernel).endswith(".py"):
        from minirnn.bench.user_kernel import imported

        path = str(kernel)
        return Runner(Path(path).stem, imported(path, f"kernel {path}"), path=str(Path(path).resolve()))
    known = {one.name: one for one in kernels(cell)}
    if kernel not in known:
        raise MinirnnError(
            f"there is no {cell} kernel named {kernel}; there are {', '.join(known)}, and a path that ends with .py is a file"
        )
    found = known[str(kernel)]
    on = device if found.devices is not None and "cpu" not in found.devices else "cpu"
    if reason := found.why_not(dtype.name, on):
        raise MinirnnError(f"the {cell} kernel {kernel} cannot run here on {dtype.name}: {reason}")
    return Runner(found.name, _Unrolled(cell) if found.module is None else load(cell, found.name, on), on)


def _for_gpu(module: Any) -> bool:
    return isinstance(module, ModuleType) and module.__name__.endswith((".cupy_", ".numba_cuda"))


def run(kernel: Runner, cell: str, arrays: Arrays, batch_sizes: Array, nonlinearity: str = "tanh") -> Arrays:
    """All that the kernel returns, by name, on the host."""
    on_device = {name: to_device(array, kernel.device) for name, array in arrays.items()}
    inputs = [on_device[name] for name in ("z", "w_hh", "b_hn", "h0", "c0") if name in on_device]
    options = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
    tape = _called(kernel, "forward", *inputs, batch_sizes.copy(), **options)
    found = {name: getattr(tape, name, None) for name, symbols in quantities(cell).items() if not symbols.backwards}
    found = {
        name: array if array is None else to_device(array, "cpu").copy() for name, array in found.items()
    }  # backward may spend the tape
    taps = {
        name: to_device(np.zeros_like(arrays["z"], shape=(len(arrays["z"]), arrays["w_hh"].shape[1])), kernel.device) for name in TAPS[cell]
    }
    given = [on_device.get(name) for name in COTANGENTS[cell]]
    grads = _called(kernel, "backward", tape, on_device["w_hh"], *given, **({"taps": tuple(taps.values())} if kernel.taps else {}))
    found |= {name: getattr(grads, name, None) for name, symbols in quantities(cell).items() if symbols.backwards}
    found |= taps if kernel.taps else {}
    return _checked(kernel, cell, {name: array for name, array in found.items() if array is not None}, arrays, batch_sizes)


def _called(kernel: Runner, function: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(kernel.module, function)(*arguments, **options)
    except Exception as error:
        if kernel.path is None:
            raise
        from minirnn.bench.user_kernel import told

        raise MinirnnError(f"kernel {kernel.path}: {function} raised {told(error, kernel.path)}") from error


def _checked(kernel: Runner, cell: str, found: Arrays, arrays: Arrays, batch_sizes: Array) -> Arrays:
    """On the host; without what is the kernel's own and of another shape. A MinirnnError where the contract wants another shape."""
    (GH, H), S, N = arrays["w_hh"].shape, len(arrays["z"]), int(batch_sizes[0])
    right: Arrays = {}
    for name, symbols in quantities(cell).items():
        shape = tuple({"S": S, "N": N, "H": H, "G": GH}[letter] for letter in symbols.shape)
        array = found.get(name)
        if array is not None and array.shape == shape:
            right[name] = to_device(array, "cpu")
        elif name not in OPTIONAL:
            shown = f"({', '.join('GH' if letter == 'G' else letter for letter in symbols.shape)}) = {shape}"
            came = f"no attribute {name}" if array is None else str(array.shape)
            raise MinirnnError(
                f"kernel {kernel.name}: {'backward' if symbols.backwards else 'forward'}: {name} must be {shown}, got {came}"
            )
    return right


class _Unrolled:
    """The recurrence of primitive Tensor operations, differentiated by the engine, as if it were a kernel."""

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def forward(self, *arguments: Any, **options: Any) -> Any:
        from minirnn.autograd import enable_grad
        from minirnn.ops import recurrence
        from minirnn.tensor import Tensor

        *arrays, batch_sizes = arguments
        inputs = [Tensor(array, requires_grad=True) for array in arrays]
        with enable_grad():
            outputs = getattr(recurrence, f"{self.cell}_unrolled")(*inputs, batch_sizes=batch_sizes, **options)
        names = [*STATES[self.cell], *(f"{state}_n" for state in STATES[self.cell])]
        return SimpleNamespace(inputs=inputs, outputs=outputs, **{name: y.data for name, y in zip(names, outputs, strict=True)})

    def backward(self, tape: Any, w_hh: Array, *grads: Array | None) -> Any:
        from minirnn.autograd import grad
        from minirnn.tensor import Tensor

        pairs = [(y, Tensor(dy)) for y, dy in zip(tape.outputs, grads, strict=True) if dy is not None]
        outputs, given = [y for y, _ in pairs], [dy for _, dy in pairs]
        found = grad(outputs, tape.inputs, given, allow_unused=True) if pairs else [None] * len(tape.inputs)
        names = ["dz", "dw_hh", *(["db_hn"] if self.cell == "gru" else []), *(f"d{state}0" for state in STATES[self.cell])]
        arrays = [np.zeros_like(x.data) if dx is None else dx.data for x, dx in zip(tape.inputs, found, strict=True)]
        return SimpleNamespace(**dict(zip(names, arrays, strict=True)))


def check_cell(cell: str, nonlinearity: str) -> None:
    if cell not in CELLS:
        raise ValueError(f"compare: cell must be one of {', '.join(CELLS)}, got {cell!r}")
    check_nonlinearity(nonlinearity)
