"""How the learning rate goes: a function of the update and of the share of the budget that is spent."""

from __future__ import annotations

import math

from minirnn.training.task import TrainingOptions


def learning_rate(options: TrainingOptions, step: int, spent: float, scale: float = 1.0) -> float:
    """The learning rate of update number `step`, counted from 0.

        linear     lr (1 - spent)
        cosine     lr (1 + cos(pi spent)) / 2
        constant   lr,  plateau  lr scale

    times (step + 1) / warmup while that is below 1.

    Args:
        spent: the share of the budget that is behind, 0 to 1.
        scale: what the plateau schedule has left.
    """
    spent = min(max(spent, 0.0), 1.0)
    shape = {"linear": 1 - spent, "cosine": 0.5 * (1 + math.cos(math.pi * spent)), "plateau": scale}.get(options.schedule, 1.0)
    return options.lr * shape * min(1.0, (step + 1) / options.warmup if options.warmup else 1.0)
