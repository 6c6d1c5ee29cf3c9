"""Changes to the kernels in Numba-CUDA."""

from __future__ import annotations

from minirnn.kernels.verification.planted.change import Change

_ROWS = "cuda/numba_rows.py"
_LSTM, _GRU, _RNN = (f"{cell}/numba_cuda.py" for cell in ("lstm", "gru", "rnn"))
_FORWARD_BARRIER = "if t + 1 < T and cuda.gridDim.x > 1:\n            cuda.cg.this_grid().sync()"
_BACKWARD_BARRIER = "if t >= 0 and cuda.gridDim.x > 1:\n            cuda.cg.this_grid().sync()"


def _cell(cell: str) -> tuple[Change, ...]:
    py = f"{cell}/numba_cuda.py"
    return (
        Change("no grid barrier between steps, forward", py, _FORWARD_BARRIER, "", cell),
        Change("no grid barrier between steps, backward", py, _BACKWARD_BARRIER, "", cell),
        Change("a barrier of the block in place of the grid's, backward", py, _BACKWARD_BARRIER, "cuda.syncthreads()", cell),
        Change("the backward pass ends a step early: no dh0", py, "for t in range(T - 1, -2, -1):", "for t in range(T - 1, -1, -1):", cell),
        Change("the step kernel has no bound, forward", py, "if e >= n * H:\n        return\n", "", cell, of=2),
    )


CHANGES = (
    *_cell("lstm"),
    Change(
        "a grid barrier that one thread of each block passes by",
        _LSTM,
        "if t + 1 < T and cuda.gridDim.x > 1:",
        "if t + 1 < T and cuda.gridDim.x > 1 and u + r > 0:",
        "lstm",
    ),
    Change(
        "a grid barrier after the last step as well",
        _LSTM,
        "if t + 1 < T and cuda.gridDim.x > 1:",
        "if cuda.gridDim.x > 1:",
        "lstm",
        harmless=True,
    ),
    Change("h_t in place of h_{t-1}, forward", _LSTM, "before = first[t - 1] if t > 0 else 0", "before = first[t] if t > 0 else 0", "lstm"),
    Change(
        "first is read below its first element",
        _LSTM,
        "c[first[t - 1] + sequence, j] if t > 0 else c0[sequence, j]",
        "c[first[t - 1] + sequence, j]",
        "lstm",
    ),
    Change("gates stored in the order f, i", _LSTM, "gates[row, 0 * H + j] = i\n", "gates[row, 0 * H + j] = f\n", "lstm"),
    Change("the path through tanh c dropped", _LSTM, "dc_t += dh_t * o * (one - tanh_c * tanh_c)", "dc_t += dc_t - dc_t", "lstm"),
    Change("c of the step itself, step backward", _LSTM, "c[before + sequence, j]", "c[start + sequence, j]", "lstm"),
    Change(
        "dh_n enters at the last step of the longest",
        _LSTM,
        "if sequence >= begun and dh_n.shape[0] > 0:",
        "if t + 1 == T and dh_n.shape[0] > 0:",
        "lstm",
    ),
    Change("the last row of every step lost", _LSTM, "if sequence < n and j < H:", "if sequence < n - 1 and j < H:", "lstm", of=2),
    Change("no bound on the units of the last block", _LSTM, "if sequence < n and j < H:", "if sequence < n:", "lstm", of=2),
    Change(
        "h_n of the longest sequences not written",
        _LSTM,
        "going_on = first[t + 2] - first[t + 1] if t + 1 < T else 0",
        "going_on = first[t + 2] - first[t + 1] if t + 1 < T else n",
        "lstm",
    ),
    Change("the tap of dc_t is dc_{t-1}", _LSTM, "dc_tap[row, j] = dc_t", "dc_tap[row, j] = dc_t * f", "lstm"),
    Change(
        "a tap that nobody asks for is written", _LSTM, "if dh_tap is not None and dh_tap.shape[0] > 0:", "if dh_tap is not None:", "lstm"
    ),
    Change("a float32 becomes a float64", _LSTM, "(one - f)", "(1.0 - f)", "lstm", "float32"),
    Change("dw_hh from h_t", _LSTM, "previous(xp, tape.h, tape.h0, first)", "tape.h", "lstm"),
    Change("no barrier before a product, forward of the GRU", _ROWS, "cuda.syncthreads()", "", "gru", nth=2, of=4),
    Change("no barrier before a product, forward of the LSTM", _ROWS, "cuda.syncthreads()", "", "lstm", nth=3, of=4),
    Change("no barrier before a product, backward", _ROWS, "cuda.syncthreads()  # w is there", "# w is there", "lstm"),
    Change("no barrier of the warp before x is staged", _ROWS, "cuda.syncwarp()  # the chunk before has been used", "", "lstm"),
    Change("no barrier of the warp after x is staged", _ROWS, "cuda.syncwarp()\n    return width", "return width", "lstm"),
    Change("a chunk of x is read beyond its row", _ROWS, "width = min(CHUNK, x.shape[1] - k)", "width = CHUNK", "lstm"),
    Change("w in the wrong order of gates", _ROWS, "w[(k * gates + q) * units + u]", "w[(q * H + k) * units + u]", "lstm"),
    Change("units that do not exist are read from w_hh", _ROWS, "w_hh[q * H + j, k] if j < H else zero", "w_hh[q * H + j, k]", "lstm"),
    Change(
        "rows of w_hh in place of its columns, backward", _ROWS, "w_hh[k, j] if j < H else zero", "w_hh[j, k] if j < H else zero", "rnn"
    ),
    Change("no barrier in the sum over rows", _ROWS, "sums[s, c] = total\n    cuda.syncthreads()", "sums[s, c] = total", "gru"),
    Change("the sum over rows lacks one thread's share", _ROWS, "range(1, SUMMANDS)", "range(1, SUMMANDS - 1)", "gru"),
    Change(
        "room for one thread's share too few",
        _ROWS,
        "cuda.shared.array((SUMMANDS, WARP), x.dtype)",
        "cuda.shared.array((SUMMANDS - 1, WARP), x.dtype)",
        "gru",
    ),
    Change(
        "shared memory for x is missing from the launch",
        "cuda/numba_plan.py",
        "shared = (GATES[cell] * H * units + rows * PITCH) * itemsize",
        "shared = GATES[cell] * H * units * itemsize",
        "lstm",
    ),
    *_cell("gru"),
    Change("b_hn outside of the reset gate", _GRU, "n = math.tanh(z_n + r * hn_t)", "n = math.tanh(z_n + r * a_n + b_hn)", "gru"),
    Change("h_t in place of h_{t-1}, forward", _GRU, "before = first[t - 1] if t > 0 else 0", "before = first[t] if t > 0 else 0", "gru"),
    Change(
        "the product of a sequence that has not begun is added",
        _GRU,
        "if sequence < begun:\n        whole",
        "if sequence >= 0:\n        whole",
        "gru",
    ),
    Change("the tap lacks what the loss reads from the row", _GRU, "dh_tap[row, j] = dh_t", "dh_tap[row, j] = dh_t - dh[row, j]", "gru"),
    *_cell("rnn"),
    Change("the tap in the row of the sequence, step backward", _RNN, "dh_tap[row, j] = whole", "dh_tap[sequence, j] = whole", "rnn"),
    Change("the tap after the nonlinearity", _RNN, "dh_tap[row, j] = dh_t", "dh_tap[row, j] = dh_t * h[row, j]", "rnn"),
    Change("relu has a derivative at 0", _RNN, "zero if h_t <= zero else dh_t", "zero if h_t < zero else dh_t", "rnn"),
    Change("relu makes 0 of a NaN", _RNN, "zero if x <= zero else x", "x if x > zero else zero", "rnn"),
)
