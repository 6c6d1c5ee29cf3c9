"""The tape: `Function` records what was computed, and a walk backwards through the record gives the gradients.

A `Function` computes on arrays and differentiates in Tensor operations. Its backward pass is therefore itself recorded when
`create_graph=True`, and a gradient can be differentiated like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, TypeAlias

import numpy as np

from minirnn.device import Array, array_module, device_of, is_floating
from minirnn.diagnostics import watched
from minirnn.place import NOWHERE, Place, enter, here, leave
from minirnn.recorder import backward_pass
from minirnn.tensor import Hook, Tensor

Key: TypeAlias = tuple[int, int]  # the place on the tape that a gradient belongs to: (id of a node, its output) or (id of a leaf, -1)

_recording: ContextVar[bool] = ContextVar("recording", default=True)

FREED = (
    "backward through {}, whose saved values were freed by an earlier backward(); pass retain_graph=True to the earlier call to go "
    "through the same graph twice, or, in truncated BPTT, carry the state into the next chunk with .detach()"
)


is_recording: Callable[[], bool] = _recording.get


@contextmanager
def enable_grad(on: bool = True) -> Iterator[None]:
    """Context, or decorator, in which operations are recorded, inside `no_grad()` too."""
    token = _recording.set(on)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def no_grad() -> Iterator[None]:
    """Context, or decorator, in which nothing is recorded: results have `requires_grad=False`."""
    with enable_grad(False):
        yield


class Function:
    """One differentiable operation, and, once applied, one node of the tape.

    A subclass defines `forward(self, *arrays)`, which returns an array or a tuple of arrays, and `backward(self, *grads)`, which takes one
    Tensor for each output and returns one for each input (None where there is no gradient): new ones, or those it was given. In a Function
    with several outputs a gradient that nobody asked for arrives as None. Keyword options become attributes.

    `inputs` are the input Tensors, `needs` says which of them need a gradient, `xp` is the array module, and `outputs` (`output` is the
    first) are the outputs as Tensors on the tape, for a class that sets `saves_output`. A class that sets `mixes` takes operands of several
    dtypes and devices; one that sets `composite` runs other operations, each of which counts for itself. `place` is where in a model it was
    applied. `last_pass` says, during `backward`, that no other backward pass will follow: what was saved may be overwritten.
    """

    saves_output: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    composite: ClassVar[bool] = False
    forward: Callable[..., Any]
    backward: Callable[..., Any]

    xp: Any
    inputs: tuple[Tensor, ...]
    needs: tuple[bool, ...]
    output_types: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    freed = False
    last_pass = False
    place: Place = NOWHERE
    _saved: Sequence[Array] = ()

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)
        self.hooks: dict[int, list[Hook]] = {}

    @classmethod
    def apply(cls, *inputs: Tensor, **options: Any) -> Tensor:
        """Run the operation on Tensors and return its only output."""
        (output,) = cls.apply_all(*inputs, **options)
        return output

    @classmethod
    def apply_all(cls, *inputs: Tensor, **options: Any) -> tuple[Tensor, ...]:
        """Run the operation on Tensors and return all of its outputs."""
        self = cls(**options)
        self.inputs = inputs
        self.place = here()
        self.needs = tuple([t.requires_grad for t in inputs])
        arrays = [t.data for t in inputs]
        self.xp = array_module(arrays[0])
        if not cls.mixes and len(arrays) > 1:
            self._check_alike(arrays)
        results = watched(self, "forward", self._results, arrays)
        if not (True in self.needs and _recording.get()):
            return tuple([Tensor(a) for a in results])
        self.output_types = tuple([(a.shape, a.dtype) for a in results])
        if cls.saves_output:
            self._saved = results
        return self._on_tape(results)

    def _results(self, arrays: Sequence[Array]) -> Sequence[Array]:
        return _as_tuple(self.forward(*arrays))

    def _on_tape(self, arrays: Sequence[Array]) -> tuple[Tensor, ...]:
        return tuple([Tensor(a, True, self, k) if is_floating(a.dtype) else Tensor(a) for k, a in enumerate(arrays)])

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Made anew at each call, because a node that held its outputs would be a reference cycle."""
        return self._on_tape(self._saved)

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    def gradients(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """`backward`, with one gradient for each input."""
        found = _as_tuple(self.backward(*grads))
        if len(found) != len(self.inputs):
            raise ValueError(f"{type(self).__name__}.backward returned {len(found)} gradients for {len(self.inputs)} inputs")
        return found

    def locate(self, array: Array) -> str:
        """Where in an array of this operation the first NaN or Inf stands, in the operation's own terms (a recurrence names the step)."""
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(np.atleast_1d(array)))[0])
        return f"index {index} of {array.shape}"

    def flops(self) -> int | None:
        """How many operations on numbers `forward` took, counted as in `minirnn.kernels.flops`. None: nobody has said."""
        return None

    def backward_flops(self) -> int | None:
        """How many `backward` takes. None: those of the Tensor operations that it is made of."""
        return None

    def free(self) -> None:
        """Let go of everything that was kept for the backward pass."""
        self.__dict__ = {"freed": True, "hooks": {}}

    def _check_alike(self, arrays: Sequence[Array]) -> None:
        kind, dtype = type(arrays[0]), arrays[0].dtype
        for a in arrays:
            if type(a) is not kind or a.dtype != dtype:
                break
        else:
            if self.xp is np or len({device_of(a) for a in arrays}) == 1:
                return
        operands = ", ".join(f"operand {k} {t.shape} is {t.dtype} on {t.device}" for k, t in enumerate(self.inputs))
        raise TypeError(f"{type(self).__name__}: {operands}; all must share dtype and device, convert with .to(dtype) or .to(device)")


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def _key(t: Tensor) -> Key:
    return (id(t), -1) if t.creator is None else (id(t.creator), t.slot)


def _inputs_first(roots: Sequence[Tensor], stops: Collection[Key]) -> list[Function]:
    """Every node below `roots`, each after those it depends on, not going past `stops`. A loop, not a recursion: BPTT makes deep graphs."""
    order: list[Function] = []
    seen: set[int] = set()
    stack: list[Tensor | Function] = [*roots]  # a Tensor: go down from here; a Function: what it depends on is done
    while stack:
        top = stack.pop()
        if isinstance(top, Function):
            order.append(top)
        elif (node := top.creator) is not None and id(node) not in seen and _key(top) not in stops:
            if node.freed:
                raise RuntimeError(FREED.format(type(node).__name__))
            seen.add(id(node))
            stack += (node, *node.inputs)
    return order


class _Sums(dict[Key, Tensor]):
    """Gradients under collection, and the leaves they belong to. A sum made here is nobody else's, so further terms are added in place."""

    def __init__(self) -> None:
        self.own: set[Key] = set()
        self.leaves: dict[Key, Tensor] = {}

    def add(self, t: Tensor, grad: Tensor) -> None:
        key = _key(t)
        if key not in self:
            self[key] = grad
            if t.creator is None:
                self.leaves[key] = t
        elif key in self.own and not is_recording():
            self[key].data += grad.data
        else:
            self[key] = self[key] + grad
            self.own.add(key)


def _walk(
    outputs: Sequence[Tensor], seeds: Sequence[Tensor], wanted: Sequence[Tensor] | None, retain: bool, independent: bool = False
) -> tuple[dict[Key, Tensor], dict[Key, Tensor]]:
    """The gradients of `wanted` (None: of every leaf), and the leaves, by key."""
    targets = {_key(t) for t in wanted or ()}
    stops = targets if independent else frozenset[Key]()
    order = _inputs_first(outputs, stops)
    leading: set[int] = set()  # the nodes through which a gradient gets to where it is wanted

    def is_useful(t: Tensor) -> bool:
        return t.requires_grad and (wanted is None or _key(t) in targets or id(t.creator) in leading)

    for node in order if wanted is not None else ():
        if any(map(is_useful, node.inputs)):
            leading.add(id(node))
    sums, found = _Sums(), dict[Key, Tensor]()
    for output, seed in zip(outputs, seeds, strict=True):
        sums.add(output, seed)
    token = enter(here())
    try:
        while order:
            node = order.pop()
            grads: list[Tensor | None] = [None] * len(node.output_types)
            for k in range(len(grads)):
                key = id(node), k
                if key in sums and key not in stops:
                    grads[k] = grad = _call_hooks(node.hooks.get(k, ()), sums.pop(key))
                    if key in targets:
                        found[key] = grad
            if wanted is not None and id(node) not in leading:
                continue
            if grads.count(None) < len(grads):
                node.last_pass = not retain
                enter(node.place)
                for t, dt in zip(node.inputs, watched(node, "backward", node.gradients, grads), strict=True):
                    if dt is not None and is_useful(t):
                        sums.add(t, _fitting(dt, t, "the gradient from {}.backward", node))
            if not retain:
                node.free()
    finally:
        leave(token)
    for key, grad in sums.items():  # what is left belongs to leaves and to stops
        found[key] = grad if independent else _call_hooks(sums.leaves[key].hooks, grad)
    return found, sums.leaves


def _fitting(grad: Tensor, like: Tensor, source: str, node: Function | None = None) -> Tensor:
    """grad, which has the shape and dtype of what it belongs to."""
    if grad.data.shape != like.data.shape or grad.data.dtype != like.data.dtype:
        source = source.format(type(node).__name__)
        raise ValueError(f"{source} is {grad.shape} {grad.dtype}, the tensor that it belongs to is {like.shape} {like.dtype}")
    return grad


def _call_hooks(hooks: Iterable[Hook], grad: Tensor) -> Tensor:
    for hook in hooks:
        replaced = hook(grad)
        grad = grad if replaced is None else _fitting(replaced, grad, "the gradient that a hook returned")
    return grad


def _seeds(outputs: Sequence[Tensor], given: Sequence[Tensor | None] | None) -> list[Tensor]:
    seeds = []
    for output, seed in zip(outputs, given or [None] * len(outputs), strict=True):
        if not output.requires_grad:
            raise RuntimeError("nothing to differentiate: no operand has requires_grad=True, or the result was computed in no_grad()")
        if seed is None and output.size != 1:
            raise RuntimeError(f"only a scalar has a gradient of its own, got {output.shape}; reduce it (.sum()) or pass its gradient in")
        seed = Tensor(array_module(output.data).ones_like(output.data)) if seed is None else seed
        seeds.append(_fitting(seed, output, "the gradient passed in"))
    return seeds


def backward(output: Tensor, grad_output: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add d output / d leaf to `.grad` of every leaf. See `Tensor.backward`."""
    (seed,) = _seeds([output], [grad_output])
    retain = create_graph if retain_graph is None else retain_graph
    with enable_grad(create_graph), backward_pass(retain):
        found, leaves = _walk([output], [seed], None, retain)
        shared = {id(seed.data)}  # a user may change a `.grad` in place: it gets an array that nobody else has
        for key, grad in found.items():
            leaf = leaves[key]
            if leaf.grad is not None:
                leaf.grad = leaf.grad + grad
            else:
                alone = id(grad.data) not in shared and grad.data.base is None
                leaf.grad = grad if alone else grad.clone() if create_graph else Tensor(grad.data.copy())
            shared.add(id(grad.data))


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
    independent: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `sum(outputs * grad_outputs)` with respect to `inputs`, one for each, leaving every `.grad` alone.

    `grad_outputs` may be left out for scalar outputs. With `create_graph=True` the gradients are themselves differentiable.
    An input that the outputs do not depend on is an error, or None with `allow_unused=True`. Where one input was computed from another,
    `independent=True` gives partial derivatives: nothing flows through the one to the other.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = _seeds(outputs, [grad_outputs] if isinstance(grad_outputs, Tensor) else grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    with enable_grad(create_graph), backward_pass(retain):
        found, _ = _walk(outputs, seeds, inputs, retain, independent)
    for k, t in enumerate(inputs):
        if _key(t) not in found and not allow_unused:
            why = "the outputs do not depend on it" if t.requires_grad else "it has requires_grad=False"
            raise RuntimeError(f"grad: no gradient for input {k} {t.shape}: {why}; pass allow_unused=True to get None instead")
    return tuple(found.get(_key(t)) for t in inputs)
