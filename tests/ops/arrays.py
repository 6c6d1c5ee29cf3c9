"""Arrays to try operations on: any shape, laid out in memory in any way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn.tensor import Tensor

Array = np.ndarray[Any, Any]

# The same numbers, differently laid out in memory.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda x: np.array(x, order="C"),
    "Fortran order": lambda x: np.array(x, order="F"),
    "every other element": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "backwards": lambda x: np.array(x[::-1], order="C")[::-1] if x.ndim else x,
}

layouts = st.sampled_from(list(LAYOUTS.values()))
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))


def positive(*shape: int, seed: int = 0) -> Array:
    """Numbers in (0.5, 2)."""
    return np.asarray(np.random.default_rng([seed, *shape]).uniform(0.5, 2, shape))


def apart(*shape: int, seed: int = 0) -> Array:
    """Numbers of both signs at least 0.05 apart from one another and from zero: no tie, and no kink within a finite difference."""
    n = int(np.prod(shape))
    values = (np.arange(n) - n // 2 + 0.5) * 0.1
    return np.asarray(np.random.default_rng([seed, *shape]).permutation(values).reshape(shape))


def leaves(*arrays: Array) -> list[Tensor]:
    return [Tensor(x, requires_grad=True) for x in arrays]


@st.composite
def tensors(draw: st.DrawFn, source: Callable[..., Array] = normal, **limits: Any) -> Array:
    """An array from `source` of any shape and layout; `limits` as in `hypothesis.extra.numpy.array_shapes`."""
    shape = draw(hnp.array_shapes(**{"min_dims": 0, "max_dims": 3, "min_side": 0, "max_side": 5, **limits}))
    return draw(layouts)(source(*shape))
