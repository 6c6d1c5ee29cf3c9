"""Times of a layer on a GPU by CUDA events: after a warm-up, in rounds in which all contestants take turns."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minirnn.bench.gpu_cases import Case
from minirnn.bench.gpu_check import STEPS, Checked, check, check_cudnn
from minirnn.bench.gpu_layers import CuDNN, Ours, draw
from minirnn.kernels.cuda.devices import here
from minirnn.kernels.cuda.explain import blocks_of, plan_of
from minirnn.kernels.cuda.plan import form
from minirnn.kernels.cuda.predict import DIRECTIONS, Layer, Range

WARM_UP = 3
WHAT = ("forward", "both")  # both: forward and backward, all gradients


@dataclass(frozen=True)
class Timing:
    """One contestant on one case. Times are None where none were taken: not run (`why_not`), or emulated."""

    kernel: str
    form: str
    what: str
    difference: float | None  # from NumPy in float64, relative, on the first steps of the case
    median_ms: float | None = None
    least_ms: float | None = None
    most_ms: float | None = None
    percent_of_floor: float | None = None  # 100 would be a layer at the device's peak
    predicted_ms: tuple[float, float] | None = None  # what `minirnn explain` says; never measured
    why_not: str = ""


@dataclass(frozen=True)
class Contestant:
    kernel: str
    form: str
    checked: Checked


def compare(cell: str, case: Case, dtype: str, pairs: Sequence[tuple[str, str]], rounds: int, xp: Any, device: str) -> list[Timing]:
    """Every (kernel, form) of `pairs`, ("cudnn", "") among them, on one case: checked on its first steps, then timed.

    Raises RuntimeError, with the difference, where one is wrong. On the emulated device nothing is timed.
    """
    contestants = [Contestant(kernel, form_, _checked(cell, case, dtype, kernel, form_, xp, device)) for kernel, form_ in pairs]
    for c in contestants:
        if not c.checked.right:
            raise RuntimeError(f"{c.checked.fault}; not timed")
    able = [c for c in contestants if c.checked.difference is not None]
    times = {} if device == "emulated" else _times(cell, case, dtype, able, rounds, xp, device)
    floors = _floors(cell, case, dtype, xp)
    return [_timing(c, what, times.get((c.kernel, c.form, what)), floors, cell, case, dtype, xp) for c in contestants for what in WHAT]


def _checked(cell: str, case: Case, dtype: str, kernel: str, form_: str, xp: Any, device: str) -> Checked:
    if kernel == "cudnn":
        return check_cudnn(cell, case, dtype)
    return check(cell, kernel, form_, dtype, [case.N] * min(case.T, STEPS), case.D, case.H, xp, device)


def _times(
    cell: str, case: Case, dtype: str, able: Sequence[Contestant], rounds: int, xp: Any, device: str
) -> dict[tuple[str, str, str], list[float] | str]:
    """Milliseconds of every round, or why there are none."""
    arrays, batch_sizes = draw(cell, [case.N] * case.T, case.D, case.H, dtype), [case.N] * case.T
    calls: dict[tuple[str, str, str], tuple[Callable[[], Any], Callable[[Callable[[], Any]], float]]] = {}
    found: dict[tuple[str, str, str], list[float] | str] = {}
    there = {name: xp.asarray(array) for name, array in arrays.items()}  # shared by ours
    for c in able:
        layer: Any = (
            CuDNN(cell, arrays, case, dtype) if c.kernel == "cudnn" else Ours(cell, c.kernel, c.form, there, batch_sizes, xp, device)
        )
        clock = _torch_clock if c.kernel == "cudnn" else _clock(xp)
        for what, call in zip(WHAT, (layer.forward, layer.both), strict=True):
            calls[c.kernel, c.form, what] = call, clock
            found[c.kernel, c.form, what] = []
    for number in range(WARM_UP + rounds):
        for key, (call, clock) in calls.items():
            taken = found[key]
            if isinstance(taken, str):
                continue
            try:
                milliseconds = clock(call)
            except (MemoryError, RuntimeError) as error:  # CuPy's and PyTorch's ways to say that memory is full
                if "memory" not in str(error).lower():
                    raise
                found[key] = "out of memory"
                continue
            if number >= WARM_UP:
                taken.append(milliseconds)
    return found


def _clock(xp: Any) -> Callable[[Callable[[], Any]], float]:
    def clock(call: Callable[[], Any]) -> float:
        begin, end = xp.cuda.Event(), xp.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(xp.cuda.get_elapsed_time(begin, end))

    return clock


def _torch_clock(call: Callable[[], Any]) -> float:
    torch: Any = importlib.import_module("torch")
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _floors(cell: str, case: Case, dtype: str, xp: Any) -> dict[str, float]:
    """Milliseconds of the layer at the device's published peak; empty where no peak is published."""
    layer, chip = Layer(cell, *case, dtype), here(xp)
    try:
        forward, backward = (1e3 * layer.floor(direction, chip) for direction in DIRECTIONS)
    except ValueError:
        return {}
    return {"forward": forward, "both": forward + backward}


def _predicted(cell: str, case: Case, dtype: str, kernel: str, form_: str, what: str, xp: Any) -> tuple[float, float] | None:
    layer, chip, total = Layer(cell, *case, dtype), here(xp), Range(0.0, 0.0)
    try:
        with form(form_):
            for direction in DIRECTIONS[: 1 if what == "forward" else 2]:
                total += layer.predicted(direction, chip, blocks_of(plan_of(kernel, layer.step(direction), chip)))
    except ValueError:
        return None
    return 1e3 * total.least, 1e3 * total.most


def _timing(
    c: Contestant, what: str, taken: list[float] | str | None, floors: dict[str, float], cell: str, case: Case, dtype: str, xp: Any
) -> Timing:
    why_not = c.checked.why_not or (taken if isinstance(taken, str) else "")
    predicted = _predicted(cell, case, dtype, c.kernel, c.form, what, xp) if c.form and not c.checked.why_not else None
    if not taken or isinstance(taken, str):
        return Timing(c.kernel, c.form, what, c.checked.difference, predicted_ms=predicted, why_not=why_not)
    median = statistics.median(taken)
    percent = 100 * floors[what] / median if floors else None
    return Timing(c.kernel, c.form, what, c.checked.difference, median, min(taken), max(taken), percent, predicted)
