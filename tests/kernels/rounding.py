"""What 16-bit kernels may be off by: numbers that carry a bound of their error, and the recurrences in such numbers.

A kernel stores rounded numbers and computes in float32 with what it has stored. So each of its numbers is checked against what follows, in
float64, from those that it stored itself one step earlier: no error of an earlier step is left to grow, and all that a number may be off by
is one rounding of the storage and what float32 does to one step's sums. Carries that the kernel keeps in float32 are followed with
their bounds over all steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels.packed import last_rows, previous, starts

from .problems import Array, Problem

SINGLE = 2.0**-24  # unit roundoff of float32
TANH = 4 * SINGLE  # tanhf is off by at most 2 units in the last place (CUDA C++ Programming Guide, mathematical functions)
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # of the storage
LEAST = {"float16": 2.0**-25, "bfloat16": 2.0**-134}  # half the distance of the smallest numbers: below it rounding is absolute


class Bounded:
    """float64 values, and how far from them what a kernel has in float32 can be: first order in SINGLE, every sum in any order."""

    __array_ufunc__ = None  # NumPy leaves `array * bounded` to this class

    def __init__(self, value: Array, error: Any = 0.0) -> None:
        self.value, self.error = value, np.broadcast_to(error, value.shape)

    def __getitem__(self, at: Any) -> Bounded:
        return Bounded(self.value[at], self.error[at])

    def _rounded(self, value: Array, error: Array) -> Bounded:
        return Bounded(value, error + SINGLE * np.abs(value))

    def __add__(self, other: Any) -> Bounded:
        other = _bounded(other)
        return self._rounded(self.value + other.value, self.error + other.error)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error)

    def __sub__(self, other: Any) -> Bounded:
        return self + -_bounded(other)

    def __rsub__(self, other: Any) -> Bounded:
        return -self + other

    def __mul__(self, other: Any) -> Bounded:
        other = _bounded(other)
        error = np.abs(self.value) * other.error + np.abs(other.value) * self.error + self.error * other.error
        return self._rounded(self.value * other.value, error)

    __radd__, __rmul__ = __add__, __mul__

    def tanh(self) -> Bounded:
        value = np.tanh(self.value)
        return Bounded(value, self.error + TANH * np.abs(value))

    def sigmoid(self) -> Bounded:
        return 0.5 * (0.5 * self).tanh() + 0.5

    def relu(self) -> Bounded:
        return Bounded(np.maximum(self.value, 0), self.error)

    def stored(self, dtype: str) -> Bounded:
        """After one rounding to the storage."""
        return Bounded(self.value, self.error + np.maximum(UNIT[dtype] * (np.abs(self.value) + self.error), LEAST[dtype]))

    def check(self, name: str, actual: Array) -> None:
        assert actual.shape == self.value.shape, name
        excess = np.abs(actual.astype(np.float64) - self.value) / np.maximum(self.error, 1e-300)
        assert np.all(excess <= 1), f"{name} is off by {excess.max():.3g} times what rounding can do"


def _bounded(x: Any) -> Bounded:
    return x if isinstance(x, Bounded) else Bounded(np.asarray(x, np.float64))


def product(a: Any, b: Array) -> Bounded:
    """a @ b of stored numbers. Tensor cores may cut a partial sum off where others round it, which costs twice as much."""
    a = _bounded(a)
    return Bounded(a.value @ b, a.error @ np.abs(b) + 2 * a.value.shape[-1] * SINGLE * (np.abs(a.value) @ np.abs(b)))


def followed_by(bounded: Bounded, others: Bounded) -> Bounded:
    """These rows, and the rows of `others` below them."""
    n = len(bounded.value)
    return Bounded(np.concatenate((bounded.value, others.value[n:])), np.concatenate((bounded.error, others.error[n:])))


class Run:
    """A problem in float64, and what a kernel made of it; `product` is that of the form, step by step or persistent."""

    def __init__(self, tape: Any, problem: Problem, dtype: str, form: str) -> None:
        self.dtype, self.form, self.batch_sizes = dtype, form, problem.batch_sizes
        arrays = {**problem.inputs, **{f"d{name}": gradient for name, gradient in problem.cotangents.items()}}
        self.given = {name: array.astype(np.float64) for name, array in arrays.items()}
        self.tape = tape._replace(**{name: a.astype(np.float64) for name, a in tape._asdict().items() if isinstance(a, np.ndarray)})
        self.first = starts(problem.batch_sizes)
        self.steps = [(t, slice(self.first[t], self.first[t + 1]), int(n)) for t, n in enumerate(problem.batch_sizes)]

    def product(self, a: Any, b: Array) -> Bounded:
        """In the step form the library rounds it to the storage."""
        return product(a, b).stored(self.dtype) if self.form == "step" else product(a, b)

    def before(self, state: Array, state0: Array) -> Array:
        return previous(state, state0, self.batch_sizes)

    def after(self, t: int) -> slice:
        """The rows of step t + 1; none after the last."""
        return self.steps[t + 1][1] if t + 1 < len(self.steps) else slice(0, 0)

    def check(self, name: str, bounded: Bounded, actual: Array) -> None:
        bounded.stored(self.dtype).check(name, actual)

    def last(self, state: Array) -> Array:
        return state[last_rows(self.batch_sizes)]


def columns(x: Any, gates: int) -> list[Any]:
    """Of each gate."""
    H = (x.value if isinstance(x, Bounded) else x).shape[1] // gates
    return [x[:, k * H : (k + 1) * H] for k in range(gates)]


def lstm_forward(tape: Any, problem: Problem, dtype: str, form: str) -> None:
    run = Run(tape, problem, dtype, form)
    tape, z, w_hh = run.tape, run.given["z"], run.given["w_hh"]
    h_before, c = run.before(tape.h, run.given["h0"]), _bounded(run.given["c0"])
    for _, rows, n in run.steps:
        a = columns(run.product(h_before[rows], w_hh.T) + z[rows], 4)
        i, f, g, o = a[0].sigmoid(), a[1].sigmoid(), a[2].tanh(), a[3].sigmoid()
        c_t = f * c[:n] + i * g
        for name, gate, actual in zip("ifgo", (i, f, g, o), columns(tape.gates[rows], 4), strict=True):
            run.check(name, gate, actual)
        run.check("c", c_t, tape.c[rows])
        run.check("h", o * c_t.tanh(), tape.h[rows])
        c = followed_by(c_t, c)
    run.check("c_n", c, tape.c_n)
    np.testing.assert_array_equal(tape.h_n, run.last(tape.h))


def lstm_backward(tape: Any, grads: Any, problem: Problem, dtype: str, form: str) -> None:
    run = Run(tape, problem, dtype, form)
    tape, w_hh, dz = run.tape, run.given["w_hh"], grads.dz.astype(np.float64)
    c_before, dc = run.before(tape.c, tape.c0), _bounded(run.given["dc_n"])
    for t, rows, n in reversed(run.steps):
        i, f, g, o = map(_bounded, columns(tape.gates[rows], 4))
        dh_t = followed_by(run.product(dz[run.after(t)], w_hh), _bounded(run.given["dh_n"]))[:n] + run.given["dh"][rows]
        dc_t = dc[:n] + run.given["dc"][rows]
        tanh_c = _bounded(tape.c[rows]).tanh()
        da_o = dh_t * tanh_c * o * (1 - o)
        dc_t = dc_t + dh_t * o * (1 - tanh_c * tanh_c)
        da_i = dc_t * g * i * (1 - i)
        da_f = dc_t * c_before[rows] * f * (1 - f)
        da_g = dc_t * i * (1 - g * g)
        for name, da, actual in zip("ifgo", (da_i, da_f, da_g, da_o), columns(dz[rows], 4), strict=True):
            run.check(f"da_{name}", da, actual)
        dc = followed_by(dc_t * f, dc)
    run.check("dh0", run.product(dz[run.steps[0][1]], w_hh), grads.dh0)
    run.check("dc0", dc, grads.dc0)
    run.check("dw_hh", product(dz.T, run.before(tape.h, tape.h0)), grads.dw_hh)


def gru_forward(tape: Any, problem: Problem, dtype: str, form: str) -> None:
    run = Run(tape, problem, dtype, form)
    tape, w_hh, b_hn = run.tape, run.given["w_hh"], run.given["b_hn"]
    h_before, h = run.before(tape.h, run.given["h0"]), _bounded(run.given["h0"])
    for _, rows, n_t in run.steps:
        a_r, a_u, a_n = columns(run.product(h_before[rows], w_hh.T), 3)
        z_r, z_u, z_n = columns(run.given["z"][rows], 3)
        r, u, hn = (a_r + z_r).sigmoid(), (a_u + z_u).sigmoid(), a_n + b_hn
        n = (r * hn + z_n).tanh()
        h_t = n + u * (h[:n_t] - n)
        for name, gate, actual in zip("run", (r, u, n), columns(tape.gates[rows], 3), strict=True):
            run.check(name, gate, actual)
        run.check("hn", hn, tape.hn[rows])
        run.check("h", h_t, tape.h[rows])
        h = followed_by(h_t, h)
    run.check("h_n", h, tape.h_n)


def gru_backward(tape: Any, grads: Any, problem: Problem, dtype: str, form: str) -> None:
    """da is not returned: of its n gate, dz_n r, it is known that both factors were rounded to storage no more than once."""
    run = Run(tape, problem, dtype, form)
    tape, w_hh, dz = run.tape, run.given["w_hh"], grads.dz.astype(np.float64)
    h_before, dh = run.before(tape.h, tape.h0), _bounded(run.given["dh_n"])
    dz_r, dz_u, dz_n = columns(dz, 3)
    da_n = (_bounded(dz_n).stored(dtype) * columns(tape.gates, 3)[0]).stored(dtype)
    exact = np.zeros_like(dz_r)
    da = Bounded(np.concatenate((dz_r, dz_u, da_n.value), 1), np.concatenate((exact, exact, da_n.error), 1))
    for t, rows, n_t in reversed(run.steps):
        r, u, n = map(_bounded, columns(tape.gates[rows], 3))
        begun = run.product(da[run.after(t)], w_hh)
        whole = followed_by(dh[: len(begun.value)] + begun, dh)[:n_t] + run.given["dh"][rows]
        expected_n = whole * (1 - u) * (1 - n * n)
        expected_u = whole * (h_before[rows] - n) * u * (1 - u)
        expected_r = expected_n * tape.hn[rows] * r * (1 - r)
        for name, expected, actual in zip("run", (expected_r, expected_u, expected_n), columns(dz[rows], 3), strict=True):
            run.check(f"dz_{name}", expected, actual)
        dh = followed_by(whole * u, dh)
    run.check("dh0", dh + run.product(da[run.steps[0][1]], w_hh), grads.dh0)
    run.check("dw_hh", product(Bounded(da.value.T, da.error.T), h_before), grads.dw_hh)
    run.check("db_hn", product(Bounded(da_n.value.T, da_n.error.T), np.ones((len(dz), 1)))[:, 0], grads.db_hn)


def rnn_forward(tape: Any, problem: Problem, dtype: str, form: str) -> None:
    run = Run(tape, problem, dtype, form)
    h_before = run.before(run.tape.h, run.given["h0"])
    for _, rows, _ in run.steps:
        a = run.product(h_before[rows], run.given["w_hh"].T) + run.given["z"][rows]
        run.check("h", a.tanh() if tape.nonlinearity == "tanh" else a.relu(), run.tape.h[rows])
    np.testing.assert_array_equal(run.tape.h_n, run.last(run.tape.h))


def rnn_backward(tape: Any, grads: Any, problem: Problem, dtype: str, form: str) -> None:
    run = Run(tape, problem, dtype, form)
    w_hh, dz = run.given["w_hh"], grads.dz.astype(np.float64)
    for t, rows, n in reversed(run.steps):
        h = run.tape.h[rows]
        dh_t = followed_by(run.product(dz[run.after(t)], w_hh), _bounded(run.given["dh_n"]))[:n] + run.given["dh"][rows]
        slope = 1 - _bounded(h) * h if tape.nonlinearity == "tanh" else (h > 0).astype(np.float64)
        run.check("dz", dh_t * slope, dz[rows])
    run.check("dh0", run.product(dz[run.steps[0][1]], w_hh), grads.dh0)
    run.check("dw_hh", product(dz.T, run.before(run.tape.h, run.tape.h0)), grads.dw_hh)


FORWARD = {"lstm": lstm_forward, "gru": gru_forward, "rnn": rnn_forward, "rnn, relu": rnn_forward}
BACKWARD = {"lstm": lstm_backward, "gru": gru_backward, "rnn": rnn_backward, "rnn, relu": rnn_backward}
