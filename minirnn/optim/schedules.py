"""Learning-rate schedules: each sets the optimiser's rate at once, and again at every `step()`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from minirnn.optim.optimizer import Optimizer


class Schedule:
    """lr = factor(k) times the rate that each group of the optimiser had when the schedule was made, after k steps of the schedule.

    A step is whatever the caller counts: an update or an epoch.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.count = 0
        self.base = [float(group["lr"]) for group in optimizer.param_groups]
        self._set(self.factor(0))

    def factor(self, k: int) -> float:
        """What the first rate is multiplied by after k steps."""
        raise NotImplementedError

    def step(self) -> None:
        """Count one step, and set the rate that belongs to the new count."""
        self.count += 1
        self._set(self.factor(self.count))

    def _set(self, factor: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold and a later run needs; what the constructor was given is not part of it."""
        return {"count": self.count, "base": list(self.base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict()` gave, and set the rate. Raises ValueError where the optimiser has another number of groups."""
        if len(state["base"]) != len(self.base):
            raise ValueError(f"load_state_dict: the state has {len(state['base'])} groups, the optimiser has {len(self.base)}")
        self.count, self.base = int(state["count"]), [float(lr) for lr in state["base"]]
        self._set(self.factor(self.count))


class LambdaLR(Schedule):
    """factor(k) = f(k), any function."""

    def __init__(self, optimizer: Optimizer, f: Callable[[int], float]) -> None:
        self.f = f
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        return self.f(k)


class StepLR(Schedule):
    """factor(k) = gamma^floor(k / step_size)"""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        return float(self.gamma ** (k // self.step_size))


class ExponentialLR(Schedule):
    """factor(k) = gamma^k"""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        return float(self.gamma**k)


class LinearWarmup(Schedule):
    """factor(k) = min(1, (k + 1) / steps)"""

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"LinearWarmup: steps must be at least 1, got {steps}")
        self.steps = steps
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        return min(1.0, (k + 1) / self.steps)


class CosineLR(Schedule):
    """Half a cosine from 1 down to `minimum` over `steps`, then constant: Loshchilov and Hutter 2017, equation 5.

    factor(k) = minimum + (1 - minimum) (1 + cos(pi (k - warmup) / (steps - warmup))) / 2

    after a linear rise over the first `warmup` steps.
    """

    def __init__(self, optimizer: Optimizer, steps: int, minimum: float = 0.0, warmup: int = 0) -> None:
        if not 0 <= warmup < steps:
            raise ValueError(f"CosineLR: warmup must be in 0..steps-1, got warmup={warmup}, steps={steps}")
        self.steps, self.minimum, self.warmup = steps, minimum, warmup
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        if k < self.warmup:
            return (k + 1) / self.warmup
        done = min(1.0, (k - self.warmup) / (self.steps - self.warmup))
        return self.minimum + (1 - self.minimum) * (1 + math.cos(math.pi * done)) / 2


class ReduceOnPlateau(Schedule):
    """Multiply the rate by `gamma` whenever the metric given to `step` has not improved for more than `patience` calls on end.

    mode       "min": lower is better; "max": higher is better
    threshold  the share of the best value by which a better one must differ from it
    minimum    the lowest factor
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: float = 0.1,
        patience: int = 10,
        mode: str = "min",
        threshold: float = 1e-4,
        minimum: float = 0.0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f'ReduceOnPlateau: mode must be "min" or "max", got {mode!r}')
        self.gamma, self.patience, self.mode, self.threshold, self.minimum = gamma, patience, mode, threshold, minimum
        self.best: float | None = None
        self.waited = 0
        self.scale = 1.0
        super().__init__(optimizer)

    def factor(self, k: int) -> float:
        return self.scale

    def step(self, metric: float | None = None) -> None:
        """Count one call, with the metric that is watched; NaN and infinity are no improvement. Raises TypeError without one."""
        if metric is None:
            raise TypeError("ReduceOnPlateau.step: needs the metric to watch")
        sign = 1 if self.mode == "min" else -1
        better = self.best is None or sign * metric < sign * self.best - self.threshold * abs(self.best)
        if better and math.isfinite(metric):  # the distance to a best of inf or NaN would be NaN for ever
            self.best, self.waited = float(metric), 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = max(self.minimum, self.scale * self.gamma), 0
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best, "waited": self.waited, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited, self.scale = state["best"], state["waited"], state["scale"]
        super().load_state_dict(state)
