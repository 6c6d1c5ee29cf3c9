"""Recurrences that draw as they go, each one operation over all steps, and the same in primitive operations (see `minirnn.kernels.latent`).

Both give z and the parameters of prior and posterior that it was drawn from: z, mu, ln sigma of p, mu, ln sigma of q, (S, Z) each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minirnn.device import Array, array_module, beside
from minirnn.kernels import flops
from minirnn.ops.elementwise import exp, sigmoid, softplus, tanh
from minirnn.ops.linalg import linear
from minirnn.ops.recurrence import Recurrence, _first, _steps
from minirnn.ops.shape import concatenate, split
from minirnn.recorder import Call, recorder
from minirnn.tensor import Tensor


def gain_unrolled(
    hint: Tensor,
    w_hh: Tensor,
    w_ih: Tensor,
    b: Tensor,
    w_prior: Tensor,
    b_prior: Tensor,
    w_combine: Tensor,
    w_posterior: Tensor,
    b_posterior: Tensor,
    z0: Tensor,
    noise: Array,
    batch_sizes: Array,
) -> tuple[Tensor, ...]:
    """`gain` one step at a time."""
    z, h = z0, Tensor(array_module(z0.data).zeros((len(z0), w_hh.shape[1]), z0.dtype))  # (N, Z), (N, H)
    c, steps, start = h, [], 0
    for _, n, hint_t in _steps(hint, batch_sizes):
        z = _first(z, n)
        i, f, g, o = split(linear(z, w_ih, b) + linear(_first(h, n), w_hh), 4)  # (n, H) each
        c = sigmoid(f) * _first(c, n) + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        mu, ls = split(linear(h, w_prior, b_prior), 2)  # (n, Z) each
        u = tanh(hint_t + linear(concatenate([h, z], 1), w_combine))  # (n, C)
        e, s = split(linear(u, w_posterior, b_posterior), 2)
        mq, lq = sigmoid(-s) * mu + e, ls - softplus(s) * 0.5
        z = mq + exp(lq) * noise[start : start + n]
        steps.append((z, mu, ls, mq, lq))
        start += n
    return tuple(concatenate(rows) for rows in zip(*steps, strict=True))


def residual_unrolled(
    past: Tensor,
    hint: Tensor,
    w_past: Tensor,
    w_hint: Tensor,
    w_prior: Tensor,
    b_prior: Tensor,
    w_posterior: Tensor,
    b_posterior: Tensor,
    z0: Tensor,
    noise: Array,
    batch_sizes: Array,
) -> tuple[Tensor, ...]:
    """`residual` one step at a time."""
    z, steps, start = z0, [], 0
    for _, n, both in _steps(concatenate([past, hint], 1), batch_sizes):
        z = _first(z, n)
        past_t, hint_t = split(both, 2)  # (n, C) each
        mu, ls = split(linear(tanh(past_t + linear(z, w_past)), w_prior, b_prior), 2)  # (n, Z) each
        r, lq = split(linear(tanh(hint_t + linear(z, w_hint)), w_posterior, b_posterior), 2)
        mq = mu + r
        z = mq + exp(lq) * noise[start : start + n]
        steps.append((z, mu, ls, mq, lq))
        start += n
    return tuple(concatenate(rows) for rows in zip(*steps, strict=True))


class Latent(Recurrence):
    """A recurrence that draws z from given noise."""

    noise: Array

    def options(self) -> dict[str, Any]:
        return {"noise": self.noise, "batch_sizes": self.batch_sizes}

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        self.tape = self.kernel.forward(*map(self.xp.ascontiguousarray, arrays), **self.options())
        outputs: tuple[Array, ...] = self.tape.outputs
        return outputs

    def sizes(self) -> dict[str, int]:
        """S rows, Z latent, C units of the hint."""
        return {"S": len(self.inputs[0]), "Z": self.inputs[-1].shape[1], "C": self.inputs[0].shape[1]}


class Gain(Latent):
    """z_t ~ q = N((1 - k) mu + e, (1 - k) sigma^2), mu and sigma from an LSTM over z_<t, e and k from a hint, h_t and z_{t-1}"""

    unrolled = staticmethod(gain_unrolled)
    call: Call | None = None  # where a trace is kept of its LSTM

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        outputs = super().forward(*arrays)
        if (by := recorder()) is not None:
            tape, w_hh, w_ih = self.tape, *arrays[1:3]
            (_, H), Z = w_hh.shape, w_ih.shape[1]
            i, f, g, _ = (tape.gates[:, k * H : (k + 1) * H] for k in range(4))  # (S, H) each
            first = [self.xp.zeros((int(self.batch_sizes[0]), H), w_hh.dtype)] * 2
            self.call = by.call("lstm", self.place, self.batch_sizes, tape.zh[:, :Z], w_ih, first, {})
            self.call.gates = [tape.gates]
            self.call.states = tape.hz[:, :H], f * tape.c_before + i * g
        return outputs

    def differentiate(self, arrays: Sequence[Array], grads: Sequence[Array | None]) -> Sequence[Array | None]:
        call = None if self.call is None else self.call.differentiated()
        taps = {} if call is None else {"out": call.dz, "taps": call.taps}
        return tuple(self.kernel.backward(self.tape, self.xp.ascontiguousarray(arrays[1]), *grads, **taps))

    def flops(self) -> int:
        return flops.gain(**self.sizes(), H=self.inputs[1].shape[1])

    def differentiation_flops(self, asked: Sequence[bool]) -> int:
        return flops.gain_gradient(**self.sizes(), H=self.inputs[1].shape[1])


class Residual(Latent):
    """z_t ~ q = N(mu + r, s^2), mu and sigma from the past and z_{t-1}, r and s from a hint and z_{t-1}"""

    unrolled = staticmethod(residual_unrolled)

    def flops(self) -> int:
        return flops.residual(**self.sizes())

    def differentiation_flops(self, asked: Sequence[bool]) -> int:
        return flops.residual_gradient(**self.sizes())


def latent_gain(*inputs: Any, noise: Array, batch_sizes: Array) -> tuple[Tensor, ...]:
    """z, prior, posterior of `minirnn.kernels.latent.gain`, whose `forward` has the inputs in this order."""
    from minirnn.kernels.latent import gain  # kernels load when they are first used

    return Gain.apply_all(*inputs, kernel=gain, noise=beside(noise, inputs[0].data), batch_sizes=batch_sizes)


def latent_residual(*inputs: Any, noise: Array, batch_sizes: Array) -> tuple[Tensor, ...]:
    """z, prior, posterior of `minirnn.kernels.latent.residual`, whose `forward` has the inputs in this order."""
    from minirnn.kernels.latent import residual  # kernels load when they are first used

    return Residual.apply_all(*inputs, kernel=residual, noise=beside(noise, inputs[0].data), batch_sizes=batch_sizes)
