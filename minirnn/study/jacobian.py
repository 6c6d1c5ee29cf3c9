"""How far a recurrent layer carries gradients: the product of its step Jacobians, and what bounds it.

    found = mr.study.jacobian(layer, x, 0, 50)      # x (T, D)
    found.h                                         # dh_50/dh_0 (H, H)
    found.log_singular_values                       # of it
    found.log_norms                                 # ln |dh_t/dh_0| for t = 0 .. 50, and found.log_bound

A gradient that comes back from step `to` arrives at step `from` as dL/dh_from = (dh_to/dh_from)^T dL/dh_to, and dh_to/dh_from is the
product J_to ... J_{from+1} of the step Jacobians (`minirnn.study.steps` has their formulas and their bounds). Pascanu, Mikolov, Bengio
2013, "On the difficulty of training recurrent neural networks", sections 2.1 and 2.2: for an RNN, in spectral norms,

    |dh_to/dh_from| <= prod_t |diag(phi'_t)| |W| <= (|W| gamma)^(to-from),    gamma = max |phi'| = 1 for tanh and for a rectifier

which needs the weights alone (`log_bound`): where |W| < 1, gradients vanish whatever the input is. Nothing of the kind can be said of a
GRU or an LSTM, whose J can be the identity: u = 1 or f = 1. With the gates of the sequence that is looked at all three have a bound,
`log_gate_bound`; of the RNN it is the middle one. `python -m minirnn.study.vanishing` draws the three side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirnn.nn.recurrent import Cell, Layered
from minirnn.study.steps import Array, Steps, steps_of

LN2 = float(np.log(2.0))


@dataclass(frozen=True)
class Jacobian:
    """A product of step Jacobians of one sequence, dstate_to/dstate_from (S, S); S = H, of an LSTM 2H: h, then c.

    The product is 2^exponent times `scaled`, whose largest element lies in [1/2, 1), so that none is too long to be held. What is called
    log is a natural logarithm, -inf of zero.

    Args:
        cell: "rnn", "gru" or "lstm".
        from_t, to_t: steps of the input.
        scaled, exponent: the product, (S, S) and a power of 2.
        log_norms: (L+1,) of the spectral norm of dh_t/dh_from for each step t from `from_t` to `to_t`, L = |to_t - from_t|.
        log_bound: (L+1,) what they cannot exceed with these weights, on any input; None for GRU and LSTM: there is no such bound.
        log_gate_bound: (L+1,) what they cannot exceed with the gates of this sequence.
    """

    cell: str
    from_t: int
    to_t: int
    scaled: Array
    exponent: int
    log_norms: Array
    log_bound: Array | None
    log_gate_bound: Array

    @property
    def whole(self) -> Array:
        """dstate_to/dstate_from (S, S); inf or 0 where a float64 cannot hold a number."""
        with np.errstate(over="ignore"):
            return np.ldexp(self.scaled, self.exponent)

    @property
    def h(self) -> Array:
        """dh_to/dh_from (H, H), of an LSTM with all ways through c in it."""
        return _block(self.whole, self.cell, 0)

    @property
    def c(self) -> Array:
        """dc_to/dc_from (H, H) of an LSTM."""
        if self.cell != "lstm":
            raise AttributeError(f"Jacobian: only an LSTM has a c, this is of a layer of cell {self.cell!r}; .h is dh_to/dh_from")
        return _block(self.whole, self.cell, 1)

    @property
    def norms(self) -> Array:
        """(L+1,) spectral norms of dh_t/dh_from; inf or 0 where a float64 cannot hold them."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_norms)

    @property
    def log_singular_values(self) -> Array:
        """(H,) of dh_to/dh_from, the largest first. What is below H 2^-52 of the largest is rounding."""
        return _log(np.linalg.svd(_block(self.scaled, self.cell, 0), compute_uv=False)) + self.exponent * LN2

    @property
    def singular_values(self) -> Array:
        """(H,) of dh_to/dh_from, the largest first; inf or 0 where a float64 cannot hold them."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_singular_values)

    def __repr__(self) -> str:
        what = f"{self.cell}, dh_{self.to_t}/dh_{self.from_t}"
        return f"Jacobian({what}: ln norm {self.log_norms[-1]:.4g}, with these gates at most {self.log_gate_bound[-1]:.4g})"


@dataclass(frozen=True)
class Norms:
    """ln |dh_t/dh_from| against the distance t - from, of N sequences. The bounds are those of `Jacobian`.

    Args:
        cell: "rnn", "gru" or "lstm".
        distance: (L+1,) 0 .. L
        log_norms, log_gate_bound: (N, L+1)
        log_bound: (L+1,) or None
    """

    cell: str
    distance: np.ndarray[Any, np.dtype[np.int64]]
    log_norms: Array
    log_bound: Array | None
    log_gate_bound: Array


def jacobian(layer: Layered | Cell, x: Any, from_t: int, to_t: int, *, sequence: int = 0, part: str = "l0", state: Any = None) -> Jacobian:
    """dh_to/dh_from of a recurrent layer on a sequence, with its norm at every distance on the way. In float64, without dropout.

    Args:
        layer: nn.RNN, GRU or LSTM, or a cell, which takes one step after the other.
        x: its input (T, D), a Tensor or an array, or (T, N, D), also where the layer is batch_first.
        from_t, to_t: steps 0 .. T-1 of x: how the state after `to_t` moves if that after `from_t` is moved. from_t <= to_t, and in a
            reverse direction, which begins at the end, from_t >= to_t.
        sequence: which of N.
        part: layer and direction of a deep one: "l0", "l0_reverse", "l1", ... What the layers below it do is its input, and stays.
        state: what the layer starts from, as it takes it; zeros if None.

    Raises ValueError for a step, a sequence or a part that there is not, and for an x, a state or weights that are not finite.
    """
    steps = steps_of(layer, x, part, state)
    _check_index("jacobian: sequence must be one of x", sequence, steps.N)
    for name, t in (("from_t", from_t), ("to_t", to_t)):
        _check_index(f"jacobian: {name} must be a step of x", t, steps.T)
    first, last = (steps.T - 1 - from_t, steps.T - 1 - to_t) if steps.reverse else (from_t, to_t)
    if first > last:
        order = "from_t >= to_t, as the reverse direction begins at the end" if steps.reverse else "from_t <= to_t"
        raise ValueError(f"jacobian: needs {order}; got from_t={from_t}, to_t={to_t}")
    steps = steps.only(sequence)
    log_norms = np.zeros(last - first + 1)
    for k, (scaled, exponent) in enumerate(_products(steps.jacobian, steps.size, steps.N, first, last)):
        log_norms[k] = _log_norms(steps.cell, scaled, exponent)[0]
    bounds = _log_bound(steps, last - first), _log_gate_bounds(steps, first, last)[0]
    return Jacobian(steps.cell, from_t, to_t, scaled[0], int(exponent[0]), log_norms, *bounds)


def jacobian_norms(layers: Mapping[str, Layered | Cell], x: Any, *, from_t: int | None = None, part: str = "l0") -> dict[str, Norms]:
    """|dh_t/dh_from| against t - from, of several layers on the same sequences, to be shown side by side.

    Args:
        layers: by any names; see `jacobian` for them and for `part`.
        x: (T, D), or (T, N, D) for N sequences.
        from_t: the step of x whose state is moved; None for the one where the part begins, the last one in a reverse direction.
    """
    if not isinstance(layers, Mapping):
        raise TypeError(f"jacobian_norms: layers must be a dict of layers by any names, got {type(layers).__name__}")
    found = {}
    for name, layer in layers.items():
        steps = steps_of(layer, x, part)
        first, last = 0, steps.T - 1
        if from_t is not None:
            _check_index("jacobian_norms: from_t must be a step of x", from_t, steps.T)
            first = last - from_t if steps.reverse else from_t
        products = _products(steps.jacobian, steps.size, steps.N, first, last)
        logs = np.array([_log_norms(steps.cell, *product) for product in products]).T  # (N, L+1)
        bounds = _log_bound(steps, last - first), _log_gate_bounds(steps, first, last)
        found[name] = Norms(steps.cell, np.arange(last - first + 1), logs, *bounds)
    return found


def _products(factor: Any, size: int, N: int, first: int, last: int) -> Iterator[tuple[Array, Array]]:
    """factor(t) ... factor(first+1) for t = first .. last: (N, S, S) with largest elements in [1/2, 1), and exponents of 2 (N,).

    Powers of 2 change no digit, so that scaling costs no accuracy.
    """
    product, exponents = np.broadcast_to(np.eye(size), (N, size, size)), np.zeros(N, np.int64)
    for t in range(first, last + 1):
        product = product if t == first else factor(t) @ product
        _, shift = np.frexp(np.abs(product).max((1, 2)))
        product = np.ldexp(product, -shift[:, None, None])
        exponents = exponents + shift
        yield product, exponents


def _log_norms(cell: str, scaled: Array, exponents: Array) -> Array:
    """ln |dh/dh| (N,)"""
    return _log(np.linalg.norm(_block(scaled, cell, 0), 2, axis=(1, 2))) + exponents * LN2


def _log_bound(steps: Steps, L: int) -> Array | None:
    """(L+1,) ln (|W| gamma)^k of an RNN"""
    if steps.cell != "rnn":
        return None
    growth = _log(np.linalg.norm(steps.weights[0], 2))
    return np.array([k * growth if k else 0.0 for k in range(L + 1)])


def _log_gate_bounds(steps: Steps, first: int, last: int) -> Array:
    """(N, L+1)"""
    bounds = steps.bounds()  # (T, N, B, B)
    products = _products(bounds.__getitem__, bounds.shape[-1], steps.N, first, last)
    return np.array([_log(product[:, 0, 0]) + exponents * LN2 for product, exponents in products]).T


def _block(matrix: Array, cell: str, k: int) -> Array:
    """The block of h (0) or of c (1) of (..., S, S)."""
    H = matrix.shape[-1] // (2 if cell == "lstm" else 1)
    return np.asarray(matrix[..., k * H : (k + 1) * H, k * H : (k + 1) * H])


def _log(x: Any) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))


def _check_index(what: str, k: int, count: int) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 <= k < count:
        raise ValueError(f"{what}, 0 .. {count - 1}, got {k!r}")
