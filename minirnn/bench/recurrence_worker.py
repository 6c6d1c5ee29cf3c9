"""The other side of the benchmark of recurrent layers: one library in its own process makes, validates, times and measures layers.

`minirnn.bench.recurrence` calls these functions through a `minirnn.bench.worker.Worker`; `library` is the name of a module of
`minirnn.bench.libraries`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirnn.bench import validation
from minirnn.bench.cases import Arrays, Case, draw
from minirnn.bench.peak import Peak, release
from minirnn.bench.timing import turn
from minirnn.bench.user_kernel import check, load

STEPS = 5  # of the shape on which first and last states take part
REPEATS = 2  # calls whose memory is measured: the second one meets what the first one leaves
SOME = 8  # steps of the shorter of two runs whose allocations are compared

_layers: dict[str, Any] = {}


def use(library: str, cell: str, dtype: str, kernel_files: Sequence[str]) -> list[dict[str, Any]]:
    """Import the library and add kernels of the user's; for each of these its name and what is wrong with it."""
    _library(library)
    added = []
    for path in kernel_files:
        name, module = load(path, cell)
        added.append({"name": name, "path": path, "faults": check(module, cell, dtype)})
    return added


def prepare(library: str, name: str, case: dict[str, Any]) -> None:
    """Have a layer ready, under its name."""
    it = Case(**case)
    _layers[name] = _library(library).make(name, it, draw(it))


def validate(library: str, name: str, case: dict[str, Any], expected: str, expected_states: str | None) -> list[dict[str, Any]]:
    """Differences of every quantity: of the layer that will be timed, from those in the file `expected`; and, on few steps, with first
    states and gradients of the last ones, from those in `expected_states`."""
    it = Case(**case)
    found = _layers[name].results(states=False)
    differences = validation.compare(it, found, _read(expected))
    if not it.stepwise:
        differences.append(_alone(it, _layers[name], found["output"]))
    if expected_states is not None:
        few = it.few_steps(STEPS)
        layer = _library(library).make(name, few, draw(few))
        for d in validation.compare(few, layer.results(states=True), _read(expected_states)):
            differences.append(d._replace(quantity=f"with a first state and {few.T} steps, {d.quantity}"))
    return validation.as_json(differences)


def time(name: str, pass_: str) -> float:
    """One turn: seconds per call."""
    return turn(_pass(_layers[name], pass_))


def drop() -> None:
    """Forget all layers."""
    _layers.clear()


def resources(library: str, name: str, case: dict[str, Any], pass_: str) -> dict[str, int | float | None]:
    """Peak memory in bytes, beyond weights and input, and allocations per time step. In a fresh process, please.

    The layer runs once before, and its memory is given back: code that is loaded in a first call, and what a library keeps for good, do
    not count.
    """
    it = Case(**case)
    its = _library(library)
    _pass(its.make(name, it, draw(it)), pass_)()
    release()
    run = _pass(its.make(name, it, draw(it)), pass_)
    peak = Peak()
    for _ in range(REPEATS):
        run()
    rise = peak.rise()
    counts = []
    for steps in (SOME, 2 * SOME):
        longer = Case(**{**case, "T": steps})
        run = _pass(its.make(name, longer, draw(longer)), pass_)
        run()
        counts.append(its.count_allocations(run))
    few, many = counts
    return {"peak_bytes": rise, "allocations_per_step": None if few is None or many is None else (many - few) / SOME}


def _library(name: str) -> Any:
    return importlib.import_module(f"minirnn.bench.libraries.{name}")


def _pass(layer: Any, pass_: str) -> Callable[[], Any]:
    run: Callable[[], Any] = {"forward": layer.forward, "both": layer.both}[pass_]
    return run


def _alone(case: Case, layer: Any, output: Any) -> validation.Difference:
    """The pass that keeps nothing for gradients, against the one that does, which has been compared already."""
    found = layer.output_alone()
    axes = ("time step", "sequence", "unit")
    return validation.difference("output without gradients", found, np.asarray(output, np.float64), validation.allowed(case), axes)


def _read(path: str) -> Arrays:
    with np.load(path) as stored:
        return dict(stored)
