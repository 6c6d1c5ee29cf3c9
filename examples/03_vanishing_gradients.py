r"""
Why gradients vanish
====================

The gradient of a loss at step T reaches the state at step t through every step between them. Each multiplies it by the Jacobian of one
step, so what arrives has passed a *product* of Jacobians. For a plain RNN, :math:`h_t = \tanh(W_{ih} x_t + W_{hh} h_{t-1} + b)`,

.. math::

    \frac{\partial h_T}{\partial h_t} = \prod_{s=t+1}^{T} \mathrm{diag}(1 - h_s^2)\, W_{hh} \qquad\qquad
    \left\|\frac{\partial h_T}{\partial h_t}\right\| \le (\|W_{hh}\|\, \gamma)^{T-t}, \quad \gamma = \max |\tanh'| = 1

(Pascanu, Mikolov and Bengio 2013, sections 2.1 and 2.2). Below 1 the bound goes to zero exponentially, and the gradient with it, whatever
the input is. Above 1 it allows an explosion, and promises none. Gates change this: what an LSTM's cell hands on directly is multiplied by
its forget gate, and a gate can stay open.
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.training.pictures import COLORS, figure, save

H, D, T = 32, 4, 100
x, LN10 = 0.5 * np.random.default_rng(0).standard_normal((T + 1, 8, D)), np.log(10)  # 8 sequences

# %%
# The product by hand, for an RNN and one sequence; and what ``mr.study.jacobian`` says, which has the formulas of all cells.

rnn = mr.nn.RNN(D, H, rng=0).to("float64")
W, h, product = rnn.weight_hh_l0.numpy(), rnn(mr.Tensor(x[:, 0]))[0].numpy(), np.eye(H)
for t in range(1, T + 1):
    product = (1 - h[t] ** 2)[:, None] * W @ product
found = mr.study.jacobian(rnn, x[:, 0], 0, T)
apart = np.abs(found.h - product).max() / np.abs(product).max()
print(f"the product of {T} step Jacobians, by hand and by mr.study.jacobian: {apart:.0e} of the largest element apart")
assert apart < 1e-9
print(f"no gradient that passes it is longer afterwards than 10^{found.log_singular_values[0] / LN10:.1f} of what it was")

# %%
# The size of the weights decides. Orthogonal matrices times a gain: all singular values of W are the gain, and the bound is gain^k.


def scaled(gain):
    layer = mr.nn.RNN(D, H, rng=0)
    mr.nn.init.orthogonal_(layer.weight_hh_l0, gain, rng=0)
    return layer


gains = mr.study.jacobian_norms({f"|W| = {gain}": scaled(gain) for gain in (0.5, 1.0, 2.0)}, x)
print(f"\nRNN: log10 |dh_{T}/dh_0|, the largest of {x.shape[1]} sequences, and its bound")
for name, norms in gains.items():
    print(f"  {name}   {norms.log_norms[:, -1].max() / LN10:6.1f}   {norms.log_bound[-1] / LN10:6.1f}")
    assert (norms.log_norms <= norms.log_bound + 1e-9).all()

# %%
# Cells as they come, and LSTMs whose forget gates start open: a bias b_f makes f about sigmoid(b_f), and c hands on f^k of a gradient over
# k steps. At b_f = 3 that is 0.953^100 = 0.008; at b_f = 0 it is 0.5^100 = 10^-30.


def lstm(b_f, features=D, hidden=H):
    layer = mr.nn.LSTM(features, hidden, rng=0)
    layer.bias_ih_l0.data[hidden : 2 * hidden] = b_f
    layer.bias_hh_l0.data[hidden : 2 * hidden] = 0
    return layer


cells = {"RNN": mr.nn.RNN(D, H, rng=0), "GRU": mr.nn.GRU(D, H, rng=0), **{f"LSTM, $b_f$ = {b}": lstm(b) for b in (0, 1, 3)}}
cells = mr.study.jacobian_norms(cells, x)
print(f"\nlog10 |dh_{T}/dh_0|, median")
for name, norms in cells.items():
    print(f"  {name.replace('$', ''):14}   {np.median(norms.log_norms[:, -1]) / LN10:6.1f}")
carried = [np.median(norms.log_norms[:, -1]) for norms in cells.values()][2:]
assert carried == sorted(carried)  # the further open the gates, the more arrives

# %%
# Does it matter? A network reads a bit at the first step, then noise for 59 steps, and must say the bit: only the gradient that comes back
# over them can teach it. One seed is shown. An open gate is needed and not enough: with lr = 0.02 this network learns nothing either.


def learn(b_f, steps=60, count=64, updates=70):
    rng, layer, head, losses = np.random.default_rng(0), lstm(b_f, 2, 24), mr.nn.Linear(24, 1, rng=1), []
    optimizer = mr.optim.Adam(parameters := [*layer.parameters(), *head.parameters()], lr=0.003)
    for _ in range(updates):
        bit, series = rng.choice([-1.0, 1.0], count), np.zeros((steps, count, 2))
        series[0, :, 0], series[:, :, 1] = bit, 0.3 * rng.standard_normal((steps, count))
        states, _ = layer(mr.tensor(series, dtype="float32"))
        error = head(states[-1])[:, 0] - mr.tensor(bit, dtype="float32")
        loss = mr.ops.mean(error * error)
        loss.backward()
        mr.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


learnt = {b: learn(b) for b in (0, 3)}
print("\nthe bit of 59 steps ago, squared error after 70 updates: " + ", ".join(f"b_f = {b}: {y[-1]:.2f}" for b, y in learnt.items()))
assert learnt[3][-1] < 0.5 < learnt[0][-1]

# %%
# The picture. Left: RNNs under their bounds (dashed). Middle: three cells, and the forget gate. Right: what can be learnt.

left, middle, right = (picture := figure(11, 4)).subplots(1, 3)
for axes, rows in ((left, gains), (middle, cells)):
    for color, (name, norms) in zip(COLORS, rows.items(), strict=False):
        axes.plot(norms.distance, np.median(norms.log_norms, 0) / LN10, color=color, label=name)
        if axes is left:
            axes.plot(norms.distance, norms.log_bound / LN10, "--", color=color, lw=1)
    axes.set(xlabel="steps between", ylabel=r"$\log_{10} \|\partial h_t / \partial h_0\|$", ylim=(-32, 12 if axes is left else 2))
    axes.set_title("RNN" if axes is left else "cells as they come, and forget gates")
for color, (b, losses) in zip(COLORS[2::2], learnt.items(), strict=True):
    right.plot(losses, color=color, label=f"LSTM, $b_f$ = {b}")
right.set(title="the bit of 59 steps ago", xlabel="updates", ylabel="squared error", ylim=(0, None))
_ = [axes.legend(fontsize=8) for axes in (left, middle, right)]
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
