"""What the benchmark of a recurrent layer runs: shapes, weights and data, and the matrix products that no implementation can do without.

T steps, N sequences, D features, H hidden units, G gates, K layers. Of a ragged batch T is the longest length; S, the sum of the
lengths, is the number of rows that anybody has to compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

CELLS = ("lstm", "gru", "rnn")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",)}
PASSES = ("forward", "both")  # without gradients; forward and backward, with the gradients of the input and of all weights


class Product(NamedTuple):
    """(m, k) times (k, n)"""

    m: int
    n: int
    k: int

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True)
class Case:
    """One layer, or several, on one batch.

    Args:
        cell: "lstm", "gru" or "rnn".
        T, N, D, H: steps, sequences, features, hidden units.
        ragged: lengths from 1 to T, evenly spread, in random order; otherwise all are T.
        layers, bidirectional: of the layer.
        dtype: "float32" or "float64".
        stepwise: T calls of one step each, without gradients, as in decoding; otherwise one call.
    """

    cell: str
    T: int
    N: int
    D: int
    H: int
    ragged: bool = False
    layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"
    stepwise: bool = False

    @property
    def directions(self) -> int:
        return 1 + self.bidirectional

    @property
    def lengths(self) -> Array:
        """(N,) steps of each sequence."""
        if not self.ragged:
            return np.full(self.N, self.T)
        spread = np.linspace(self.T, 1, self.N).astype(np.int64)  # one alone has T
        return np.random.default_rng(0).permutation(spread)

    @property
    def batch_sizes(self) -> Array:
        """(T,) how many sequences have a step t."""
        return np.asarray((self.lengths[:, None] > np.arange(self.T)).sum(axis=0))

    @property
    def passes(self) -> tuple[str, ...]:
        return PASSES[:1] if self.stepwise else PASSES

    def few_steps(self, T: int) -> Case:
        """The same with at most T steps."""
        return replace(self, T=min(self.T, T))

    def input_products(self, pass_: str) -> Iterator[Product]:
        """Those over the rows of all steps at once: forward z, backward dw_ih, dx, and dw_hh, which also waits until the end."""
        S, GH = int(self.lengths.sum()), GATES[self.cell] * self.H
        for layer in range(self.layers):
            D = self.D if layer == 0 else self.H * self.directions
            for _ in range(self.directions):
                if self.stepwise:
                    yield from (Product(self.N, GH, D) for _ in range(self.T))
                else:
                    yield Product(S, GH, D)
                if pass_ == "both":
                    yield from (Product(GH, D, S), Product(S, D, GH), Product(GH, self.H, S))

    def step_products(self, pass_: str) -> Iterator[Product]:
        """Those of the recurrence, one of them after the other: h w_hh^T and, backward, dz w_hh."""
        GH = GATES[self.cell] * self.H
        for _ in range(self.layers * self.directions):
            yield from (Product(int(n), GH, self.H) for n in self.batch_sizes)
            if pass_ == "both":
                yield from (Product(int(n), self.H, GH) for n in self.batch_sizes)

    def flops(self, pass_: str) -> int:
        """Of the matrix products, padding left out."""
        return sum(product.flops for products in (self.input_products, self.step_products) for product in products(pass_))

    def __str__(self) -> str:
        said = f"{self.cell} ({self.T}, {self.N}, {self.D}, {self.H})"
        said += f", {self.layers} layers" if self.layers > 1 else ""
        said += ", bidirectional" if self.bidirectional else ""
        said += ", ragged" if self.ragged else ""
        return said + (", step by step" if self.stepwise else "")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def weight_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, which are those of PyTorch's layers."""
    GH = GATES[case.cell] * case.H
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(case.layers):
        D = case.D if layer == 0 else case.H * case.directions
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: case.directions]:
            shapes |= {
                f"weight_ih{suffix}": (GH, D),
                f"weight_hh{suffix}": (GH, case.H),
                f"bias_ih{suffix}": (GH,),
                f"bias_hh{suffix}": (GH,),
            }
    return shapes


def draw(case: Case) -> Arrays:
    """The same numbers for every implementation, rounded to the dtype.

    "input" (T, N, D); the parameters by name, uniform on +-1 / sqrt(H); "output_gradient" (T, N, H directions); first states "h_0" (and
    "c_0"), and the gradients of the last ones, "h_n_gradient", (K directions, N, H) each.
    """
    rng = np.random.default_rng(1)
    bound = case.H**-0.5
    arrays = {"input": rng.standard_normal((case.T, case.N, case.D))}
    arrays |= {name: rng.uniform(-bound, bound, shape) for name, shape in weight_shapes(case).items()}
    arrays["output_gradient"] = rng.standard_normal((case.T, case.N, case.H * case.directions))
    for state in STATES[case.cell]:
        for name in (f"{state}_0", f"{state}_n_gradient"):
            arrays[name] = rng.standard_normal((case.layers * case.directions, case.N, case.H))
    return {name: array.astype(case.dtype) for name, array in arrays.items()}


Shape = tuple[int, int, int, int]

QUICK: tuple[tuple[Shape, bool], ...] = (((20, 16, 64, 64), False), ((32, 32, 256, 256), False), ((32, 32, 256, 256), True))  # ragged?
TARGETS: tuple[Shape, ...] = (
    (20, 16, 64, 64),
    (32, 1, 128, 128),
    (100, 8, 32, 32),
    (32, 32, 256, 256),
    (100, 128, 128, 128),
    (50, 64, 512, 512),
    (50, 32, 1024, 1024),
)


def quick(cell: str, dtype: str) -> list[Case]:
    """Half a minute: small and middling, dense and ragged."""
    return [Case(cell, *shape, ragged=ragged, dtype=dtype) for shape, ragged in QUICK]


def targets(cell: str, dtype: str) -> list[Case]:
    """Minutes: what PyTorch is compared with on a CPU, from small to large, ragged, two layers of two directions, and step by step."""
    cases = [Case(cell, *shape, dtype=dtype) for shape in TARGETS]
    cases.append(Case(cell, 100, 64, 256, 256, ragged=True, dtype=dtype))
    cases.append(Case(cell, 50, 32, 256, 256, layers=2, bidirectional=True, dtype=dtype))
    cases.append(Case(cell, 100, 1, 256, 256, dtype=dtype, stepwise=True))
    return cases


GRIDS = {"quick": quick, "targets": targets}
