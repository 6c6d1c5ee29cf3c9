"""Gradient checkpointing: store the inputs of a computation only, and compute it again in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from minirnn.autograd import Function, enable_grad, grad, is_recording, no_grad
from minirnn.device import Array, to_device
from minirnn.diagnostics import Direction, Monitor, Results, monitored
from minirnn.recorder import Call, recorder
from minirnn.tensor import Tensor


def checkpoint(f: Callable[..., Any], *inputs: Any, generators: Sequence[np.random.Generator] = ()) -> Any:
    """`f(*inputs)`, storing only `inputs`: what f computes on the way is computed again in the backward pass.

    f returns a Tensor or a sequence of Tensors; tensors that it closes over, parameters above all, get their gradients too. `inputs` may
    be anything. If f draws random numbers, name its `generators`, so that the second run draws the same ones (those of a Module are found
    by themselves); RuntimeError in the backward pass where the second run gives something else. To find that out, the host waits for a
    device once in each backward pass.
    """
    if not is_recording():
        return f(*inputs)
    generators = [*generators, *(f.generators() if hasattr(f, "generators") else ())]
    states = [g.bit_generator.state for g in generators]
    collector = _Collector()
    by = recorder()
    with no_grad(), monitored(collector), by.listening() if by is not None else nullcontext() as calls:
        result = f(*[x.detach() if isinstance(x, Tensor) else x for x in inputs])
    single = isinstance(result, Tensor)
    arrays = tuple(t.data for t in ([result] if single else result))
    positions = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    operands = [*(inputs[k] for k in positions), *collector.closed_over.values()]
    if not operands:
        return result
    options = {"f": f, "arguments": inputs, "positions": positions, "generators": generators, "states": states, "calls": calls}
    outputs = _Checkpoint.apply_all(*operands, computed=arrays, **options)
    return outputs[0] if single else outputs


class _Collector(Monitor):
    """Finds the tensors with gradients that a function did not get as arguments."""

    def __init__(self) -> None:
        self.closed_over: dict[int, Tensor] = {}

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        self.closed_over.update((id(t), t) for t in function.inputs if t.requires_grad)
        return compute()


class _Checkpoint(Function):
    """y = f(x), keeping only x        dx: f again, this time recorded, and back through it

    Its inputs are the arguments of f at `positions`, then the tensors that f closes over.
    """

    mixes = True
    composite = True
    f: Callable[..., Any]
    arguments: Sequence[Any]
    positions: Sequence[int]
    generators: Sequence[np.random.Generator]
    states: Sequence[Any]
    calls: Sequence[Call] | None  # of recurrent layers that somebody looks at
    computed: tuple[Array, ...]

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        computed, self.computed = self.computed, ()
        self.prints = _fingerprints(computed)
        return computed

    def backward(self, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        create = is_recording()
        arguments = list(self.arguments)
        by = recorder()
        with enable_grad(), _rewound(self.generators, self.states), by.again(self.calls or ()) if by is not None else nullcontext():
            for k, t in zip(self.positions, self.inputs[: len(self.positions)], strict=True):
                arguments[k] = t[...]  # a place of its own on the tape, at which the gradient stops
            result = self.f(*arguments)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        if not all(map(_alike, _fingerprints([y.data for y in outputs]), self.prints)):
            raise RuntimeError(
                "checkpoint: f gave another result in the backward pass than in the forward pass; if it draws random numbers, pass the "
                "generators it draws from as generators=[...]"
            )
        asked = [(y, dy) for y, dy in zip(outputs, grads, strict=True) if dy is not None and y.requires_grad]
        wanted = [arguments[k] for k in self.positions] + list(self.inputs[len(self.positions) :])
        ys, dys = [y for y, _ in asked], [dy for _, dy in asked]
        return grad(ys, wanted, dys, create_graph=create, allow_unused=True, independent=True)

    def flops(self) -> int:
        return 0


def _fingerprints(arrays: Sequence[Array]) -> list[Any]:
    """Up to 64 elements of each array, copied, by which another draw of random numbers is noticed. An odd stride meets all columns."""
    return [a.reshape(-1)[:: -(-a.size // 64) | 1].copy() for a in arrays]


def _alike(a: Any, b: Any) -> bool:
    """Whether two fingerprints differ by no more than rounding: floats by half their digits, relative to the largest."""
    a, b = to_device(a, "cpu"), to_device(b, "cpu")
    if a.shape != b.shape or b.dtype.kind not in "fc":
        return np.array_equal(a, b)
    largest = np.abs(b[np.isfinite(b)]).max(initial=0)
    return np.allclose(a, b, rtol=0, atol=math.sqrt(np.finfo(b.dtype).eps) * largest, equal_nan=True)


@contextmanager
def _rewound(generators: Sequence[np.random.Generator], states: Sequence[Any]) -> Iterator[None]:
    """The generators in the given states, and afterwards in those that they had before."""
    before = [g.bit_generator.state for g in generators]
    for g, state in zip(generators, states, strict=True):
        g.bit_generator.state = state
    try:
        yield
    finally:
        for g, state in zip(generators, before, strict=True):
            g.bit_generator.state = state
