"""One layer of a recurrence, forward and backward, on every kernel, against each other and against the layer's matrix products.

    minirnn bench lstm [--cell lstm|gru|rnn] [--shape T,N,D,H ...] [--kernel NAME ...] [--dtype float32] [--rounds 5] [--json]

Before anything is timed, outputs and all gradients of each kernel must agree with the NumPy kernel's. The kernels take turns, so that
whatever else the machine does meets all of them; the median and the extremes of the rounds are shown. The floor is the time
that NumPy needs for the same matrix products with nothing between them: no implementation that leaves them to NumPy can be faster.
Other work on the machine, of which the load average tells, spoils all of these numbers, and those of multi-threaded BLAS most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from minirnn import nn
from minirnn.autograd import grad
from minirnn.errors import MinirnnError
from minirnn.kernels import kernels
from minirnn.kernels.costs import matmul_seconds
from minirnn.tensor import Tensor

Shape = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = ((20, 64, 256, 128), (50, 64, 256, 256), (100, 16, 128, 512))
BUSY = 0.5  # processes that run, on average over the last minute
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # relative to the largest element
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True)
class Result:
    """One kernel at one shape: the largest relative difference from the NumPy kernel, and milliseconds."""

    kernel: str
    difference: float
    median_ms: float
    least_ms: float
    most_ms: float
    times_floor: float


def measure(cell: str, shape: Shape, names: list[str], dtype: str, rounds: int) -> tuple[float, list[Result]]:
    """The floor in milliseconds, and a result for each kernel. Raises RuntimeError where a kernel's numbers are wrong."""
    layers = {name: _layer(cell, shape, name, dtype) for name in names}
    x = np.random.default_rng(1).standard_normal(shape[:3]).astype(dtype)  # (T, N, D)
    expected = _run(_layer(cell, shape, "numpy", dtype), x)
    differences = {}
    for name, layer in layers.items():
        differences[name] = _difference(_run(layer, x), expected)
        if not differences[name] <= TOLERANCE[dtype] * np.sqrt(shape[0]):  # the rounding of T steps adds up like a random walk
            raise RuntimeError(f"{cell} kernel {name} at {shape}: differs from numpy by {differences[name]:.2g}; not timed")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, layer in layers.items():
            times[name].append(1e3 * _seconds(layer, x))
    floor = 1e3 * matmul_seconds(*shape, GATES[cell], np.dtype(dtype))
    results = []
    for name, taken in times.items():
        median = statistics.median(taken)
        results.append(Result(name, differences[name], median, min(taken), max(taken), median / floor))
    return floor, results


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    able = [kernel.name for kernel in kernels(arguments.cell) if kernel.why_not(arguments.dtype, "cpu") is None]
    names = arguments.kernel or able
    for name in names:
        if name not in able:
            raise MinirnnError(f"the {arguments.cell} kernel {name!r} cannot run here; can run: {', '.join(able)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before our own work is part of it
    if load is not None and load > BUSY and not arguments.json:
        print(f"the load average is {load:.1f}: other work on this machine spoils the timings\n")
    collected = []
    for shape in arguments.shape or SHAPES:
        floor, results = measure(arguments.cell, shape, names, arguments.dtype, arguments.rounds)
        collected.append({"shape": dict(zip("TNDH", shape, strict=True)), "floor_ms": floor, "kernels": [asdict(r) for r in results]})
        if not arguments.json:
            _print(arguments.cell, shape, arguments.dtype, arguments.rounds, floor, results)
    if arguments.json:
        described = {"cell": arguments.cell, "dtype": arguments.dtype, "rounds": arguments.rounds, "load": load}
        print(json.dumps({**described, "results": collected}))
    return 0


def _print(cell: str, shape: Shape, dtype: str, rounds: int, floor: float, results: list[Result]) -> None:
    T, N, D, H = shape
    print(f"{cell}, forward and backward: T={T} steps, N={N} sequences, D={D} features, H={H} hidden units, {dtype}, median of {rounds}")
    print(f"  {'kernel':<12}{'ms':>9}{'least':>9}{'most':>9}{'x floor':>9}{'rows/s':>12}   largest difference from numpy")
    for r in results:
        speed = T * N / (1e-3 * r.median_ms)
        print(f"  {r.kernel:<12}{r.median_ms:9.2f}{r.least_ms:9.2f}{r.most_ms:9.2f}{r.times_floor:9.2f}{speed:12,.0f}   {r.difference:.1e}")
    print(f"  {'floor':<12}{floor:9.2f}   the matrix products alone\n", flush=True)


def _layer(cell: str, shape: Shape, kernel: str, dtype: str) -> Any:
    """The same weights for every kernel."""
    return CELLS[cell](shape[2], shape[3], kernel=kernel, rng=0).to(dtype)


def _run(layer: Any, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The output, and the gradients of its sum with respect to the input and all weights."""
    inputs = [Tensor(x, requires_grad=True), *layer.parameters()]
    output, _ = layer(inputs[0])
    return [output.numpy(), *(g.numpy() for g in grad(output.sum(), inputs))]


def _difference(found: list[np.ndarray[Any, Any]], expected: list[np.ndarray[Any, Any]]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))


def _seconds(layer: Any, x: np.ndarray[Any, Any]) -> float:
    began = perf_counter()
    _run(layer, x)
    return perf_counter() - began
