"""What the benchmark of recurrent layers asks of a library: a module beside this one, which is imported in a process of its own.

TITLE             its name for a reader
why_not()         why it cannot be compared with here, None if it can; imports nothing
environment(dtype)  variables that must be set before it is imported
names(case)       what it can run the case on, by name
make(name, case, arrays)                  a Layer
count_allocations(run)                    how many arrays run() allocates, None if nobody counts
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from minirnn.bench.cases import STATES, Array, Arrays, Case, Product

PRODUCTS = "products"  # the name under which the matrix products alone are timed


class Layer(Protocol):
    """One implementation of a case, with its weights and data in place."""

    def forward(self) -> Any:
        """The output, without gradients."""

    def both(self) -> Any:
        """Forward and backward: the gradients of the input and of all weights, of the output times its given gradient."""

    def results(self, states: bool) -> Arrays:
        """What `minirnn.bench.reference` gives, by the same names, as `both` computes it; step by step, as `forward` does."""

    def output_alone(self) -> Array:
        """The output, as `forward` computes it."""


class Products(Protocol):
    """The matrix products of a case with nothing between them."""

    def forward(self) -> Any: ...

    def both(self) -> Any: ...


def operands(case: Case, pass_: str) -> list[tuple[Array, Array, Product]]:
    """(m, k) and (k, n) of every product of a pass; those of one shape share their memory, as weights do from step to step."""
    rng = np.random.default_rng(0)
    made: dict[Product, tuple[Array, Array]] = {}
    found = []
    for products in (case.input_products(pass_), case.step_products(pass_)):
        for product in products:
            if product not in made:
                left, right = rng.standard_normal((product.m, product.k)), rng.standard_normal((product.n, product.k))
                made[product] = left.astype(case.dtype), right.astype(case.dtype).T
            found.append((*made[product], product))
    return found


def last_states(case: Case, last: Any) -> dict[str, Any]:
    """ "h_n" and "c_n" of what a layer returns beside its output."""
    return dict(zip((f"{name}_n" for name in STATES[case.cell]), last if case.cell == "lstm" else [last], strict=True))


def step_through(module: Any, is_layer: bool, cell: str, steps: Iterable[Any]) -> tuple[list[Any], Any]:
    """The output of every step and the last state, of a layer that is given one step at a time, or of a cell."""
    state: Any = None
    outputs = []
    for x in steps:
        if is_layer:
            output, state = module(x, state)
        else:
            state = module(x, state)
            output = state[0] if cell == "lstm" else state
        outputs.append(output)
    return outputs, state
