r"""
Back-propagation through time, by hand
======================================

A recurrent network unrolled over T steps is a network T layers deep whose layers share their weights. Its gradient is the chain rule, taken
from the last step to the first (Werbos 1990). Write :math:`dh_t`, :math:`dc_t` for the *whole* gradients of the states: all that the loss
reads from them, now or later. A step receives them from the step after, adds what the loss reads from it directly, and hands on

.. math::

    dc_{t-1} = f_t\, dc_t \qquad\qquad dh_{t-1} = dz_t W_{hh}

The first is the reason for the LSTM: no matrix stands in it, only the forget gate, so a gradient survives as long as the gate stays open.
The second has a matrix in it, and what a plain RNN does with that is the subject of the next chapter. Here is all of it in twenty lines of
NumPy, with the equation numbers of ``kernels/lstm/README.md``, which derives them.
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.training.pictures import COLORS, figure, save

# %%
# A batch, the weights of an LSTM, and a loss that reads two steps, the 12th and the 24th. The forget gates start open: their bias is 2.

T, N, D, H, READ = 24, 3, 4, 8, (11, 23)  # READ: what the loss looks at, steps counted from 0
rng = np.random.default_rng(0)
x, target = rng.standard_normal((T, N, D)), rng.standard_normal((N, H))
p = {"w_ih": rng.uniform(-1, 1, (4 * H, D)), "w_hh": rng.uniform(-1, 1, (4 * H, H)) / np.sqrt(H), "b": np.repeat([0.0, 2, 0, 0], H)}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def forward(w_ih, w_hh, b):
    h, c, gates = np.zeros((T + 1, N, H)), np.zeros((T + 1, N, H)), np.zeros((T, 4, N, H))  # h[0] and c[0] come before the first step
    for t in range(T):
        a = np.split(x[t] @ w_ih.T + b + h[t] @ w_hh.T, 4, axis=1)  # (1.1)
        gates[t] = i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])  # (1.2) to (1.5)
        c[t + 1] = f * c[t] + i * g  # (1.6)
        h[t + 1] = o * np.tanh(c[t + 1])  # (1.7)
    return h, c, gates


def loss(hs):
    return sum(((hs[t] - target) ** 2).sum() / 2 for t in READ)


# %%
# The way back. ``dh`` and ``dc`` are what stands at the end of (2.2) and (2.5), kept for every step so that they can be looked at.


def backward(h, c, gates, w_ih, w_hh, b):
    dh, dc, dz = np.zeros((T, N, H)), np.zeros((T, N, H)), np.zeros((T, N, 4 * H))
    dh_t, dc_t = np.zeros((N, H)), np.zeros((N, H))  # (2.1) nothing comes from beyond the end
    for t in reversed(range(T)):
        (i, f, g, o), tanh_c = gates[t], np.tanh(c[t + 1])
        dh[t] = dh_t + (h[t + 1] - target if t in READ else 0)  # (2.2); (2.3) adds nothing, the loss reads no cell
        dc[t] = dc_t + dh[t] * o * (1 - tanh_c**2)  # (2.5)
        da_o = dh[t] * tanh_c * o * (1 - o)  # (2.4)
        da_i = dc[t] * g * i * (1 - i)  # (2.6)
        da_f = dc[t] * c[t] * f * (1 - f)  # (2.7)
        da_g = dc[t] * i * (1 - g**2)  # (2.8)
        dz[t] = np.concatenate((da_i, da_f, da_g, da_o), axis=1)
        dc_t = dc[t] * f  # (2.9)
        dh_t = dz[t] @ w_hh  # (2.10)
    flat, before = dz.reshape(T * N, 4 * H), h[:-1].reshape(T * N, H)
    weights = {"w_ih": flat.T @ x.reshape(T * N, D), "w_hh": flat.T @ before, "b": flat.sum(0)}  # (2.11)
    return {**weights, "x": dz @ w_ih, "h": dh, "c": dc}


h, c, gates = forward(**p)
by_hand = backward(h, c, gates, **p)

# %%
# The engine, one fused LSTM over the whole sequence, must find the same; ``mr.study.trace()`` shows what it hands from step to step.

lstm = mr.nn.LSTM(D, H).to("float64")
lstm.load_state_dict({"weight_ih_l0": p["w_ih"], "weight_hh_l0": p["w_hh"], "bias_ih_l0": p["b"], "bias_hh_l0": 0 * p["b"]})
inputs = mr.tensor(x, dtype="float64", requires_grad=True)
with mr.study.trace() as trace:
    loss(lstm(inputs)[0]).backward()
leaves = {"w_ih": lstm.weight_ih_l0, "w_hh": lstm.weight_hh_l0, "b": lstm.bias_ih_l0, "x": inputs}
engine = {name: leaf.grad.numpy() for name, leaf in leaves.items()} | {"h": trace["l0"].dh, "c": trace["l0"].dc}
for name, grad in engine.items():
    apart = np.abs(by_hand[name] - grad).max() / np.abs(by_hand[name]).max()
    print(f"dL/d{name:<5} by hand and by the engine differ by {apart:.0e} of the largest element")
    assert apart < 1e-13

# %%
# Neither has to be believed: a derivative is a limit. Move all weights a little along a random direction v, there and back.

v, eps = {name: rng.standard_normal(w.shape) for name, w in p.items()}, 1e-6
ends = [loss(forward(**{name: p[name] + sign * eps * v[name] for name in p})[0][1:]) for sign in (1, -1)]
slope, expected = (ends[0] - ends[1]) / (2 * eps), sum((by_hand[name] * v[name]).sum() for name in p)
print(f"slope of the loss along a random direction: {slope:.8f} measured, {expected:.8f} by the gradient")
assert abs(slope - expected) < 1e-7 * abs(expected)

# %%
# The picture: the gradient's way through time, drawn as wide as it is large. The loss feeds it in at two steps; it runs to the past.

ribbons, units = (picture := figure(8, 5)).subplots(2, 1, sharex=True, height_ratios=[3, 2])
steps, largest = np.arange(1, T + 1), max(np.linalg.norm(by_hand[name], axis=(1, 2)).max() for name in "ch")
for y, name, color, state in ((1, "cell, $dc_t$", COLORS[0], "c"), (0, "output, $dh_t$", COLORS[1], "h")):
    half = 0.45 * np.linalg.norm(by_hand[state], axis=(1, 2)) / largest  # (T,)
    ribbons.bar(steps, 2 * half, 1, y - half, color=color, edgecolor=color)
    ribbons.text(0.4, y, name, color=color, ha="right", va="center")
for t in READ:
    ribbons.annotate("loss", (t + 1, -0.45), (t + 1, -0.85), ha="center", arrowprops={"arrowstyle": "-|>", "color": "0.3"})
ribbons.set(ylim=(-0.9, 1.5))
ribbons.axis("off")
first = by_hand["c"][:, 0].T  # (H, T) of the first sequence
units.imshow(first, cmap="RdBu_r", vmin=-np.abs(first).max(), vmax=np.abs(first).max(), aspect="auto", extent=(0.5, T + 0.5, H + 0.5, 0.5))
units.set(xlabel="time step", ylabel="unit of the cell", xlim=(0.5, T + 0.5))
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
