"""What all optimisers share: groups of parameters, state by name, clipping, saving and loading."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from minirnn.device import Array, array_module, to_device
from minirnn.nn.module import Parameter
from minirnn.nn.utils import Norm, grad_norm, nonfinite_message
from minirnn.tensor import Tensor


class Optimizer:
    """Updates parameters, in place, from their gradients. One whose `.grad` is None is left alone, and its state too.

    params    Parameters, or (name, Parameter) pairs as `module.named_parameters()` gives them, or groups: dicts with either under "params"
              and options that differ from the others'. Without names they are numbered; the names say what is what in `state_dict()`
    defaults  the options of every group that does not set its own
    """

    slots: ClassVar[tuple[str, ...]]  # what the state of a parameter consists of, once it has been updated

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        given = list(params)
        name = type(self).__name__
        if not given:
            raise ValueError(f"{name}: no parameters to learn")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[str, dict[str, Any]] = {}
        seen: dict[int, str] = {}
        for group in groups:
            unknown = group.keys() - defaults.keys() - {"params"}
            if unknown:
                raise ValueError(f"{name}: unknown options {', '.join(sorted(unknown))}; there are {', '.join(defaults)}")
            named = []
            for entry in group["params"]:
                key, p = entry if isinstance(entry, tuple) else (str(len(seen)), entry)
                if not isinstance(p, Parameter):
                    raise TypeError(f"{name}: params must be Parameters or (name, Parameter) pairs, got {type(p).__name__}")
                if id(p) in seen or key in seen.values():
                    raise ValueError(f"{name}: parameter {key!r} is given twice")
                seen[id(p)] = key
                named.append((key, p))
            self.param_groups.append({**defaults, **{k: v for k, v in group.items() if k != "params"}, "params": named})
        for group in self.param_groups:
            self.check(group)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for an option out of range."""
        for option in ("lr", "weight_decay"):
            if group[option] < 0:
                raise ValueError(f"{type(self).__name__}: {option} must not be negative, got {group[option]}")

    def update(self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any], scale: float | Array) -> None:
        """Change p.data and `state` (empty at first) for the gradient scale * grad; `grad` is only read.

        A `scale` on the device is an array without axes, of the dtype of p; where it is not finite no number changes.
        """
        raise NotImplementedError

    def update_all(
        self, found: Sequence[tuple[Parameter, Array, dict[str, Any]]], group: Mapping[str, Any], scale_in: Callable[[Any], float | Array]
    ) -> None:
        """`update` for the parameters of a group that have a gradient; `scale_in` gives the scale for a dtype."""
        for p, grad, state in found:
            self.update(p, grad, state, group, scale_in(p.dtype))

    @property
    def lr(self) -> float:
        """The learning rate, of the first group where they differ; setting it sets that of all groups."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """All parameters, of all groups, with their names."""
        return [pair for group in self.param_groups for pair in group["params"]]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, p in self.named_parameters():
            p.grad = None

    def step(self, max_norm: float | None = None) -> Norm | None:
        """Update every parameter that has a gradient.

        With `max_norm` the gradients count as if `clip_grad_norm_` had been called before, at the cost of no extra pass to scale
        them; returns the norm that they have. Raises FloatingPointError, with nothing changed, where that is not finite.

        On a device the host does not wait for the norm: it comes back as a Tensor without axes, which float() reads. Where it is not finite
        the device leaves parameters and state as they are (the number of steps that Adam keeps has gone up), and nothing is raised: whoever
        reads the norm tells.
        """
        norm: Norm | None = None
        scale: float | Array = 1.0
        if max_norm is not None:
            named = self.named_parameters()
            norm = grad_norm(p for _, p in named)
            if isinstance(norm, Tensor):
                xp = array_module(norm.data)
                scale = xp.where(xp.isfinite(norm.data), xp.minimum(max_norm / (norm.data + 1e-6), 1), xp.nan)
            elif not math.isfinite(norm):
                raise FloatingPointError(f"{type(self).__name__}.step: {nonfinite_message(named, norm)}")
            else:
                scale = min(1.0, max_norm / (norm + 1e-6))
        scale_in = cache(lambda dtype: scale if isinstance(scale, float) else scale.astype(dtype))
        for group in self.param_groups:
            found = []
            for key, p in group["params"]:
                if p.grad is not None:
                    grad = p.grad.data
                    grad = grad if grad.flags.c_contiguous else array_module(grad).ascontiguousarray(grad)
                    found.append((p, grad, self.state.setdefault(key, {})))
            self.update_all(found, group, scale_in)
        return norm

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """All that a later run needs: {"arrays": {name: NumPy array}, "scalars": what JSON can hold}."""
        arrays, counts = {}, {}
        for key, state in self.state.items():
            for what, value in state.items():
                if isinstance(value, int):
                    counts[f"{what}.{key}"] = value
                else:
                    arrays[f"{what}.{key}"] = np.array(to_device(value, "cpu"))
        groups = [{**group, "params": [key for key, _ in group["params"]]} for group in self.param_groups]
        return {"arrays": arrays, "scalars": {"optimizer": type(self).__name__, "groups": groups, "counts": counts}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what `state_dict()` of an optimiser of the same class over parameters of the same names gave.

        Raises ValueError, with nothing changed, where something does not fit.
        """
        name, arrays, scalars = type(self).__name__, state["arrays"], state["scalars"]
        if scalars["optimizer"] != name:
            raise ValueError(f"load_state_dict: the state is {scalars['optimizer']}'s, this is {name}")
        mine = [[key for key, _ in group["params"]] for group in self.param_groups]
        theirs = [list(group["params"]) for group in scalars["groups"]]
        if mine != theirs:
            differ = sorted({k for group in mine for k in group} ^ {k for group in theirs for k in group})
            how = f"differ in {', '.join(differ)}" if differ else "have the parameters in another order or in other groups"
            raise ValueError(f"load_state_dict: the state and this {name} {how}")
        known = dict(self.named_parameters())
        loaded: dict[str, dict[str, Any]] = {}
        for entry, value in [*scalars["counts"].items(), *arrays.items()]:
            what, _, key = entry.partition(".")
            if key not in known:
                raise ValueError(f"load_state_dict: {entry} belongs to no parameter of this {name}")
            p = known[key]
            if isinstance(value, int):
                loaded.setdefault(key, {})[what] = value
            elif value.shape == p.shape:
                loaded.setdefault(key, {})[what] = to_device(np.array(value, p.dtype, order="C"), p.device)
            else:
                raise ValueError(f"load_state_dict: {entry} is {value.shape}, the parameter {key} is {p.shape}")
        for key, entries in loaded.items():
            if entries.keys() != set(self.slots):
                raise ValueError(f"load_state_dict: the parameter {key} needs {', '.join(self.slots)}, the state has {', '.join(entries)}")
        self.state = loaded
        for group, saved in zip(self.param_groups, scalars["groups"], strict=True):
            group.update({option: value for option, value in saved.items() if option != "params"})
