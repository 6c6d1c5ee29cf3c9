"""minirnn's ways to keep less for the backward pass, each as one training step; runs in a process of its own."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minirnn import nn, ops
from minirnn.autograd import Function, grad
from minirnn.bench.memory_case import PARAMETERS, Array, Between, Bytes, Case, Step, rises
from minirnn.bench.timing import turn
from minirnn.checkpointing import checkpoint
from minirnn.nn.module import Module
from minirnn.tensor import Tensor


class Inputs:
    """What a step starts from: the layer, x and dy."""

    def __init__(self, case: Case, **options: Any) -> None:
        drawn = case.draw()
        self.case = case
        self.x, self.dy = Tensor(drawn["x"], requires_grad=True), Tensor(drawn["dy"])
        self.lstm = nn.LSTM(case.D, case.H, rng=0, **options).to(case.dtype)
        self.lstm.load_state_dict({name: drawn[name] for name in PARAMETERS})
        self.parameters = [getattr(self.lstm, name) for name in PARAMETERS]

    def arrays(self) -> list[Array]:
        return [t.data for t in (self.x, self.dy, *self.parameters)]

    def gradients(self, outputs: Sequence[Tensor], dys: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(("x", *PARAMETERS), grad(outputs, [self.x, *self.parameters], dys), strict=True))


def store(inputs: Inputs, between: Between) -> dict[str, Tensor]:
    """Everything is kept, as the layer wants it."""
    output, _ = inputs.lstm(inputs.x)
    between([output])
    return inputs.gradients([output], [inputs.dy])


def checkpointed(inputs: Inputs, between: Between) -> dict[str, Tensor]:
    """Of each segment its first state is kept, and the segment runs once more when its gradients are due."""

    def run(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output, (h, c) = inputs.lstm(x, (h, c))
        return output, h, c

    case, outputs = inputs.case, []
    h = c = Tensor(np.zeros((1, case.N, case.H), case.dtype))
    for x in ops.split(inputs.x, case.sizes(case.segment), 0):
        output, h, c = checkpoint(run, x, h, c)
        outputs.append(output)
    del h, c, x
    between(outputs)
    return inputs.gradients(outputs, [inputs.dy[piece] for piece in case.pieces(case.segment)])


def truncated(inputs: Inputs, between: Between) -> dict[str, Tensor]:
    """Chunk after chunk, forward and backward; no gradient passes from one into the one before. dx is for whoever made x, and not kept."""
    sums: list[Tensor] = []
    state = None
    for piece in inputs.case.pieces(inputs.case.chunk):
        x = Tensor(inputs.x.data[piece], requires_grad=True)
        output, state = inputs.lstm(x, state)
        state = tuple(s.detach() for s in state)
        between([output])
        _, *found = grad([output], [x, *inputs.parameters], [inputs.dy[piece]])
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return dict(zip(PARAMETERS, sums, strict=True))


WAYS: dict[str, tuple[Callable[[Inputs, Between], dict[str, Tensor]], dict[str, Any]]] = {
    "store": (store, {}),
    "recompute-half": (store, {"recompute": 0.5}),
    "recompute": (store, {"recompute": True}),
    "checkpoint": (checkpointed, {}),
    "truncated": (truncated, {}),
    "numpy": (store, {"kernel": "numpy"}),  # what others are compared with
}


def make(case: Case, way: str) -> tuple[Inputs, Step]:
    run, options = WAYS[way]
    inputs = Inputs(case, **options)
    return inputs, partial(run, inputs)


def buffers(roots: Iterable[Any], but: Sequence[Array] = ()) -> Bytes:
    """Every array that is alive because of what `roots` depend on: outputs, what operations saved, what they were given. Not modules.

    An array that is part of another one keeps all of it. `but`: arrays that are alive anyway.
    """
    found = Bytes([id(_owner(array)) for array in but])
    stack, seen = list(roots), set()
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, Module):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            owner = _owner(thing)
            found.add(id(owner), owner.nbytes)
        elif isinstance(thing, Tensor):
            stack += (thing.data, thing.creator)
        elif isinstance(thing, dict):
            stack += thing.values()
        elif isinstance(thing, list | tuple | set):
            stack += thing
        elif isinstance(thing, Function):
            stack += thing.__dict__.values()
        elif getattr(thing, "__closure__", None):
            stack += [cell.cell_contents for cell in thing.__closure__]
    return found


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# What the parent asks for.


def keep(case: dict[str, Any], way: str) -> dict[str, int]:
    """Bytes between the passes: of the arrays that the graph holds ("kept"), and of all arrays made in the forward pass ("traced").

    The input, the output's gradient and the parameters, which the caller has anyway, are left out; the output is in. Where there are
    several forward passes, the most that is alive at one moment. The two differ where something is alive that the graph does not need.
    """
    make(Case(**{**case, "T": min(case["T"], 8)}), way)[1](lambda outputs: None)  # what is loaded once does not count
    inputs, step = make(Case(**case), way)
    kept, traced = [], []

    def count(outputs: Sequence[Tensor]) -> None:
        gc.collect()
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
        traced.append(sum(trace.size for trace in taken.traces))
        kept.append(buffers(outputs, inputs.arrays()).total())

    gc.collect()
    tracemalloc.start()
    try:
        step(count)
    finally:
        tracemalloc.stop()
    return {"kept": max(kept), "traced": max(traced)}


def peak(case: dict[str, Any], way: str) -> dict[str, int | None]:
    return rises(make(Case(**case), way)[1])


def gradients(case: dict[str, Any], way: str, file: str) -> None:
    """The gradients, as float64, into an .npz file."""
    _, step = make(Case(**case), way)
    np.savez(file, **{name: t.numpy().astype(np.float64) for name, t in step(lambda outputs: None).items()})


_prepared: dict[str, Step] = {}


def prepare(case: dict[str, Any], way: str) -> None:
    _prepared[way] = make(Case(**case), way)[1]


def seconds(way: str) -> float:
    """One turn of the way that was prepared."""
    return turn(lambda: _prepared[way](lambda outputs: None))
