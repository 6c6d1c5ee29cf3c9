r"""
Truncation, and what it costs
=============================

Back-propagation through time needs the whole sequence at once: its memory grows with the length, and all of it makes one update. Truncated
back-propagation cuts it: no gradient passes from step k to step k - 1, from 2k to 2k - 1, and so on. The state is carried on; only its
gradient stops. With an update after every chunk this is BPTT(h; h') of Williams and Peng (1990), ``minirnn train --bptt K1,K2``.

What is cut off is missing. The gradient :math:`g` is a sum over pairs of steps, of what the loss at one says to the weights at an earlier
one; the truncated :math:`g_k` leaves out the pairs with a cut between, and is a *biased* estimate of it:

.. math::

    \mathrm{cosine} = \frac{g_k \cdot g}{\|g_k\| \|g\|} \qquad\qquad \mathrm{ratio} = \frac{\|g_k\|}{\|g\|}
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.training.pictures import COLORS, figure, save

T, N, H = 100, 16, 16

# %%
# An LSTM learns to leak: what it must say decays by 5 % a step and takes up what it reads, so it depends on the last 20 steps or so.


class Leak(mr.nn.Module):
    def __init__(self):
        self.lstm, self.head = mr.nn.LSTM(1, H, rng=0), mr.nn.Linear(H, 1, rng=1)
        self.lstm.bias_ih_l0.data[H : 2 * H] = 1  # forget gates that start open: see the chapter before

    def loss(self, batch):
        x, y = batch  # (T, N, 1) each
        error = self.head(self.lstm(mr.Tensor(x))[0]) - mr.Tensor(y)
        return mr.ops.mean(error * error)


def batches(seed):
    rng = np.random.default_rng(seed)
    while True:
        x = rng.standard_normal((T, N, 1))
        y = np.empty_like(x)
        for t in range(T):
            y[t] = 0.95 * (y[t - 1] if t else 0) + 0.3 * x[t]
        yield x.astype(np.float32), y.astype(np.float32)


# %%
# By hand: chunk after chunk, each from the *detached* state of the one before. ``with mr.study.truncated(k)`` does this inside the layers
# of any model, on the fused kernels; the two must agree.

K, model, example = 8, Leak(), next(batches(1))
x, y = example
parameters, total, state = list(model.parameters()), 0, None
for begin in range(0, T, K):
    states, state = model.lstm(mr.Tensor(x[begin : begin + K]), state)
    state = tuple(part.detach() for part in state)  # the cut
    error = model.head(states) - mr.Tensor(y[begin : begin + K])
    total = total + (error * error).sum() / y.size
by_hand = mr.grad(total, parameters)
with mr.study.truncated(K):
    found = mr.grad(model.loss(example), parameters)
apart = max(np.abs(a.numpy() - b.numpy()).max() / np.abs(a.numpy()).max() for a, b in zip(by_hand, found, strict=True))
print(f"a gradient cut every {K} steps, by hand and by mr.study.truncated: {apart:.0e} of the largest element apart")
assert apart < 1e-4

# %%
# Training with the gradient cut every k steps; k = T cuts nothing. Everything else is the same, the batches too.


def train(k, updates=150):
    model, source, losses = Leak(), batches(2), []
    optimizer = mr.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(updates):
        with mr.study.truncated(k):
            loss = model.loss(next(source))
        loss.backward()
        mr.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


runs = {k: train(k) for k in (1, 4, T)}
print("\nerror over the last 20 updates: " + ", ".join(f"k = {k}: {np.mean(losses[-20:]):.4f}" for k, (_, losses) in runs.items()))

# %%
# The bias, before and after. A network that knows nothing is told the same by near and far steps. What is left to learn later is what only
# the far ones say, and there the truncated gradient points elsewhere. For all parameters, and for the recurrent weights alone:

KS = [1, 2, 4, 8, 16, 32, 64, T]
bias = {"at first": mr.study.truncation(Leak(), example, KS), "trained": mr.study.truncation(runs[T][0], example, KS)}
for name, found in bias.items():
    recurrent = found.parameters["lstm.weight_hh_l0"].cosine
    print(f"\n{name:10}  k " + "".join(f"{k:7}" for k in KS))
    for what, row in (("cosine", found.cosine), ("ratio", found.ratio), ("of w_hh", recurrent)):
        print(f"  {what:>10}" + "".join(f"{value:7.3f}" for value in row))
    assert found.cosine[-1] == found.ratio[-1] == 1  # exactly: nothing is cut
assert bias["trained"].cosine[0] < bias["at first"].cosine[0]

# %%
# The picture.

left, middle, right = (picture := figure(11, 3.8)).subplots(1, 3)
for color, (name, found) in zip(COLORS, bias.items(), strict=False):
    left.plot(KS, found.cosine, "o-", color=color, label=name, markersize=4)
    middle.plot(KS, found.ratio, "o-", color=color, label=name, markersize=4)
for color, (k, (_, losses)) in zip(COLORS[2:], runs.items(), strict=False):
    right.semilogy(np.convolve(losses, np.ones(10) / 10, "valid"), color=color, label=f"k = {k}" + ", nothing cut" * (k == T))
for axes, title in ((left, "cosine with the whole gradient"), (middle, "length over that of the whole one")):
    axes.set(title=title, xlabel="k, steps between two cuts", xscale="log", ylim=(0, 1.05))
right.set(title="training, cut every k steps", xlabel="updates", ylabel="squared error")
_ = [axes.legend(fontsize=8) for axes in (left, middle, right)]
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
