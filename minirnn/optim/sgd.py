"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minirnn.device import Array, array_module, select
from minirnn.nn.module import Parameter
from minirnn.optim.optimizer import Optimizer


class SGD(Optimizer):
    """g = dL/dp + weight_decay p;   b = momentum b + (1 - dampening) g, at first b = g;   p = p - lr b

    With nesterov p = p - lr (g + momentum b), without momentum p = p - lr g.
    """

    slots = ("b",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **options})

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["momentum"] < 0:
            raise ValueError(f"SGD: momentum must not be negative, got {group['momentum']}")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening = 0")

    def update(self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any], scale: float | Array) -> None:
        if not isinstance(scale, float):
            self._update_on_device(p, grad, state, group, scale)
            return
        g = grad if scale == 1 else grad * scale
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p.data
        if group["momentum"]:
            if state:
                state["b"] *= group["momentum"]
                state["b"] += (1 - group["dampening"]) * g
            else:
                state["b"] = g.copy()
            g = g + group["momentum"] * state["b"] if group["nesterov"] else state["b"]
        p.data -= group["lr"] * g

    def _update_on_device(self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any], scale: Array) -> None:
        """The same, where the device alone knows the scale and decides whether anything changes; a first step that does not leaves b 0."""
        xp = array_module(grad)
        finite = xp.isfinite(scale)
        before, b = p.data.copy(), state["b"].copy() if state else xp.zeros_like(grad)
        self.update(p, grad * scale, state, group, 1.0)
        p.data[...] = select(finite, p.data, before)
        if state:
            state["b"] = select(finite, state["b"], b)
