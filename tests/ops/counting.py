"""Arrays that count the floating-point operations that are done with them, and with all that comes of them: whatever code does them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.gru import numpy_ as gru
from minirnn.kernels.latent import gain
from minirnn.kernels.lstm import numpy_ as lstm
from minirnn.ops.elementwise import Sigmoid, Softplus
from minirnn.tensor import Tensor

ARITHMETIC = {
    *(np.add, np.subtract, np.multiply, np.divide, np.power, np.square, np.negative, np.absolute, np.maximum, np.minimum),
    *(np.exp, np.log, np.log1p, np.sqrt, np.tanh),
}
MAKERS = ("empty", "zeros", "ones", "full", "eye", "empty_like", "zeros_like", "full_like", "ones_like", "concatenate", "where", "pad")
ELEMENTARY = ((lstm, "sigmoid"), (gru, "sigmoid"), (gain, "sigmoid"), (Sigmoid, "forward"), (Softplus, "forward"))


class Counting(np.ndarray):
    """`total` grows by 2 m n k in a product, by n in a sum or a maximum of n numbers, else by the numbers that come out."""

    total = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        plain = [_plain(x) for x in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        Counting.total += _operations(ufunc, method, plain, result)
        return out[0] if out is not None else _counts(result)


def _operations(ufunc: np.ufunc, method: str, inputs: list[Any], result: Any) -> int:
    if method == "at":
        return int(np.size(inputs[-1]))
    if np.asarray(result).dtype.kind != "f":
        return 0
    if ufunc is np.matmul:
        return 2 * int(np.size(result)) * int(inputs[0].shape[-1])
    return int(np.size(inputs[0] if method == "reduce" else result)) if ufunc in ARITHMETIC else 0


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Counting) else x


def _counts(x: Any) -> Any:
    return x.view(Counting) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def _as_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, an elementary function of each number of its last argument, counted as one operation, whatever it is made of."""

    def counted(*arguments: Any) -> Any:
        before = Counting.total
        result = f(*arguments)
        Counting.total = before + result.size
        return result

    return counted


@contextmanager
def counting() -> Iterator[None]:
    """Tensors count, and so do new arrays."""

    def and_counts(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: _counts(make(*args, **options))

    usual = Tensor.__init__

    def made(self: Tensor, data: Any, *args: Any, **options: Any) -> None:
        usual(self, _plain(data), *args, **options)
        self.data = _counts(self.data)

    with pytest.MonkeyPatch.context() as patch:
        for name in (*MAKERS, "ascontiguousarray", "asarray"):
            patch.setattr(np, name, and_counts(getattr(np, name)))
        for owner, name in ELEMENTARY:
            patch.setattr(owner, name, _as_one(getattr(owner, name)))
        patch.setattr(Tensor, "__init__", made)
        yield
