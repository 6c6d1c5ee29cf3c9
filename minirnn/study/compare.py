"""Where two implementations of a recurrence differ: by quantity and time step, in ulps, beside what each of them is off by itself.

    found = mr.study.compare("numpy", "my_kernel.py", (20, 16, 64, 64))    # T, N, D, H
    print(found)                            # a line for each quantity, and the first place that rounding does not explain
    found["dz"].apart.row.worst             # (T,) ulps between the two, the worst of every step
    found.draw("my_kernel.png")

An ulp, a unit in the last place, is the distance of neighbouring numbers of a dtype: 2^(e-p) for 2^e <= |x| < 2^(e+1), where p counts the
bits after the point (float64 52, float32 23, float16 10, bfloat16 7). Below the smallest normal number, and at 0, it is the smallest number
that there is. An ulp of what? Of the reference value, but a sum whose terms cancel is no more exact than its terms were: an element near 0
is off by many ulps of its own where nothing is wrong. So there are two scales, and both are always computed:

    row      ulps of the largest reference value in the row, all units of a sequence at a step, of each gate by itself (of dw_hh: of a gate)
    element  ulps of the reference value itself

The reference is the NumPy kernel on the same numbers in float64; of float64 arrays in long double, where the machine has a wider one.
What one step gets wrong the steps after it inherit, and the backward pass reads the tape of its own forward pass: look at the first place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from minirnn.bench.cases import GATES
from minirnn.device import Array
from minirnn.kernels.packed import starts
from minirnn.study.kernel_runs import Batch, batch_of, check_cell, quantities, run, runner

Scale = Literal["row", "element"]
GATE_NAMES = {"lstm": "ifgo", "gru": "run"}
GATE_ROUNDINGS = 16  # of the activations and what combines them, in one step of one unit, forward or backward
LARGEST = 4  # of thousands of draws, in standard deviations
BITS = {"float64": (52, -1074), "float32": (23, -149), "float16": (10, -24), "bfloat16": (7, -133)}  # p, exponent of the smallest number


def ulp(x: Array, dtype: Any) -> Array:
    """The distance of neighbouring numbers of a dtype at x, a wider array of any shape; at 0 the smallest number."""
    bits, smallest = BITS[np.dtype(dtype).name]
    _, exponent = np.frexp(np.abs(x))  # |x| = m 2^exponent, 1/2 <= m < 1
    return np.ldexp(1.0, np.where(x == 0, smallest, np.maximum(exponent - 1 - bits, smallest)))


class Spread(NamedTuple):
    """The worst and the median of every step, in ulps; of a quantity without time steps (1,)."""

    worst: Array  # (T,)
    median: Array  # (T,)


class Ulps(NamedTuple):
    """On both scales."""

    row: Spread
    element: Spread


class Element(NamedTuple):
    """One number of a quantity, what each kernel has there, and how far that is off, in ulps of the scale that was chosen."""

    quantity: str
    step: int | None  # None: of a quantity without time steps
    sequence: int | None  # in the order of the batch, the longest first; None: of a weight's gradient
    gate: str | None
    unit: int
    column: int | None  # of dw_hh: the unit whose h_{t-1} it multiplies
    a: float
    b: float
    reference: float
    apart: float
    off_a: float
    off_b: float

    @property
    def place(self) -> str:
        """ "dz at time step 3, sequence 1, gate f, unit 5" """
        parts = (("time step", self.step), ("sequence", self.sequence), ("gate", self.gate), ("unit", self.unit), ("column", self.column))
        return f"{self.quantity} at {', '.join(f'{name} {value}' for name, value in parts if value is not None)}"


@dataclass(frozen=True)
class Quantity:
    """One quantity of the recurrence: the two kernels apart, and each off the reference.

    name       as in `minirnn.kernels.contract`; dh_t, dc_t are the whole gradients of the states, where both kernels have taps
    timed      whether it has time steps; otherwise the arrays below have one element
    backwards  whether it is computed from the last time step to the first
    threshold  (T,) ulps that rounding explains, or those asked for
    worst      the worst element of all
    first      the worst element of the first step, in the order of the pass, that is above the threshold; None if none is
    """

    name: str
    timed: bool
    backwards: bool
    apart: Ulps
    off_a: Ulps
    off_b: Ulps
    threshold: Array
    worst: Element
    first: Element | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: `found["dz"]` is a quantity, `found.quantities` has all in the order in which they are computed.

    scale      "row" or "element": in which the thresholds, places, table and picture are
    reference  the dtype of the reference
    first      the first element, in the order of computation, that is above its threshold; None if none is
    """

    a: str
    b: str
    cell: str
    dtype: str
    sizes: str  # "T=20 N=16 H=64"
    scale: Scale
    reference: str
    quantities: dict[str, Quantity]
    first: Element | None

    def __getitem__(self, name: str) -> Quantity:
        try:
            return self.quantities[name]
        except KeyError:
            raise KeyError(f"there is no quantity {name!r}; there are {', '.join(self.quantities)}") from None

    def __str__(self) -> str:
        from minirnn.bench.report import table

        of = "the largest number of its row" if self.scale == "row" else "the number itself"
        head = ["", "median", "worst", f"{self.a} off", f"{self.b} off", "allowed", "first above"]
        lines = table(head, [self._row(q) for q in self.quantities.values()]).splitlines()
        places = ["worst at", *(q.worst.place.partition(" at ")[2] if q.worst.apart else "-" for q in self.quantities.values())]
        return "\n".join(
            [
                f"{self.cell}, {self.sizes}, {self.dtype}: {self.a} and {self.b} apart, and off numpy in {self.reference}, in ulps of {of}",
                "",
                *(f"{line}  {place}" for line, place in zip(lines, places, strict=True)),
                "",
                self.verdict,
            ]
        )

    def _row(self, q: Quantity) -> list[str]:
        apart, off_a, off_b = (getattr(ulps, self.scale) for ulps in (q.apart, q.off_a, q.off_b))
        numbers = [np.median(apart.median), apart.worst.max(), off_a.worst.max(), off_b.worst.max()]
        allowed = _shown(q.threshold.max()) if np.isfinite(q.threshold).all() else "any"
        first = "-" if q.first is None else "yes" if q.first.step is None else f"step {q.first.step}"
        return [q.name, *(_shown(float(number)) for number in numbers), allowed, first]

    @property
    def verdict(self) -> str:
        """One or two sentences: the first place that is above its threshold, and whose error it is."""
        if self.first is None:
            return "No difference is larger than allowed." if np.isfinite(self.quantities["h"].threshold).all() else "Nothing was judged."
        at = self.first
        small, large = sorted([(at.off_a, self.a), (at.off_b, self.b)])
        whose = f"It is {large[1]} that is off" if large[0] > 4 * max(small[0], 1) else "Both are off"
        digits = 2 + int(0.30103 * (BITS[self.dtype][0] + 1))  # which tell any two numbers apart
        values = f"{self.a} has {at.a:.{digits}g}, {self.b} {at.b:.{digits}g}, the reference {at.reference:.{digits}g}"
        return f"First {at.place}: {values}.\n{whose}: {self.a} by {_shown(at.off_a)} ulps, {self.b} by {_shown(at.off_b)}."

    def as_dict(self) -> dict[str, Any]:
        """Everything as dicts, lists and plain numbers, for JSON."""
        plain: dict[str, Any] = _plain({field.name: getattr(self, field.name) for field in fields(self)})
        return {**plain, "verdict": self.verdict}

    def draw(self, path: str | os.PathLike[str]) -> Path:
        """A PNG picture: of each quantity the worst of every step, of the two apart and of each off the reference. Needs Matplotlib."""
        from minirnn.training.pictures import figure, save

        timed = [q for q in self.quantities.values() if q.timed]
        rest = [q for q in self.quantities.values() if not q.timed]
        rows = (len(timed) + 2) // 2
        picture = figure(10, 2.4 * rows + 0.6)
        axes = list(picture.subplots(rows, 2, squeeze=False).flat)
        for axis, q in zip(axes, timed, strict=False):
            steps = np.arange(len(q.threshold))
            if np.isfinite(q.threshold).all():
                axis.step(steps, q.threshold, where="mid", color="0.6", linestyle=":", label="allowed")
            for ulps, color, label in self._lines(q):
                worst = getattr(ulps, self.scale).worst
                axis.plot(steps, np.where(np.isfinite(worst), worst, np.nan), "o-", markersize=2.5, linewidth=1.2, color=color, label=label)
            axis.set(title=q.name, xlabel="time step" + (" (computed from right to left)" if q.backwards else ""))
        for place, (color, label) in enumerate((c, label) for _, c, label in self._lines(rest[0])):
            values = [getattr(list(self._lines(q))[place][0], self.scale).worst[0] for q in rest]
            axes[len(timed)].bar(np.arange(len(rest)) + 0.25 * (place - 1), values, 0.25, color=color, label=label)
        axes[len(timed)].set_xticks(range(len(rest)), [q.name for q in rest])
        axes[len(timed)].set_title("without time steps")
        for axis in axes[len(timed) + 1 :]:
            axis.set_axis_off()
        for axis in axes[: len(timed) + 1]:
            axis.set_yscale("symlog", linthresh=1)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(f"ulps ({self.scale})")
        axes[0].legend(fontsize="small")
        picture.suptitle(f"{self.cell}, {self.sizes}, {self.dtype}: the worst of each step")
        return save(picture, Path(path))

    def _lines(self, q: Quantity) -> Iterator[tuple[Ulps, str, str]]:
        yield q.off_a, "tab:blue", f"{self.a} off the reference"
        yield q.off_b, "tab:orange", f"{self.b} off the reference"
        yield q.apart, "tab:red", "apart"


def compare(
    kernel_a: Any,
    kernel_b: Any,
    batch: Any,
    *,
    cell: str = "lstm",
    dtype: str | None = None,
    seed: int = 0,
    nonlinearity: str = "tanh",
    scale: Scale = "row",
    threshold: float | None = None,
    device: str = "cuda",
) -> Comparison:
    """Run two kernels of a recurrence on one batch, forward and backward, and compare all that they return.

    Args:
        kernel_a, kernel_b: each a name ("numpy", "numba", "cupy", "numba-cuda", "unrolled"), the path of a Python file with `forward` and
            `backward` (as `minirnn bench lstm --kernel` takes it), or a module that meets `minirnn.kernels.contract`.
        batch: sizes (T, N, D, H), or a dict of them, or dict(lengths=[7, 3, 3], D=..., H=...), for which a batch is drawn, its sequences
            sorted, the longest first; or a `Batch`, or a dict with its fields, packed: z, w_hh, batch_sizes and what else there is.
        cell: "lstm", "gru" or "rnn".
        dtype: of the arrays; None: as they are given, and float32 where they are drawn.
        seed: of what is drawn.
        nonlinearity: of an RNN, "tanh" or "relu".
        scale: "row" or "element" (see above), in which thresholds, places, table and picture are; the result has both.
        threshold: in ulps; None: on the scale "row" what rounding explains, on the scale "element" any difference. A number of step t has
            (t + 1) (H + 16) roundings behind it, backward those of the forward pass and (T - t) (GH + 16) more, a sum over all rows S
            more. Each is half an ulp at most, of either sign, so they add up like a random walk, and the largest of thousands is 4 times
            as large as is usual. A row of up to three units may lose its digits to cancellation and exceed this: both kernels are off then.
        device: where "cupy" and "numba-cuda" run, "cuda" or "emulated".

    Raises MinirnnError for a kernel that is not there, cannot run or returns what the contract does not allow, ValueError for a batch that
    does not fit together.
    """
    check_cell(cell, nonlinearity)
    if scale not in ("row", "element"):
        raise ValueError(f'compare: scale must be "row" or "element", got {scale!r}')
    arrays, batch_sizes = batch_of(batch, cell, dtype, seed)
    kind = arrays["z"].dtype
    wide: Any = np.dtype(np.longdouble if kind == np.float64 else np.float64)
    kernels = [runner(kernel, cell, kind, device) for kernel in (kernel_a, kernel_b)]
    results = [run(kernel, cell, arrays, batch_sizes, nonlinearity) for kernel in kernels]
    exact = run(runner("numpy", cell, wide, "cpu"), cell, {k: v.astype(wide) for k, v in arrays.items()}, batch_sizes, nonlinearity)
    measured = _Measured(cell, kind, batch_sizes, scale, threshold)
    found = {
        name: measured.quantity(name, results[0][name], results[1][name], right)
        for name, right in exact.items()
        if all(name in result for result in results)
    }
    name_a, name_b = (kernel.name for kernel in kernels)
    if name_a == name_b:
        name_a, name_b = f"{name_a} (a)", f"{name_b} (b)"
    lengths = "" if (batch_sizes == batch_sizes[0]).all() else f" S={batch_sizes.sum()}"
    sizes = f"T={len(batch_sizes)} N={batch_sizes[0]} H={arrays['w_hh'].shape[1]}{lengths}"
    reference = "long double" if np.finfo(wide).nmant > 52 else "float64"
    return Comparison(name_a, name_b, cell, kind.name, sizes, scale, reference, found, _first(found))


class _Measured:
    """Quantities of one batch, measured."""

    def __init__(self, cell: str, dtype: np.dtype[Any], batch_sizes: Array, scale: Scale, threshold: float | None) -> None:
        self.cell, self.dtype, self.batch_sizes, self.scale, self.threshold = cell, dtype, batch_sizes, scale, threshold
        self.first = starts(batch_sizes)  # (T + 1,)

    def quantity(self, name: str, a: Array, b: Array, right: Array) -> Quantity:
        shape, backwards = quantities(self.cell)[name]
        timed = shape[0] == "S"
        a, b, right = (np.atleast_2d(array).astype(right.dtype) for array in (a, b, right))
        scales = {"row": ulp(self.largest(right, shape), self.dtype), "element": ulp(right, self.dtype)}
        between = [_difference(a, b), _difference(a, right), _difference(b, right)]
        first = self.first if timed else np.array([0, len(right)])
        apart, off_a, off_b = (Ulps(*(_spread(d / scales[scale], first) for scale in ("row", "element"))) for d in between)
        ulps = [d / scales[self.scale] for d in between]
        allowed = self.allowed(shape, backwards, right.shape[1])

        def element(step: int) -> Element:
            rows = slice(first[step], first[step + 1])
            row, column = np.unravel_index(int(ulps[0][rows].argmax()), ulps[0][rows].shape)
            index = int(first[step] + row), int(column)
            return self.element(name, shape, step if timed else None, index, int(first[step]), [a, b, right, *ulps])

        worst = getattr(apart, self.scale).worst
        above = np.flatnonzero(~(worst <= allowed))
        begins = None if not len(above) else element(int(above[-1 if backwards else 0]))
        return Quantity(name, timed, backwards, apart, off_a, off_b, allowed, element(int(worst.argmax())), begins)

    def largest(self, right: Array, shape: str) -> Array:
        """Of each row, of each gate by itself, at the place of every element; of dw_hh that of the gate's (H, H)."""
        finite, G = np.where(np.isfinite(right), np.abs(right), 0), GATES[self.cell]
        parts = finite.reshape(G, -1) if shape == "GH" else finite.reshape(-1, right.shape[1] // (G if shape == "SG" else 1))
        return np.broadcast_to(parts.max(axis=1, keepdims=True), parts.shape).reshape(right.shape)

    def allowed(self, shape: str, backwards: bool, width: int) -> Array:
        """(T,) ulps, or (1,)."""
        T, S = len(self.batch_sizes), int(self.batch_sizes.sum())
        H = width if shape[-1] == "H" else width // GATES[self.cell]
        GH = GATES[self.cell] * H
        t = np.arange(T) if shape[0] == "S" else np.array([-1 if backwards else T - 1])
        if self.threshold is not None:
            return np.full(len(t), float(self.threshold))
        if self.scale == "element":
            return np.full(len(t), np.inf)
        forward = (T if backwards else t + 1) * (H + GATE_ROUNDINGS)
        roundings = forward + (np.minimum(T - t, T) * (GH + GATE_ROUNDINGS) if backwards else 0) + (S if shape in ("GH", "H") else 0)
        return LARGEST * np.sqrt(roundings) / 2

    def element(self, name: str, shape: str, step: int | None, index: tuple[int, int], start: int, arrays: list[Array]) -> Element:
        row, column = index
        H = arrays[0].shape[1] // (GATES[self.cell] if shape == "SG" else 1)
        gated = column if shape == "SG" else row if shape == "GH" else None  # which of the G H gates of all units
        gate = None if gated is None or self.cell not in GATE_NAMES else GATE_NAMES[self.cell][gated // H]
        unit = column if gated is None else gated % H
        sequence = None if shape in ("GH", "H") else row - start
        return Element(name, step, sequence, gate, unit, column if shape == "GH" else None, *(float(array[index]) for array in arrays))


def _plain(value: Any) -> Any:
    if isinstance(value, Quantity):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _difference(x: Array, y: Array) -> Array:
    """|x - y|, 0 where both are the same infinity or no number, infinite where one of them is."""
    with np.errstate(invalid="ignore"):
        d = np.abs(x - y)
    d[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
    d[np.isnan(d)] = np.inf
    return d


def _spread(ulps: Array, first: Array) -> Spread:
    steps = [ulps[start:end] for start, end in pairwise(first)]
    return Spread(np.array([step.max() for step in steps], float), np.array([np.median(step) for step in steps], float))


def _first(found: dict[str, Quantity]) -> Element | None:
    """Of what is above its threshold, what is computed first: all steps forward, what the last states are, and the same backward."""
    order = {name: place for place, name in enumerate(found)}
    above = [(q, q.first) for q in found.values() if q.first is not None]

    def when(one: tuple[Quantity, Element]) -> tuple[Any, ...]:
        q, element = one
        step = 0 if element.step is None else -element.step if q.backwards else element.step
        return q.backwards, not q.timed, step, order[q.name]

    return min(above, key=when)[1] if above else None


def _shown(number: float) -> str:
    from minirnn.bench.report import significant

    return f"{number:.1e}" if number >= 1e6 else significant(number, 2)


__all__ = ["Batch", "Comparison", "Element", "Quantity", "Spread", "Ulps", "compare", "ulp"]
