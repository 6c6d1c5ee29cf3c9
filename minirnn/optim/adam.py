"""Adam and AdamW, one fused pass over all parameters (see `minirnn.kernels.adam`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from minirnn.device import Array, array_module, on_host
from minirnn.kernels import registry
from minirnn.nn.module import Parameter
from minirnn.optim.optimizer import Optimizer


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2;   p = p - lr m' / (sqrt v' + eps), m' = m / (1 - b1^t), v' = v / (1 - b2^t)

    lr 1e-3, betas (b1, b2) = (0.9, 0.999), eps 1e-8; weight_decay is added to the gradient, g + weight_decay p. Kingma and Ba 2015,
    algorithm 1.
    """

    slots = ("t", "m", "v")
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"{type(self).__name__}: betas must be in [0, 1), got {group['betas']}")

    def update(self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any], scale: float | Array) -> None:
        t = self._begun(p, state)
        registry.fused("adam", p.data).step(p.data, grad, state["m"], state["v"], t=t, scale=scale, **self._options(group))

    def update_all(
        self, found: Sequence[tuple[Parameter, Array, dict[str, Any]]], group: Mapping[str, Any], scale_in: Callable[[Any], float | Array]
    ) -> None:
        if not all(on_host(p.data) for p, _, _ in found):
            super().update_all(found, group, scale_in)
            return
        for dtype in dict.fromkeys(p.dtype for p, _, _ in found):
            own = [(p.data, grad, state, self._begun(p, state)) for p, grad, state in found if p.dtype == dtype]
            parameters = [(data, grad, state["m"], state["v"], t) for data, grad, state, t in own]
            registry.fused("adam", own[0][0]).steps(parameters, scale=scale_in(dtype), **self._options(group))

    def _begun(self, p: Parameter, state: dict[str, Any]) -> int:
        """t, the number of the step that is to come; makes m and v before the first."""
        if not state:
            zeros_like = array_module(p.data).zeros_like
            state.update(t=0, m=zeros_like(p.data), v=zeros_like(p.data))
        state["t"] += 1
        return int(state["t"])

    def _options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        options = {"lr": group["lr"], "eps": group["eps"], "weight_decay": group["weight_decay"]}
        return {**options, "beta1": beta1, "beta2": beta2, "decoupled": self.decoupled}


class AdamW(Adam):
    """Adam whose weight decay is a step of its own, p = (1 - lr weight_decay) p, before Adam's. Loshchilov and Hutter 2019, algorithm 2."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
