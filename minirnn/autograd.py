"""The tape: `Function` records what was computed, and a walk backwards through the record gives the gradients.

A `Function` computes on arrays and differentiates in Tensor operations. Its backward pass is therefore itself recorded when
`create_graph=True`, and a gradient can be differentiated like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from minirnn import diagnostics
from minirnn.device import Array, array_module, device_of
from minirnn.tensor import Tensor

_recording: ContextVar[bool] = ContextVar("recording", default=True)

FREED = (
    "backward through {} whose saved values were freed by an earlier backward(); pass retain_graph=True to the earlier call to go through "
    "the same graph twice, or, in truncated BPTT, carry the state into the next chunk with .detach()"
)


def is_recording() -> bool:
    return _recording.get()


@contextmanager
def _set_recording(on: bool) -> Iterator[None]:
    token = _recording.set(on)
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad() -> Any:
    """Context (or decorator) in which nothing is recorded: results have `requires_grad=False`."""
    return _set_recording(False)


def enable_grad() -> Any:
    """Context in which operations are recorded, inside `no_grad()` too."""
    return _set_recording(True)


class Function:
    """One differentiable operation, and, once applied, one node of the tape.

    A subclass defines `forward(self, *arrays)`, which returns an array or a tuple of arrays, and `backward(self, *grads)`, which takes one
    Tensor for each output and returns one for each input (None where there is no gradient). Keyword options become attributes.
    In a Function with several outputs a gradient that nobody asked for arrives as None.

    `inputs` are the input Tensors, `needs` says which of them need a gradient, `xp` is the array module, and `output` is
    the (first) output as a Tensor on the tape, for a class that sets `saves_output`.
    """

    saves_output: ClassVar[bool] = False
    forward: Callable[..., Any]
    backward: Callable[..., Any]

    xp: Any
    inputs: tuple[Tensor, ...]
    needs: tuple[bool, ...]
    output_types: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    _outputs: tuple[Array, ...]

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)
        self.hooks: dict[int, list[Callable[[Tensor], Tensor | None]]] = {}
        self.freed = False

    @classmethod
    def apply(cls, *inputs: Tensor, **options: Any) -> Tensor:
        """Run the operation on Tensors and return its only output."""
        (output,) = cls.apply_all(*inputs, **options)
        return output

    @classmethod
    def apply_all(cls, *inputs: Tensor, **options: Any) -> tuple[Tensor, ...]:
        """Run the operation on Tensors and return all of its outputs."""
        self = cls(**options)
        if len(inputs) > 1:
            _check_alike(cls.__name__, inputs)
        self.inputs = inputs
        self.needs = tuple(t.requires_grad for t in inputs)
        self.xp = array_module(inputs[0].data)
        monitors = diagnostics.monitors()
        for monitor in monitors:
            monitor.begin(self)
        result = self.forward(*[t.data for t in inputs])
        arrays = result if isinstance(result, tuple) else (result,)
        arrays = tuple(a if hasattr(a, "ndim") and a.shape != () else self.xp.asarray(a) for a in arrays)
        for monitor in monitors:
            monitor.forward(self, arrays)
        if not (any(self.needs) and _recording.get()):
            return tuple(Tensor(a) for a in arrays)
        self.output_types = tuple((a.shape, a.dtype) for a in arrays)
        self._outputs = arrays if self.saves_output else ()
        return tuple(Tensor(a, True, self, k) for k, a in enumerate(arrays))

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs as Tensors on the tape; made anew at each call, because a node that held its outputs would be a reference cycle."""
        return tuple(Tensor(a, True, self, k) for k, a in enumerate(self._outputs))

    def gradients(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """`backward`, with one gradient for each input."""
        result = self.backward(*grads)
        return (result,) if isinstance(result, Tensor) or result is None else tuple(result)

    def locate(self, array: Array) -> str:
        """Where in an array of this operation the first NaN or Inf stands, in the operation's own terms (a recurrence names the step)."""
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(np.atleast_1d(array)))[0])
        return f"index {index} of {array.shape}"

    def free(self) -> None:
        """Let go of everything that was kept for the backward pass."""
        self.__dict__.clear()
        self.freed = True


def _check_alike(operation: str, inputs: Sequence[Tensor]) -> None:
    first, described = inputs[0], []
    if all(t.data.dtype == first.data.dtype and type(t.data) is type(first.data) for t in inputs):
        return
    for k, t in enumerate(inputs):
        described.append(f"operand {k} {t.shape} is {t.dtype} on {device_of(t.data)}")
    raise TypeError(
        f"{operation}: {', '.join(described)}; operands must share dtype and device, convert one of them with .to(dtype) or .to(device)"
    )


def _key(t: Tensor) -> tuple[int, int]:
    """What a gradient is collected under: the output slot of a node, or a leaf."""
    return (id(t), -1) if t.creator is None else (id(t.creator), t.slot)


def _inputs_first(roots: Iterable[Tensor]) -> list[Function]:
    """Every node below `roots`, each after the nodes it depends on. A loop, not a recursion: BPTT makes deep graphs."""
    order: list[Function] = []
    seen: set[int] = set()
    stack = [(root.creator, False) for root in roots if root.creator is not None]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            if node.freed:
                raise RuntimeError(FREED.format(type(node).__name__))
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((t.creator, False) for t in node.inputs if t.creator is not None)
    return order


class _Gradients:
    """Gradients under collection. A sum made here belongs to the walk, so further terms are added in place."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], Tensor] = {}
        self.own: set[tuple[int, int]] = set()

    def add(self, key: tuple[int, int], grad: Tensor) -> None:
        known = self.of.get(key)
        if known is None:
            self.of[key] = grad
        elif key in self.own and not is_recording():
            known.data += grad.data
        else:
            self.of[key] = known + grad
            self.own.add(key)


def _call_hooks(hooks: Iterable[Callable[[Tensor], Tensor | None]], grad: Tensor) -> Tensor:
    for hook in hooks:
        replaced = hook(grad)
        grad = grad if replaced is None else replaced
    return grad


def _walk(
    outputs: Sequence[Tensor], seeds: Sequence[Tensor], wanted: Sequence[Tensor] | None, create: bool, retain: bool
) -> list[Tensor | None]:
    """Gradients of `wanted`; with None, deposit the gradient of every leaf in its `.grad`."""
    order = _inputs_first(outputs)
    leaves: dict[tuple[int, int], Tensor] = {}
    targets = None if wanted is None else {_key(t) for t in wanted}
    needed: set[int] = set()
    for node in order:
        if targets is None or any(_key(t) in targets or id(t.creator) in needed for t in node.inputs if t.requires_grad):
            needed.add(id(node))
    found: dict[tuple[int, int], Tensor] = {}
    grads = _Gradients()
    monitors = diagnostics.monitors()
    with _set_recording(create):
        for output, seed in zip(outputs, seeds, strict=True):
            grads.add(_key(output), seed)
            if output.creator is None:
                leaves[_key(output)] = output
        while order:
            node = order.pop()
            slots = range(len(node.output_types))
            arriving = [grads.of.pop((id(node), k), None) for k in slots]
            for k in slots:
                grad = arriving[k]
                if grad is not None:
                    arriving[k] = grad = _call_hooks(node.hooks.get(k, ()), grad)
                    if targets is not None and (id(node), k) in targets:
                        found[id(node), k] = grad
            if id(node) in needed and any(grad is not None for grad in arriving):
                for monitor in monitors:
                    monitor.begin(node)
                leaving = node.gradients(arriving)
                for monitor in monitors:
                    monitor.backward(node, leaving)
                for t, grad in zip(node.inputs, leaving, strict=True):
                    if grad is None or not t.requires_grad:
                        continue
                    if grad.shape != t.shape or grad.dtype != t.dtype:
                        raise RuntimeError(
                            f"{type(node).__name__}.backward returned a gradient {grad.shape} {grad.dtype} for an input {t.shape} {t.dtype}"
                        )
                    grads.add(_key(t), grad)
                    if t.creator is None:
                        leaves[_key(t)] = t
            if not retain:
                node.free()
        for key, leaf in leaves.items():
            grad = _call_hooks(leaf.hooks, grads.of[key])
            if targets is None:
                leaf.grad = grad if leaf.grad is None else leaf.grad + grad
            elif key in targets:
                found[key] = grad
    return [] if wanted is None else [found.get(_key(t)) for t in wanted]


def _seeds(outputs: Sequence[Tensor], given: Sequence[Tensor | None] | None) -> list[Tensor]:
    seeds = []
    for output, seed in zip(outputs, given or [None] * len(outputs), strict=True):
        if not output.requires_grad:
            raise RuntimeError(
                "nothing to differentiate: no operand of this result has requires_grad=True, or it was computed in no_grad()"
            )
        if seed is None and output.data.size != 1:
            raise RuntimeError(
                f"only a scalar has a gradient of its own, got shape {output.shape}; reduce it (.sum()) or pass grad_outputs"
            )
        seed = Tensor(array_module(output.data).ones_like(output.data)) if seed is None else seed
        if seed.shape != output.shape or seed.dtype != output.dtype:
            raise ValueError(
                f"the gradient passed in is {seed.shape} {seed.dtype}, the output it belongs to is {output.shape} {output.dtype}"
            )
        seeds.append(seed)
    return seeds


def backward(output: Tensor, grad_output: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add d output / d leaf to `.grad` of every leaf. See `Tensor.backward`."""
    retain = create_graph if retain_graph is None else retain_graph
    _walk([output], _seeds([output], [grad_output]), None, create_graph, retain)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `sum(outputs * grad_outputs)` with respect to `inputs`, one for each, leaving every `.grad` alone.

    `grad_outputs` may be left out for scalar outputs. With `create_graph=True` the gradients are themselves differentiable.
    An input that the outputs do not depend on is an error, or None with `allow_unused=True`.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else grad_outputs
    retain = create_graph if retain_graph is None else retain_graph
    found = _walk(outputs, _seeds(outputs, given), inputs, create_graph, retain)
    for k, (t, g) in enumerate(zip(inputs, found, strict=True)):
        if g is None and not allow_unused:
            why = "the outputs do not depend on it" if t.requires_grad else "it has requires_grad=False"
            raise RuntimeError(f"grad: no gradient for input {k} {t.shape}: {why}; pass allow_unused=True to get None instead")
    return tuple(found)


class Alias(Function):
    """y = x, at a new place on the tape        dx = dy"""

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Tensor) -> Tensor:
        return dy


def alias(x: Tensor) -> Tensor:
    """The same data at a place of its own on the tape, so that `grad` with respect to it stops here."""
    return Alias.apply(x)
