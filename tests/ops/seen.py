"""Which Functions run."""

from __future__ import annotations

from collections.abc import Callable

from minirnn.autograd import Function
from minirnn.diagnostics import Direction, Monitor, Results


class Seen(Monitor):
    """Notes the class of every Function whose forward pass runs, also inside the backward pass of another."""

    def __init__(self) -> None:
        self.functions: list[type[Function]] = []

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if direction == "forward":
            self.functions.append(type(function))
        return compute()
