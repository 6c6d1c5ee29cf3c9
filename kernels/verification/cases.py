"""What the kernels are run on: a case is one kernel, a form, a dtype and a shape. Running it compares everything that it returns with NumPy
in float64, the bits of one schedule of the threads with those of another, and what it was given with what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.plan import form
from minirnn.kernels.emulator import numba_engine, stand_in
from minirnn.kernels.packed import starts
from minirnn.kernels.registry import CELLS, load

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
COTANGENTS = {"lstm": ("h", "c", "h_n", "c_n"), "gru": ("h", "h_n"), "rnn": ("h", "h_n")}
HOST = ("batch_sizes", "nonlinearity")  # fields of a tape that are no device arrays
TAPS = {"lstm": ("dh_t", "dc_t"), "gru": ("dh_t",), "rnn": ("dh_t",)}  # the whole gradients of the states
PER_ROW = ("h", "c", "gates", "hn", "dz", "dh_t", "dc_t")
PER_SEQUENCE = ("h_n", "c_n", "dh0", "dc0")


Options: TypeAlias = tuple[tuple[str, Any], ...]


class Mismatch(AssertionError):
    """A kernel returned something else than it should have."""


@dataclass(frozen=True)
class Case:
    """One run of a kernel, forward and backward. `sizes`: of a cell batch_sizes and H, of an operation its dimensions."""

    kernel: str  # a cell or an operation of the registry
    dtype: str
    sizes: tuple[Any, ...]
    form: str | None = None  # of a cell: "step" or "persistent"
    language: str = "cupy"  # or "numba-cuda"
    options: Options = ()
    without: tuple[str, ...] = ()  # gradients that are None
    device: tuple[tuple[str, int], ...] = ()  # properties of the emulated device

    def __str__(self) -> str:
        extra = [f"{name}={value}" for name, value in (*self.options, *self.device)] + [f"no d{name}" for name in self.without]
        return " ".join([self.language, self.kernel, self.form or "", self.dtype, str(self.sizes), *extra]).replace("  ", " ")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Case:
        """From JSON, which has lists in the place of tuples."""
        return cls(**{field.name: _tuples(values[field.name]) for field in fields(cls)})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def run(case: Case, seeds: tuple[int, ...], thorough: bool = True) -> None:
    """Raise a Mismatch, or what the emulator raises, unless the kernel does right under the schedules that these seeds draw.

    thorough: also run with a NaN in one sequence, and with one sequence alone
    """
    with ExitStack() as stack:
        stack.enter_context(stand_in.device_properties(**dict(case.device)))
        stack.enter_context(form(case.form))
        problem = (_Recurrence if case.kernel in CELLS else _OPERATIONS[case.kernel])(case)
        first: dict[str, Array] = {}
        for seed in seeds:
            with stand_in.schedule(seed), numba_engine.schedule(seed):
                found = problem.run()
                if not first:
                    problem.check(found)
                    if thorough:
                        problem.check_claims(found)
            for name, array in first.items():
                if array.tobytes() != found[name].tobytes():
                    raise Mismatch(f"{name} depends on the order of the threads")
            first = first or found


def compare(name: str, actual: Array, expected: Array, tolerance: float) -> None:
    """Relative to the largest number expected: what rounding does to a sum does not shrink with its result."""
    if actual.shape != expected.shape:
        raise Mismatch(f"{name} has shape {actual.shape} in place of {expected.shape}")
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    off = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0)) / scale
    if not off <= tolerance:  # NaN is not
        raise Mismatch(f"{name} is off by {off:.1e}, allowed are {tolerance:.1e}")


def roundoff(dtype: str) -> float:
    """The relative error of storing a number."""
    return {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]


def dtype_of(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class _Recurrence:
    """A cell of the contract, on a packed batch. The reference's backward pass begins with the tape that the kernel left, so that what is
    compared is one pass and not two."""

    def __init__(self, case: Case) -> None:
        self.case, self.cell = case, case.kernel
        sizes, H = case.sizes
        self.batch_sizes = np.array(sizes, np.int64)
        dtype, rng = dtype_of(case.dtype), np.random.default_rng(len(sizes) + H)
        S, N, G = sum(sizes), sizes[0], GATES[self.cell]

        def draw(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        states = {"h0": draw(N, H)} | ({"c0": draw(N, H)} if self.cell == "lstm" else {})
        bias = {"b_hn": draw(H)} if self.cell == "gru" else {}
        w_hh = (rng.standard_normal((G * H, H)) / np.sqrt(H)).astype(dtype)
        self.inputs = {"z": draw(S, G * H), "w_hh": w_hh, **bias, **states}
        shapes = {"h": (S, H), "c": (S, H), "h_n": (N, H), "c_n": (N, H)}
        self.cotangents = {name: None if name in case.without else draw(*shapes[name]) for name in COTANGENTS[self.cell]}

    def run(self) -> dict[str, Array]:
        return self.run_on(self.inputs, self.cotangents, self.batch_sizes)

    def run_on(
        self, on_host: dict[str, Array], gradients: dict[str, Array | None], batch_sizes: Array, tapped: bool = True
    ) -> dict[str, Array]:
        kernel = load(self.cell, self.case.language, "emulated")
        inputs = {name: stand_in.asarray(array) for name, array in on_host.items()}
        cotangents = {name: None if array is None else stand_in.asarray(array) for name, array in gradients.items()}
        tape = kernel.forward(*inputs.values(), batch_sizes, **dict(self.case.options))
        nothing = np.full(tape.h.shape, np.nan, self.inputs["z"].dtype)
        taps = {name: stand_in.asarray(nothing) for name in TAPS[self.cell] if tapped}
        grads = kernel.backward(tape, inputs["w_hh"], *cotangents.values(), **({"taps": tuple(taps.values())} if tapped else {}))
        for name, array in on_host.items():
            if inputs[name].get().tobytes() != array.tobytes():
                raise Mismatch(f"the kernel wrote to its argument {name}")
        results = {**tape._asdict(), **grads._asdict(), **taps}
        return {name: array.get() for name, array in results.items() if name not in HOST}

    def check(self, found: dict[str, Array]) -> None:
        reference = load(self.cell, "numpy")
        wide = {name: array.astype(np.float64) for name, array in self.inputs.items()}
        tape = reference.forward(*wide.values(), self.batch_sizes, **dict(self.case.options))
        for name, array in tape._asdict().items():
            if name not in HOST:
                compare(name, found[name], array, self.tolerance())
        tape = tape._replace(**{name: found[name].astype(np.float64) for name in tape._fields if name not in HOST})
        cotangents = [None if array is None else array.astype(np.float64) for array in self.cotangents.values()]
        taps = {name: np.empty(tape.h.shape) for name in TAPS[self.cell]}
        grads = reference.backward(tape, wide["w_hh"], *cotangents, taps=tuple(taps.values()))
        for name, array in (grads._asdict() | taps).items():
            compare(name, found[name], array, self.tolerance())
        self.check_untapped(found)

    def check_untapped(self, found: dict[str, Array]) -> None:
        """Where nobody asks for the whole gradients of the states, all else has the same bits."""
        for name, array in self.run_on(self.inputs, self.cotangents, self.batch_sizes, tapped=False).items():
            if array.tobytes() != found[name].tobytes():
                raise Mismatch(f"{name} depends on whether the whole gradients of the states are asked for")

    def check_claims(self, found: dict[str, Array]) -> None:
        if self.batch_sizes[0] > 1:
            self.check_isolation(found)
            if self.case.form == "persistent":
                self.check_alone(found)

    def check_isolation(self, found: dict[str, Array]) -> None:
        """A NaN in one sequence stays in it, and changes no bit of another."""
        N = int(self.batch_sizes[0])
        sick, rows = N // 2, self.rows_of(N // 2)
        z = self.inputs["z"].copy()
        z[rows[0]] = np.nan
        for name, array in self.run_on({**self.inputs, "z": z}, self.cotangents, self.batch_sizes).items():
            if name == "h_n" and not np.isnan(array[sick].astype(np.float64)).any():
                raise Mismatch("a NaN in z is lost on its way to h_n")
            if name in PER_ROW + PER_SEQUENCE:
                gone = rows if name in PER_ROW else [sick]
                if np.delete(array, gone, 0).tobytes() != np.delete(found[name], gone, 0).tobytes():
                    raise Mismatch(f"a NaN in one sequence reaches another in {name}")

    def check_alone(self, found: dict[str, Array]) -> None:
        """The last of the sequences, alone, has the bits that it has in the batch."""
        n = int(self.batch_sizes[0]) - 1
        rows = self.rows_of(n)
        inputs = {
            name: array[rows] if name == "z" else array[n : n + 1] if name in ("h0", "c0") else array for name, array in self.inputs.items()
        }
        cotangents = {
            name: None if array is None else array[rows] if name in PER_ROW else array[n : n + 1] for name, array in self.cotangents.items()
        }
        for name, array in self.run_on(inputs, cotangents, np.ones(len(rows), np.int64)).items():
            if name in PER_ROW + PER_SEQUENCE and array.tobytes() != found[name][rows if name in PER_ROW else [n]].tobytes():
                raise Mismatch(f"{name} of a sequence alone differs from that in a batch")

    def rows_of(self, sequence: int) -> list[int]:
        first = starts(self.batch_sizes)  # (T + 1,)
        return [int(first[t]) + sequence for t, n in enumerate(self.batch_sizes) if n > sequence]

    def tolerance(self) -> float:
        """float64 and float32 as the contract demands.

        With 16 bits what is stored is rounded, by at most u of its size, and h_t (or dz_t) hands that on to the next step. A row of w_hh
        has length 1, so independent roundings reach a pre-activation as one of u, and no slope of a gate exceeds 1: the error grows by
        about u in each step, and the largest of thousands is twice the typical one.
        """
        if self.case.dtype in ("float64", "float32"):
            return {"float64": 1e-10, "float32": 1e-5}[self.case.dtype]
        return 2 * (1 + len(self.batch_sizes)) * roundoff(self.case.dtype)


class _Operation:
    """What the fused operations share: inputs by name, a pass on the device, and the same pass of the reference in float64."""

    def __init__(self, case: Case) -> None:
        self.case, self.options = case, dict(case.options)
        self.dtype, self.rng = dtype_of(case.dtype), np.random.default_rng(0)
        self.kernel, self.reference = load(case.kernel, case.language, "emulated"), load(case.kernel, "numpy")
        self.inputs = self.draw(*case.sizes)

    def draw(self, *sizes: Any) -> dict[str, Array]:
        raise NotImplementedError

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        """The results by name; arguments that are updated in place may be among them."""
        raise NotImplementedError

    def run(self) -> dict[str, Array]:
        inputs = {name: stand_in.asarray(array) for name, array in self.inputs.items()}
        found = {name: array.get() for name, array in self.passes(self.kernel, inputs).items() if array is not None}
        for name, array in self.inputs.items():
            if name not in found and inputs[name].get().tobytes() != array.tobytes():
                raise Mismatch(f"the kernel wrote to its argument {name}")
        return found

    def check(self, found: dict[str, Array]) -> None:
        wide = {name: array if array.dtype.kind in "iu" else array.astype(np.float64) for name, array in self.inputs.items()}
        for name, array in self.passes(self.reference, wide).items():
            if array is not None:
                compare(name, found[name], array, self.tolerance(found[name].dtype.name))

    def check_claims(self, found: dict[str, Array]) -> None:
        """What is promised beside the result: nothing more."""

    def tolerance(self, dtype: str) -> float:
        """Of a result of this dtype. Sums are taken in Wide, and a result of 16 bits is rounded once."""
        return {"float64": 1e-12, "float32": 1e-5}.get(dtype) or 1.01 * roundoff(dtype)


class _Embedding(_Operation):
    def draw(self, *sizes: int) -> dict[str, Array]:
        S, D, V = sizes
        return {"dy": self.normal(S, D), "ids": self.rng.integers(max(1, V // 2), size=S)}

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"dw": kernel.backward(inputs["dy"], inputs["ids"], self.case.sizes[2])}


class _CrossEntropy(_Operation):
    def draw(self, *sizes: int) -> dict[str, Array]:
        S, V = sizes
        dloss = self.normal(S)
        dloss[-1] = 0 if S > 1 else dloss[-1]
        return {"logits": self.normal(S, V), "targets": self.rng.integers(V, size=S), "dloss": dloss}

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        logits, targets, dloss = inputs.values()
        loss, lse = kernel.forward(logits, targets, **self.options)
        return {"loss": loss, "lse": lse, "dlogits": kernel.backward(logits, targets, lse, dloss, **self.options)}


class _Adam(_Operation):
    """Two steps, the second from the numbers that the first has stored."""

    def draw(self, *sizes: int) -> dict[str, Array]:
        (size,) = sizes
        arrays = {name: self.normal(size) for name in ("param", "grad", "m")}
        return {**arrays, "v": np.abs(self.normal(size))}

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "weight_decay": 0.2, "decoupled": False, **self.options}
        scale = options.pop("scale", 1.0)
        for t in (1, 2):
            on_device = kernel is self.kernel and self.options.get("on_device")
            options.pop("on_device", None)
            kernel.step(*inputs.values(), t=t, scale=stand_in.asarray(np.array(scale, self.dtype)) if on_device else scale, **options)
        return {name: array for name, array in inputs.items() if name != "grad"}

    def tolerance(self, dtype: str) -> float:
        """Two steps round twice; a relative error of v is halved by the root, and one of m is that of the step."""
        return {"float64": 1e-12, "float32": 1e-5}.get(dtype) or 4 * roundoff(dtype)


class _Dropout(_Operation):
    def draw(self, *sizes: int) -> dict[str, Array]:
        (size,) = sizes
        return {"x": self.normal(size)}

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"y": kernel.apply(inputs["x"][self.options.get("offset", 0) :], 0.4, 0x0123456789ABCDEF)}


class _LayerNorm(_Operation):
    def draw(self, *sizes: int) -> dict[str, Array]:
        S, D = sizes
        return {"x": self.normal(S, D), "dy": self.normal(S, D), "weight": self.normal(D), "bias": self.normal(D)}

    def passes(self, kernel: Any, inputs: dict[str, Array]) -> dict[str, Array]:
        x, dy, weight, bias = inputs.values()
        if self.options.get("plain"):
            weight = bias = None
        y, mean, r = kernel.forward(x, weight, bias, 1e-3)
        dx, dweight, dbias = kernel.backward(dy, x, weight, mean, r, not self.options.get("plain"))
        return {"y": y, "mean": mean, "r": r, "dx": dx, "dweight": dweight, "dbias": dbias}


_OPERATIONS: dict[str, Callable[[Case], _Operation]] = {
    "embedding": _Embedding,
    "cross_entropy": _CrossEntropy,
    "adam": _Adam,
    "dropout": _Dropout,
    "layer_norm": _LayerNorm,
}
