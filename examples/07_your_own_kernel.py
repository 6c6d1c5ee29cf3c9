r"""
A cell and a kernel of your own
===============================

The minimal gated unit (Zhou, Wu, Zhang and Zhou 2016) is an LSTM without all that can be left out: one gate, which forgets and writes at
the same time, and no cell beside the state. With an input projection :math:`z_t = W x_t + b`, made for all steps at once,

.. math::

    f_t = \sigma(z^f_t + U_f h_{t-1}) \qquad g_t = \tanh(z^g_t + U_g (f_t h_{t-1})) \qquad h_t = (1 - f_t)\, h_{t-1} + f_t\, g_t

It is not among the cells of this package, so here it is made twice: *unrolled*, out of operations that the engine has, which needs no
derivative by hand; and *fused*, one ``Function`` whose passes are loops over arrays, which saves all that the engine does around each small
operation, and costs a derivation (a prime marks the step before):

.. math::

    da^g = dh\, f (1 - g^2) \qquad da^f = [dh (g - h') + da^g U_g h'] f (1 - f) \qquad dh' = dh (1 - f) + da^g U_g f + da^f U_f
"""

import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn import ops
from minirnn.autograd import Function
from minirnn.bench.curves import label_ends
from minirnn.bench.timing import interleave, summary, turn
from minirnn.kernels.lstm.numpy_ import sigmoid
from minirnn.training.pictures import COLORS, figure, save

# %%
# Unrolled: T steps of primitive operations. z (T, N, 2H) has the gate's part first, u (2H, H) is U_f above U_g, and h_0 = 0.


def unrolled(z, u):
    u_f, u_g = ops.split(u, 2, 0)  # (H, H) each
    h, hs = mr.Tensor(np.zeros_like(z.data[0, :, : len(u_f)])), []
    for z_f, z_g in zip(*ops.split(z, 2), strict=True):  # (N, H) each
        f = ops.sigmoid(z_f + ops.linear(h, u_f))
        g = ops.tanh(z_g + ops.linear(f * h, u_g))
        h = h + f * (g - h)
        hs.append(h)
    return ops.stack(hs)  # (T, N, H)


# %%
# Fused. What the way back needs is kept on ``self``; gradients come and go as Tensors.


class MGU(Function):
    """f = sigmoid(z_f + h' U_f^T)   g = tanh(z_g + (f h') U_g^T)   h = (1 - f) h' + f g,   h' the state before"""

    def forward(self, z, u):
        T, N, H = len(z), z.shape[1], u.shape[1]
        self.h, self.f, self.g = np.zeros((T + 1, N, H), z.dtype), np.empty((T, N, H), z.dtype), np.empty((T, N, H), z.dtype)
        for t, h in enumerate(self.h[:-1]):
            self.f[t] = f = sigmoid(z[t, :, :H] + h @ u[:H].T)
            self.g[t] = g = np.tanh(z[t, :, H:] + (f * h) @ u[H:].T)
            self.h[t + 1] = h + f * (g - h)
        return self.h[1:]

    def backward(self, dh):
        (z, u), (T, N, H) = [t.data for t in self.inputs], self.f.shape
        dz, dh_t = np.empty_like(z), 0
        for t in reversed(range(T)):
            h, f, g, dh_t = self.h[t], self.f[t], self.g[t], dh_t + dh.data[t]
            dz[t, :, H:] = da_g = dh_t * f * (1 - g * g)
            dfh = da_g @ u[H:]
            dz[t, :, :H] = da_f = (dh_t * (g - h) + dfh * h) * f * (1 - f)
            dh_t = dh_t * (1 - f) + dfh * f + da_f @ u[:H]
        before, rows = self.h[:-1].reshape(T * N, H), dz.reshape(T * N, 2 * H)
        du = rows[:, :H].T @ before, rows[:, H:].T @ (self.f.reshape(T * N, H) * before)
        return mr.Tensor(dz), mr.Tensor(np.concatenate(du))


# %%
# Checked twice: against finite differences, and against the unrolled form, in float64 to rounding.

rng = np.random.default_rng(0)


def example(T, N, H, dtype):
    z, u = rng.standard_normal((T, N, 2 * H)), rng.standard_normal((2 * H, H)) / np.sqrt(H)
    return [mr.tensor(a, dtype=dtype, requires_grad=True) for a in (z, u)]


for sizes in ((1, 1, 1), (5, 3, 4), (9, 1, 7)):
    mr.study.gradcheck(MGU.apply, inputs := example(*sizes, "float64"))  # raises where a gradient is not the derivative
    results = [(y := form(*inputs), *mr.grad((y * y).sum(), inputs)) for form in (MGU.apply, unrolled)]
    apart = max(np.abs(a.numpy() - b.numpy()).max() for a, b in zip(*results, strict=True))
    print(f"(T, N, H) = {sizes}: the gradients are the derivatives; fused and unrolled differ by {apart:.0e}")
    assert apart < 1e-13

# %%
# Timed only now, forward and backward, in turns. Beside them the package's GRU: a gate more, the input projection too, a compiled kernel.
# (For a cell that the package has, ``minirnn compare`` and ``minirnn bench lstm --kernel`` take files such as ``examples/my_kernel.py``.)

lengths, gru = (8, 32, 128), mr.nn.GRU(128, 64, rng=0)
forms, times = {"unrolled": unrolled, "fused": MGU.apply, "GRU, compiled": lambda z, u: gru(z)[0]}, defaultdict(list)
for T in lengths:
    inputs = example(T, 16, 64, "float32")
    runs = {name: lambda form=form, inputs=inputs: form(*inputs).sum().backward() for name, form in forms.items()}
    for name, seconds in interleave({name: partial(turn, run) for name, run in runs.items()}, 3).items():
        times[name].append(1e3 * summary(seconds).least)  # of three: what else the machine does only adds
    print(f"T = {T:<3}  " + "   ".join(f"{name} {ms[-1]:6.2f} ms" for name, ms in times.items()))

axes = (picture := figure(7, 4)).subplots()
for name, color in zip(forms, COLORS, strict=False):
    axes.loglog(lengths, times[name], "o-", color=color)
axes.minorticks_off()
axes.set_yticks(ticks := (0.2, 0.5, 1, 2, 5, 10, 20, 50), ticks)
axes.set(xticks=lengths, xticklabels=lengths, xlabel="time steps T", ylabel="ms, forward and backward (N = 16, H = 64)")
label_ends(axes, [(lengths[-1], times[name][-1], name, color) for name, color in zip(forms, COLORS, strict=False)])
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
