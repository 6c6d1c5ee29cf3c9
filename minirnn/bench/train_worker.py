"""What the process of one library does for `minirnn bench train`: `prepare`, `trace` and `check`, then `start`, and turns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from minirnn.bench import timing, train_cases
from minirnn.bench.peak import Peak, resident
from minirnn.bench.train_sides import Ours, Side, Theirs
from minirnn.device import Array
from minirnn.training.memory import keep_freed

PROFILED = 2  # steps: PyTorch's profiler takes milliseconds to sort out each one of its own
SHOWN = 16  # rows of its table


class _State:
    """What stays between calls."""

    kind: type[Ours] | type[Theirs]
    case: train_cases.Case
    first: dict[str, Array]  # the weights before the first update
    dtype: str
    side: Side


def prepare(
    library: str, name: str, data_dir: str | None = None, drawn: bool = False, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Makes the case, and says what it is. `library` is minirnn or torch."""
    keep_freed()
    if library == "torch":
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    case = train_cases.build(name, data_dir, drawn=drawn, settings=settings)
    _State.kind, _State.case, _State.first = Theirs if library == "torch" else Ours, case, case.model.state_dict()
    _State.dtype = case.dtype
    return {
        "data": case.data,
        "parameters": case.model.num_parameters(),
        "dtype": case.dtype,
        "examples": case.examples,
        "sizes": [int(size) for size in case.sizes],
        "unit": case.unit,
    }


def trace(dtype: str, path: str) -> list[float]:
    """The losses of the first updates; their gradients go to the file, as `number/parameter`."""
    found = _State.kind(_State.case, _State.first, dtype).trace()
    arrays = {f"{k}/{name}": g for k, gradients in enumerate(found.gradients) for name, g in gradients.items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return found.losses


def start() -> None:
    """From here on the model is trained, from its first weights."""
    _State.side = _State.kind(_State.case, _State.first, _State.dtype)


def turn() -> float:
    """Seconds per step, over a pass of all batches."""
    return timing.turn(_pass) / len(_State.case.batches)


def memory() -> int | None:
    """Bytes that are resident at most during a pass, libraries and all; call it after another pass."""
    peak = Peak()
    _pass()
    return None if peak.rise() is None else resident("VmHWM")


def profile() -> str:
    """Where the time of the first steps goes, by the library's own profiler: milliseconds of all of them."""
    if _State.kind is Ours:
        from minirnn.diagnostics import profile as watched

        with watched() as found:
            _pass(PROFILED)
        return str(found)
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    with recorded(activities=[ProfilerActivity.CPU]) as events:
        _pass(PROFILED)
    rows = sorted(events.key_averages(), key=lambda event: -event.self_cpu_time_total)[:SHOWN]
    lines = [f"{event.key[:48]:48} {event.count:7} {event.self_cpu_time_total / 1e3:11.2f}" for event in rows]
    return "\n".join([f"{'operation':48} {'calls':>7} {'self ms':>11}", *lines])


def _pass(steps: int | None = None) -> None:
    """A step with each batch, or with the first of them."""
    for k in range(len(_State.case.batches))[:steps]:
        _State.side.step(k)
