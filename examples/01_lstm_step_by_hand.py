r"""
An LSTM step by hand
====================

A plain recurrent network rewrites its whole state at every step. An LSTM has a second state, the cell :math:`c`, that is *kept* unless
a gate says otherwise (Hochreiter and Schmidhuber 1997; the forget gate is of Gers, Schmidhuber and Cummins 2000):

.. math::

    a_t = W_{ih} x_t + W_{hh} h_{t-1} + b \qquad i, f, o = \sigma(a^i, a^f, a^o) \qquad g = \tanh(a^g)

    c_t = f\, c_{t-1} + i\, g \qquad h_t = o \tanh(c_t)

The input gate i says how much of the candidate g is written, the forget gate f how much of the old cell is kept, the output gate o how much
of the cell is shown. Here is one cell whose weights are chosen by hand, not learnt, so that it does what these names say: a memory for one
number. Its input has three parts: a value, a wish to write, and a wish to read. The derivation is in ``kernels/lstm/README.md``.
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.training.pictures import COLORS, figure, save

# %%
# The weights, one row for each gate. "Write" opens the input gate and closes the forget gate; "read" opens the output gate; the value
# goes to the candidate alone, and so does what was shown one step before.

w_ih = np.array([[0.0, 8, 0], [0, -8, 0], [1, 0, 0], [0, 0, 8]])  # (4H, D), H = 1 unit, D = 3: value, write, read
w_hh = np.array([[0.0], [0], [1], [0]])  # (4H, H)
b = np.array([-4.0, 4, 0, -4])  # (4H,)

# %%
# One step. (1.1) to (1.7) are its equations' numbers in the derivation, and in every kernel of the package.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step(x, h, c):
    a = w_ih @ x + w_hh @ h + b  # (4H,) (1.1)
    i, f, g, o = sigmoid(a[0:1]), sigmoid(a[1:2]), np.tanh(a[2:3]), sigmoid(a[3:4])  # (1.2) to (1.5)
    c = f * c + i * g  # (1.6)
    return (i, f, g, o), o * np.tanh(c), c  # (1.7)


# %%
# Five steps: write 1; ignore 0.3; read, while a value nobody asked for passes by; write -0.8 and read; read again.

xs = np.array([[1.0, 1, 0], [0.3, 0, 0], [-0.6, 0, 1], [-0.8, 1, 1], [0.0, 0, 1]])  # (T, D)
h, c = np.zeros(1), np.zeros(1)
rows = []
print("t  value write read |     i      f      g      o |      c      h")
for t, x in enumerate(xs, 1):
    h_before, c_before = h[0], c[0]
    gates, h, c = step(x, h, c)
    rows.append([h_before, c_before, *np.ravel(gates), c[0], h[0]])
    print("{}   {:4.1f}    {:.0f}    {:.0f}  | {:6.3f} {:6.3f} {:6.3f} {:6.3f} | {:6.3f} {:6.3f}".format(t, *x, *rows[-1][2:]))

# %%
# The engine must agree. ``mr.nn.LSTMCell`` has PyTorch's names and gate order, and two biases, whose sum counts.

cell = mr.nn.LSTMCell(3, 1).to("float64")
cell.load_state_dict({"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b, "bias_hh": 0 * b})
state, apart = None, []
for x, row in zip(xs, rows, strict=True):
    state = cell(mr.tensor(x, dtype="float64"), state)  # h, c (H,) each
    apart += [abs(state[0].item() - row[7]), abs(state[1].item() - row[6])]
print(f"\nlargest difference to mr.nn.LSTMCell: {max(apart):.1e}")
assert max(apart) < 1e-14
print(f"written at step 1: {rows[0][6]:.3f}; in the cell two steps later: {rows[2][6]:.3f}; shown then, on demand: {rows[2][7]:.3f}")
assert abs(rows[2][6] - rows[0][6]) < 0.05 < rows[2][7]  # kept, and shown

# %%
# The picture: step 4 with its numbers, and below it the gates and the cell over all five steps.

picture = figure(8, 6)
diagram, strip = picture.subplots(2, 1, height_ratios=[3, 2])
h_before, c_before, i, f, g, o, c_after, h_after = rows[3]
blue, red = COLORS[:2]


def line(*points, color="0.4"):
    diagram.plot(*zip(*points[:-1], strict=True), color=color, lw=1.8)
    diagram.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.8, "shrinkA": 0, "shrinkB": 0})


def label(x, y, text, color="black", **box):
    diagram.text(x, y, text, ha="center", va="center", color=color, bbox={"fc": "white", "ec": "none", "pad": 0.1, **box})


line((0, 3), (9.2, 3), color=blue)  # the cell, straight through
line((8.2, 3), (8.2, 2), (9.2, 2), color=red)
diagram.plot((0, 6.8), (0, 0), color="0.4", lw=1.8)
line((5, 2.2), (5, 2.8))
ways = [((1.4, 2.8),), ((3.2, 2), (4.75, 2)), ((5, 1.8),), ((6.8, 2), (7.95, 2))]
for x, name, value, way in zip((1.4, 3.2, 5, 6.8), "figo", (f, i, g, o), ways, strict=True):
    line((x, 0), (x, 0.56))
    line((x, 1), *way)
    label(x, 0.8, f"{name} = {value:.3f}", ec="0.4", boxstyle="round", pad=0.4)
for x, y, sign in ((1.4, 3, "×"), (5, 3, "+"), (5, 2, "×"), (8.2, 2, "×"), (8.2, 2.5, "tanh")):
    label(x, y, sign, ec="0.4", boxstyle="circle" if len(sign) == 1 else "round", pad=0.2)
label(-0.9, 0, f"$h_3$ = {h_before:.3f}\n$x_4$ = {xs[3, 0]:.1f}, 1, 1")
lines = ((-0.9, 3, "c_3", c_before, blue), (3.2, 3.22, "f c_3", f * c_before, blue), (5.95, 2.5, "i g", i * g, "black"))
for x, y, name, value, color in (*lines, (10.1, 3, "c_4", c_after, blue), (10.1, 2, "h_4", h_after, red)):
    label(x, y, f"${name}$ = {value:.3f}", color)
diagram.set(xlim=(-1.9, 11.1), ylim=(-0.4, 3.4))
diagram.axis("off")

strip.imshow(table := np.array(rows).T[2:], cmap="RdBu_r", vmin=-1.2, vmax=1.2, aspect="auto")
for (y, x), value in np.ndenumerate(table):
    strip.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.7 else "black", size=9)
strip.set_yticks(range(6), ["input gate i", "forget gate f", "candidate g", "output gate o", "cell c", "shown h"])
strip.set_xticks(range(5), ["1: write 1", "2: keep", "3: read", "4: write -0.8, read", "5: read"])
strip.tick_params(length=0)
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
