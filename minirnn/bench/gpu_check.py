"""Are the recurrent kernels right on this device? Every kernel and form, dtype and awkward shape, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minirnn.bench.gpu_cases import Case
from minirnn.bench.gpu_layers import Arrays, CuDNN, Ours, draw, reference, to_numpy
from minirnn.kernels import kernels
from minirnn.kernels.cuda.plan import FORMS

BITS = {"float16": 11, "bfloat16": 8}  # of the significand
STEPS = 3  # of a shape that is timed, before it is timed


class Checked(NamedTuple):
    """One kernel on one shape: the largest difference, as `difference` has it, and what is allowed."""

    cell: str
    kernel: str
    form: str
    dtype: str
    shape: str
    difference: float | None
    allowed: float
    where: str  # which output
    why_not: str = ""  # why it was not run; or what it raised, and then the difference is infinite

    @property
    def right(self) -> bool:
        return self.difference is None or self.difference <= self.allowed

    @property
    def fault(self) -> str:
        """A sentence for what is wrong."""
        name = " ".join(part for part in (self.cell, "kernel", self.kernel, self.form, self.dtype) if part)
        if self.why_not:
            return f"{name} at {self.shape}: {self.why_not}"
        off = f"{self.where} differs by {self.difference:.2g} from NumPy in float64"
        return f"{name} at {self.shape}: {off}, {self.allowed:.2g} is allowed"


def allowed(dtype: str, T: int) -> float:
    """float64 and float32 as everywhere in minirnn. In 16 bits every number that leaves a step is rounded to half a unit in its last place,
    2^-bits: gates, h (or dz), and z or the product; three roundings a step and those of the input product and of the gradients' own,
    each of which no factor of the recurrence makes larger. In the worst case they add up: 4 (T + 1) 2^-bits."""
    if dtype in BITS:
        return float(4 * (T + 1) * 2.0 ** -BITS[dtype])
    return {"float64": 1e-10, "float32": 1e-5}[dtype]


def difference(found: Arrays, expected: Arrays) -> tuple[float, str]:
    """The largest, and in which output: relative to the largest number expected there, or to 1. NaN and infinity count as infinite.

    To 1, because what is rounded are gates, states and gradients around 1, and a result that is the small difference of such numbers,
    as 1 - h^2 can be where N = H = 1, has their rounding.
    """
    worst, where = 0.0, "h"
    for name, exact in expected.items():
        actual = to_numpy(found[name])
        if actual.shape != exact.shape:
            return np.inf, f"{name}, of shape {actual.shape} and not {exact.shape}"
        scale = max(float(np.abs(exact).max(initial=0.0)), 1.0)
        off = float(np.abs(actual - exact).max(initial=0.0)) / scale
        if not off <= worst:
            worst, where = (off if np.isfinite(off) else np.inf), name
    return worst, where


def contestants(cells: Sequence[str], names: Sequence[str] | None, dtypes: Sequence[str], device: str) -> Iterator[tuple[str, str, str]]:
    """Every cell, GPU kernel and dtype that can run on the device."""
    for cell in cells:
        for kernel in kernels(cell):
            if kernel.module is not None and (names is None or kernel.name in names):
                yield from ((cell, kernel.name, dtype) for dtype in dtypes if kernel.why_not(dtype, device) is None)


def check(
    cell: str, kernel: str, form: str, dtype: str, batch_sizes: Sequence[int], D: int, H: int, xp: Any, device: str, seed: int = 0
) -> Checked:
    """One kernel in one form on one shape."""
    T, ragged = len(batch_sizes), len(set(batch_sizes)) > 1
    shape = f"T={T} N={batch_sizes[0]} D={D} H={H}" + (" ragged" if ragged else "")
    arrays = draw(cell, batch_sizes, D, H, dtype, seed)
    try:
        found = Ours(cell, kernel, form, arrays, batch_sizes, xp, device).both()
        xp.cuda.Device().synchronize()  # a kernel that fails is reported by whoever waits for it
    except (
        Exception
    ) as error:  # whatever a kernel, a launch or an emulator can find: this kernel is wrong, and the others want to be checked
        if form == "persistent" and "the persistent form cannot run" in str(error):
            return Checked(cell, kernel, form, dtype, shape, None, allowed(dtype, T), "", str(error))
        raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Checked(cell, kernel, form, dtype, shape, np.inf, allowed(dtype, T), "", raised)
    return Checked(cell, kernel, form, dtype, shape, *_judge(found, cell, arrays, batch_sizes, dtype))


def check_all(
    cells: Sequence[str], names: Sequence[str] | None, dtypes: Sequence[str], shapes: Sequence[Any], xp: Any, device: str
) -> Iterator[Checked]:
    """Everything, shape by shape, so that a wrong kernel is seen early."""
    for seed, (batch_sizes, H) in enumerate(shapes):
        for cell, kernel, dtype in contestants(cells, names, dtypes, device):
            for form in FORMS:
                yield check(cell, kernel, form, dtype, batch_sizes, 5, H, xp, device, seed)


def check_cudnn(cell: str, case: Case, dtype: str) -> Checked:
    """That PyTorch computes the same layer, or its time means nothing; where it cannot or does not, it is not run."""
    short = case._replace(T=min(case.T, STEPS))
    batch_sizes = [short.N] * short.T
    arrays = draw(cell, batch_sizes, short.D, short.H, dtype)
    try:
        found = CuDNN(cell, arrays, short, dtype).both()
    except RuntimeError as error:
        return Checked(cell, "cudnn", "", dtype, str(short), None, allowed(dtype, short.T), "", " ".join(str(error).split()))
    checked = Checked(cell, "cudnn", "", dtype, str(short), *_judge(found, cell, arrays, batch_sizes, dtype))
    return checked if checked.right else checked._replace(difference=None, why_not=checked.fault)


def _judge(found: Arrays, cell: str, arrays: Arrays, batch_sizes: Sequence[int], dtype: str) -> tuple[float, float, str]:
    off, where = difference(found, reference(cell, arrays, batch_sizes))
    return off, allowed(dtype, len(batch_sizes)), where
