r"""
Reading the CUDA kernel
=======================

The LSTM of this package exists several times: in NumPy, as the mathematics line by line, and in CUDA C++, for a GPU. Both carry the same
names and the same equation numbers, so whoever has read one can read the other beside it. This chapter does so, and then *runs* the CUDA
kernel: not on a GPU, but on an emulator that compiles it with the C++ compiler and makes every CUDA thread a fiber
(``kernels/emulator/README.md``). It says nothing about speed, and a lot about who does what.

A GPU runs a kernel as a grid of *blocks* of threads. Threads of one block share a little fast memory and can wait for each other; blocks
hardly know of one another. In the persistent form of the kernel, one launch does the whole sequence: each block owns 8 hidden units, keeps
the rows of :math:`W_{hh}` that belong to their gates on chip, and at every step each of its threads owns one unit of one sequence. But
:math:`h_{t-1}` is made by all blocks, so all must wait for all, once a step: a barrier of the whole grid.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import minirnn.kernels.emulator.stand_in as xp
from minirnn.kernels.availability import emulator_lacks
from minirnn.kernels.cuda import plan, source
from minirnn.kernels.emulator.library import recording
from minirnn.kernels.lstm import cupy_, numpy_
from minirnn.training.pictures import COLORS, figure, save

# %%
# The equations, pulled out of both files by their numbers.


def equations(path):
    """The first line of code that carries each number: {"(1.1)": "a = ...", ...}"""
    found = {}
    for line in (source.KERNELS / path).read_text().splitlines():
        code, _, comment = re.split(r"(#|//|$)", line, maxsplit=1)
        for number in re.findall(r"\([12]\.\d+\)", comment) if code.strip() else ():
            found.setdefault(number, code.strip())
    return found


in_numpy, in_cuda = equations("lstm/numpy_.py"), equations("lstm/lstm.cu")
for number, code in in_numpy.items():
    print(f"{number:<7} {code:<53.53} | {in_cuda.get(number, 'outside of the kernel, a product of matrices')}")
assert set(in_numpy) - set(in_cuda) == {"(2.11)"}

# %%
# A ragged batch of five sequences, 20 hidden units, on the emulated device. Its arrays follow CuPy's rules; NumPy says what is right.

if reason := emulator_lacks("build"):
    print(f"the rest of this chapter runs the kernel on the emulator, and {reason}")
    sys.exit()

rng, H, batch_sizes = np.random.default_rng(0), 20, np.array([5, 5, 3, 2])
T, N, S = len(batch_sizes), batch_sizes[0], batch_sizes.sum()
arrays = [rng.standard_normal(shape) / 2 for shape in ((S, 4 * H), (4 * H, H), (N, H), (N, H))]  # z, w_hh, h0, c0
on_device, right = [xp.asarray(a) for a in arrays], numpy_.forward(*arrays, batch_sizes)
for form in ("step", "persistent"):
    with plan.form(form), recording() as events, xp.counting() as counts:
        tape = cupy_.forward(*on_device, batch_sizes)
    launch, did = xp.launches[-1], Counter(event.waits_for for event in events)
    apart = np.abs(tape.h.get() - right.h).max()
    size = f"{counts.launches} x {launch.grid[0]} x {launch.block[0]}"
    print(f"\n{form} form: launches x blocks x threads = {size}; largest difference to NumPy {apart:.0e}")
    print(f"    threads began {did['start']} times, waited for their block {did['block']} times and for the whole grid {did['grid']} times")
    assert apart < 1e-14
assert did["grid"] == (T - 1) * launch.grid[0] * launch.block[0]  # once between two steps

# %%
# Now let every thread sign its work: in a copy of the kernel, what goes into the tape as :math:`c_t`, which nothing in the forward pass
# reads, is replaced by the numbers of the thread. And take out the barrier of the grid, to see what it was good for.

text = source.read("lstm/lstm.cu")
for original, changed in (
    ("c[at(row, H) + j] = narrow(c_t);", "c[at(row, H) + j] = narrow(1000 * blockIdx.x + threadIdx.x);"),
    ("if (t + 1 < T && gridDim.x > 1) cooperative_groups::this_grid().sync();", ""),
):
    assert text.count(original) == 1
    text = text.replace(original, changed)
kernel = xp.RawModule(code=text, options=source.options("float64"), enable_cooperative_groups=True).get_function(launch.name)
first, sizes = xp.asarray(np.append(0, batch_sizes.cumsum()).astype(np.int32)), map(np.int32, (T, H, 8))
h, c, gates, h_n = (xp.empty(shape) for shape in ((S, H), (S, H), (S, 4 * H), (N, H)))
kernel(launch.grid, launch.block, (*on_device, first, h, c, gates, h_n, *sizes), shared_mem=launch.shared_mem)

block, thread = np.divmod(c.get()[:N].astype(int), 1000)  # (N, H) each: the signatures of the first step
assert (block == np.arange(H) // 8).all()
assert (thread == 8 * np.arange(N)[:, None] + np.arange(H) % 8).all()
print(f"\nstep 1: unit 19 of sequence 4 belongs to thread {thread[4, 19]} of block {block[4, 19]};", end=" ")
print(f"{1 - N * H / launch.grid[0] / launch.block[0]:.0%} of all threads own no unit and only help with the product")
same = np.split(np.isclose(h.get(), right.h, rtol=1e-12), batch_sizes.cumsum()[:-1])
print("without the barrier of the grid, right at steps 1 to 4: " + ", ".join(f"{share.mean():.0%} of h" for share in same))
assert same[0].all() > same[-1].any()

# %%
# The picture. Above, who owns what. Below, the launch with its barriers: every dot is a thread that comes to where it must wait. One thread
# runs at a time here, in an order drawn from a seed. Blocks overtake each other, but none goes on before the last thread has come (lines).

picture = figure(7.5, 5.6)
owners, timeline = picture.subplots(2, 1, height_ratios=[2, 5])
owners.imshow(block, cmap="Pastel1", vmax=8, aspect="auto")
for (n, j), number in np.ndenumerate(thread):
    owners.text(j, n, number, ha="center", va="center", size=8)
owners.set(xlabel="hidden unit", ylabel="sequence", xticks=range(H), yticks=range(N), title="thread that owns it; colour: its block")
place = np.array([event.block * launch.block[0] + event.thread for event in events])
waits, dots = np.array([event.waits_for for event in events]), {"markersize": 1.2, "markeredgewidth": 0, "antialiased": False}
kinds = ("warp", "exchanges with its warp", "0.75"), ("block", "waits for its block", COLORS[0]), ("grid", "waits for the grid", COLORS[1])
for kind, meaning, color in (*kinds, ("end", "returns", "black")):
    timeline.plot(np.flatnonzero(waits == kind), place[waits == kind], "s", color=color, label=meaning, **dots)
for moment in np.flatnonzero(waits == "grid")[767::768]:  # the last of all threads
    timeline.axvline(moment, color=COLORS[1], linewidth=1)
timeline.set(xlabel="moments, in their order", yticks=[128, 384, 640], yticklabels=["block 0", "block 1", "block 2"])
timeline.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, frameon=False, markerscale=12, fontsize=9)
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
