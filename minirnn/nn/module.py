"""Module: a function with parameters. What it consists of is found by looking at its attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from weakref import WeakSet

import numpy as np

from minirnn.autograd import is_recording, no_grad
from minirnn.device import array_module, here, is_array, to_device
from minirnn.diagnostics import is_watched
from minirnn.place import Place, enter, leave
from minirnn.place import here as where
from minirnn.recorder import recorder
from minirnn.tensor import Tensor, tensor


class Parameter(Tensor):
    """A leaf that is learned: a Tensor with `requires_grad`, and the `name` that it has in its module, for error messages.

    A host array goes to the device of the innermost `with minirnn.device(...):`.
    """

    __slots__ = ("name",)

    def __init__(self, data: Any, name: str = "") -> None:
        data = data.data if isinstance(data, Tensor) else data
        array = data if hasattr(data, "dtype") and hasattr(data, "ndim") else tensor(data).data
        super().__init__(here(array_module(array).asarray(array, order="C")), requires_grad=True)
        self.name = name


_alive: WeakSet[Module] = WeakSet()  # so that a module can be named by the one that holds it


class Module:
    """A function with parameters.

    A subclass sets attributes in its constructor and defines `forward`. Attributes that are a Parameter, a Module or a
    `numpy.random.Generator`, or lists, tuples and dicts of them, belong to it; there is no base constructor to call.
    """

    training: bool = True
    forward: Callable[..., Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        _alive.add(self)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter) and not value.name:
            value.name = name
        object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (is_recording() or is_watched() or recorder() is not None):
            return self.forward(*args, **kwargs)
        token = enter(Place(self, step=where().step))
        try:
            return self.forward(*args, **kwargs)
        finally:
            leave(token)

    def path(self) -> str:
        """The dotted name in the outermost module that holds this one, as "encoder.cells.0"; "" where none does.

        Held in several places it has the shortest of the names. All modules that there are get looked at: this is for messages.
        """
        held = [
            (f"{holder.path()}.{name}" if holder.path() else name) for holder in list(_alive) for name, m in holder.members() if m is self
        ]
        return min(held, key=lambda name: (len(name), name), default="")

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes by name, the items of lists, tuples and dicts as `name.key`."""
        for name, value in vars(self).items():
            yield from _flat(name, value)

    def _walk(self, kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Everything of a kind that this module and those below it hold, by dotted name; what is held twice comes twice."""
        for name, value in self.members():
            if isinstance(value, kind):
                yield prefix + name, value
            if isinstance(value, Module):
                yield from value._walk(kind, f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters by dotted name; one that is held in several places once, under its first name."""
        return _once(self._walk(Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once, in the order of `named_parameters`."""
        return (p for _, p in self.named_parameters())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module, under the empty name, and all those below it, each once."""
        yield "", self
        yield from _once(self._walk(Module))

    def modules(self) -> Iterator[Module]:
        """This module and all those below it, each once."""
        return (m for _, m in self.named_modules())

    def num_parameters(self) -> int:
        """How many numbers there are to learn."""
        return sum(p.size for p in self.parameters())

    def generators(self) -> list[np.random.Generator]:
        """The random generators that the module draws from when it is called."""
        return [g for _, g in _once(self._walk(np.random.Generator))]

    def rng_state(self) -> dict[str, Any]:
        """The state of every generator by name, in plain numbers, lists and dicts that JSON can hold."""
        return {name: _plain(g.bit_generator.state) for name, g in _once(self._walk(np.random.Generator))}

    def set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Bring every generator into the state that `rng_state()` gave. Raises KeyError where the names differ."""
        held = dict(_once(self._walk(np.random.Generator)))
        if held.keys() != state.keys():
            raise KeyError(f"set_rng_state: the module has generators {_listed(held)}, the state has {_listed(state)}")
        for name, g in held.items():
            g.bit_generator.state = state[name]

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of all parameters by dotted name, as NumPy arrays. A shared parameter stands under each of its names, as in PyTorch."""
        return {name: np.array(p.numpy()) for name, p in self._walk(Parameter)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Overwrite the parameters, in place and in their own dtype, with the arrays (or PyTorch tensors) of `state`.

        Raises ValueError, with nothing loaded, where a shape differs, and, if `strict`, where names are missing or unexpected.
        """
        held = dict(self._walk(Parameter))
        arrays = {name: _on_host(state[name]) for name in held if name in state}
        problems = []
        if strict:
            problems += [f"missing: {_listed(held.keys() - state.keys())}"] if held.keys() - state.keys() else []
            problems += [f"unexpected: {_listed(state.keys() - held.keys())}"] if state.keys() - held.keys() else []
        problems += [
            f"{name} is {array.shape} in the state and {held[name].shape} in the module"
            for name, array in arrays.items()
            if array.shape != held[name].shape
        ]
        if problems:
            raise ValueError(f"load_state_dict of {type(self).__name__}, nothing was loaded: " + "; ".join(problems))
        for name, array in arrays.items():
            p = held[name]
            p.data[...] = to_device(array.astype(p.dtype), p.device) if p.device != "cpu" else array

    def train(self, mode: bool = True) -> Self:
        """Training mode, in which dropout drops, for this module and all below it."""
        self.training = mode
        for value in list(vars(self).values()):  # a step of training asks for it: no names, no search for what comes twice
            _set_mode(value, mode)
        return self

    def eval(self) -> Self:
        """Test mode, in which nothing is random."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, on: bool = True) -> Self:
        """Let all parameters learn, or freeze them."""
        for p in self.parameters():
            p.requires_grad = on
        return self

    def to(self, target: Any) -> Self:
        """Move all parameters, in place, to a device ("cpu", "cuda", "cuda:0", "emulated") or to a floating dtype ("float64")."""
        with no_grad():
            for p in self.parameters():
                p.data = Tensor(p.data).to(target).data
                p.grad = None if p.grad is None else p.grad.to(target)
        return self

    def describe(self) -> str:
        """What `repr` says between the parentheses, beside the modules below."""
        return ""

    def __repr__(self) -> str:
        below = [f"({name}): {value!r}".replace("\n", "\n  ") for name, value in self.members() if isinstance(value, Module)]
        lines = "".join(f"\n  {line}" for line in ([self.describe()] if self.describe() else []) + below) + "\n"
        return f"{type(self).__name__}({lines if below else self.describe()})"


class ModuleList(Module):
    """Modules in a list: `named_parameters` calls those of the first `0.weight` and so on."""

    def __init__(self, modules: Any = ()) -> None:
        self.items: list[Module] = list(modules)

    def members(self) -> Iterator[tuple[str, Any]]:
        return ((name.removeprefix("items."), value) for name, value in super().members())

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns the list."""
        self.items.append(module)
        return self

    def __iter__(self) -> Iterator[Module]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Module:
        return self.items[index]


class Sequential(ModuleList):
    """y = f_n(... f_2(f_1(x)))"""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """What the last module gives for what the one before it gave, the first of them for x."""
        for module in self.items:
            x = module(x)
        return x


def check_features(layer: Module, x: Tensor, size: int, argument: str, symbols: str) -> None:
    """Raise unless x is a Tensor whose last axis is what the layer was made for.

    `argument` is the name that `size` has in the layer's constructor, `symbols` the letters of x's axes.
    """
    name = type(layer).__name__
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: input must be a Tensor {symbols}, got {type(x).__name__}; minirnn.tensor(x) makes one")
    if x.ndim == 0 or x.shape[-1] != size:
        features = f"{x.shape[-1]} features in its last axis" if x.ndim else "no axes"
        raise ValueError(f"{name}: input has {features}, the layer was made for {argument}={size} (x: {symbols} = {x.shape})")


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value


def _set_mode(value: Any, mode: bool) -> None:
    if isinstance(value, Module):
        value.train(mode)
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _set_mode(item, mode)


def _once(named: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _on_host(value: Any) -> Any:
    return to_device(value, "cpu") if is_array(value) else np.asarray(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
