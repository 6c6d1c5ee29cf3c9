"""Changes to lstm.cu, gru.cu, rnn.cu and the Python files that launch them."""

from __future__ import annotations

from minirnn.kernels.verification.planted.change import Change

_FORWARD_BARRIER = "if (t + 1 < T && gridDim.x > 1) cooperative_groups::this_grid().sync();"
_BACKWARD_BARRIER = "if (t >= 0 && gridDim.x > 1) cooperative_groups::this_grid().sync();"


def _cell(cell: str) -> tuple[Change, ...]:
    """What every cell's file says in the same words."""
    cu, py = f"{cell}/{cell}.cu", f"{cell}/cupy_.py"
    return (
        Change("no grid barrier between steps, forward", cu, _FORWARD_BARRIER, "", cell),
        Change("no grid barrier between steps, backward", cu, _BACKWARD_BARRIER, "", cell),
        Change("a barrier of the block in place of the grid's, forward", cu, _FORWARD_BARRIER, "if (t + 1 < T) __syncthreads();", cell),
        Change(
            "a grid barrier that threads without a unit pass by",
            cu,
            "if (t + 1 < T && gridDim.x > 1)",
            "if (t + 1 < T && gridDim.x > 1 && j < H)",
            cell,
        ),
        Change(
            "a grid barrier that the last block does not reach",
            cu,
            "if (t >= 0 && gridDim.x > 1)",
            "if (t >= 0 && blockIdx.x + 1 < gridDim.x)",
            cell,
        ),
        Change(
            "h_t in place of h_{t-1}, forward",
            cu,
            "h + at(first[t - 1], H) : h0",
            "h + at(first[t], H) : h0",
            cell,
            of=2 if cell == "gru" else 1,
        ),
        Change(
            "the backward pass ends a step early: no dh0", cu, "for (int t = T - 1; t >= -1; --t)", "for (int t = T - 1; t >= 0; --t)", cell
        ),
        Change("the step kernel has no bound, forward", cu, "if (e >= (long long)n * H) return;", "", cell, of=2),
        Change("the step kernel has no bound, backward", cu, "if (e >= (long long)n * H) return;", "", cell, nth=2, of=2),
        Change("a launch without the cooperative flag", py, "cooperative=True, shared=p.shared", "shared=p.shared", cell, of=2),
        Change("a grid with a block of units too few", py, "run(p.grid,", "run((p.grid[0] - 1 or 1, p.grid[1]),", cell, of=2),
        Change("16 bytes of shared memory too few", py, "shared_mem=p.shared", "shared_mem=p.shared - 16", cell, nth=2, of=2),
    )


_LSTM = "lstm/lstm.cu"
_GRU = "gru/gru.cu"
_RNN = "rnn/rnn.cu"

CHANGES = (
    *_cell("lstm"),
    Change("a second barrier beside the grid's", _LSTM, _BACKWARD_BARRIER, f"__syncthreads();\n{_BACKWARD_BARRIER}", "lstm", harmless=True),
    Change(
        "a grid barrier after the last step as well", _LSTM, "if (t + 1 < T && gridDim.x > 1)", "if (gridDim.x > 1)", "lstm", harmless=True
    ),
    Change(
        "gates stored in the order f, i",
        _LSTM,
        "gates_t[0 * H] = narrow(i);\n  gates_t[1 * H] = narrow(f);",
        "gates_t[0 * H] = narrow(f); gates_t[1 * H] = narrow(i);",
        "lstm",
    ),
    Change("the product of g added to f", _LSTM, "w.sum(r, 1 * units + u)", "w.sum(r, 2 * units + u)", "lstm"),
    Change("the path through tanh c dropped", _LSTM, "dc_t += dh_t * o * (1 - tanh_c * tanh_c);", "", "lstm"),
    Change("dc carried back without f", _LSTM, "return dc_t * f;", "return dc_t;", "lstm"),
    Change("the derivative of the sigmoid times 1.001", _LSTM, "dc_t * g * i * (1 - i);", "dc_t * g * i * (1 - i) * Wide(1.001);", "lstm"),
    Change("c_t in place of c_{t-1}, persistent backward", _LSTM, "c + at(first[t - 1], H) : c0", "c + at(first[t], H) : c0", "lstm"),
    Change(
        "c_t in place of c_{t-1}, step backward",
        _LSTM,
        "before < 0 ? c0[e] : c[at(before, H) + e]",
        "before < 0 ? c0[e] : c[at(start, H) + e]",
        "lstm",
    ),
    Change("dc of the loss dropped", _LSTM, "dc_t += kept.dc;", "", "lstm"),
    Change("a gradient that is None is read", _LSTM, "dc ? widen(dc[unit]) : Wide(0)", "widen(dc[unit])", "lstm"),
    Change(
        "dh_n enters at the last step of the longest",
        _LSTM,
        "if (sequence < begun) dh_t = w.sum(r, u);",
        "if (t + 1 < T) dh_t = w.sum(r, u);",
        "lstm",
    ),
    Change(
        "the last row of every step lost, forward",
        _LSTM,
        "r < w.rows() && sequence < n && j < H",
        "r < w.rows() && sequence < n - 1 && j < H",
        "lstm",
        of=2,
    ),
    Change(
        "no bound on the units of the last block",
        _LSTM,
        "r < w.rows() && sequence < n && j < H",
        "r < w.rows() && sequence < n",
        "lstm",
        of=2,
    ),
    Change(
        "h_n of the longest sequences not written",
        _LSTM,
        "first[t + 2] - first[t + 1] : 0;",
        "first[t + 2] - first[t + 1] : n;",
        "lstm",
        of=1,
    ),
    Change("c_t not kept for the next step", _LSTM, "c_t[e] = forward_unit(", "forward_unit(", "lstm"),
    Change(
        "a whole tile of rows is read where it is ragged",
        _LSTM,
        "w.multiply(h_before + at(tile, H), min(w.rows(), n - tile));",
        "w.multiply(h_before + at(tile, H), w.rows());",
        "lstm",
    ),
    Change(
        "tiles after the first are never taken",
        _LSTM,
        "int tile = w.rows() * blockIdx.y; tile < n; tile += w.rows() * gridDim.y",
        "int tile = w.rows() * blockIdx.y; tile < n && tile < w.rows() * (int)gridDim.y; tile += w.rows() * gridDim.y",
        "lstm",
        of=2,
    ),
    Change(
        "the tap of dh_t lacks what the loss reads from the row",
        _LSTM,
        "= narrow(dh_t);\n    dc_tap",
        "= narrow(dh_t - kept.dh); dc_tap",
        "lstm",
    ),
    Change(
        "the tap of dc_t is dc_{t-1}", _LSTM, "dc_tap[at(row, H) + j] = narrow(dc_t);", "dc_tap[at(row, H) + j] = narrow(dc_t * f);", "lstm"
    ),
    Change("a tap that nobody asks for is written", _LSTM, "if (dh_tap) {", "{", "lstm"),
    Change(
        "the taps exchanged, persistent form",
        "lstm/cupy_.py",
        "*(taps or (NULL, NULL))",
        "*(taps or (NULL, NULL))[::-1]",
        "lstm",
    ),
    Change("the taps exchanged, step form", "lstm/cupy_.py", "*(taps or ())", "*(taps or ())[::-1]", "lstm"),
    Change("dw_hh from h_t", "lstm/cupy_.py", "dz.T @ previous(xp, tape.h, tape.h0, first)", "dz.T @ tape.h", "lstm"),
    Change(
        "a scalar passed as a Python number",
        "lstm/cupy_.py",
        "map(np.int32, (start, before, n, H))",
        "map(int, (start, before, n, H))",
        "lstm",
    ),
    *_cell("gru"),
    Change("b_hn outside of the reset gate", _GRU, "z_n + r * hn_t", "z_n + r * a_n + b_hn", "gru"),
    Change("da_n without the reset gate, so db_hn without r", _GRU, "narrow(dz_n * r);", "narrow(dz_n);", "gru"),
    Change("dh carried back by 1 - u", _GRU, "return dh_t * u;", "return dh_t * (1 - u);", "gru"),
    Change("u of n and h exchanged", _GRU, "n + u * (h_before - n)", "h_before + u * (n - h_before)", "gru"),
    Change("h_t in place of h_{t-1}, backward", _GRU, "h + at(first[t - 1], H) : h0", "h + at(first[t], H) : h0", "gru", nth=2, of=2),
    Change(
        "the product of a sequence that has not begun is added",
        _GRU,
        "(sequence < begun ? widen(product[e]) : Wide(0))",
        "widen(product[e])",
        "gru",
    ),
    Change("rows of the step after are forgotten between steps", "gru/cupy_.py", "begun = n\n", "begun = 0\n", "gru"),
    Change(
        "the tap is what goes back by u",
        _GRU,
        "dh_tap[at(row, H) + j] = narrow(dh_t);",
        "dh_tap[at(row, H) + j] = narrow(dh_t * u);",
        "gru",
    ),
    Change("the persistent form fills no tap", "gru/cupy_.py", "*(taps or (NULL,))", "NULL", "gru"),
    Change("db_hn from the columns of r", "cuda/packed.py", "np.int32(width - columns)", "np.int32(0)", "gru"),
    *_cell("rnn"),
    Change("relu has a derivative at 0", _RNN, "h_t <= 0 ? Wide(0) : dh_t", "h_t < 0 ? Wide(0) : dh_t", "rnn"),
    Change(
        "the tap after the nonlinearity, step backward",
        _RNN,
        "if (dh_tap) dh_tap[unit] = narrow(whole);",
        "if (dh_tap) dh_tap[unit] = narrow(through_phi(whole, widen(h[unit]), relu));",
        "rnn",
        of=2,
    ),
    Change(
        "the tap in the rows of step 0, persistent backward",
        _RNN,
        "if (dh_tap) dh_tap[unit] = narrow(whole);",
        "if (dh_tap) dh_tap[e] = narrow(whole);",
        "rnn",
        nth=2,
        of=2,
    ),
    Change("relu makes 0 of a NaN", _RNN, "(x <= 0 ? Wide(0) : x)", "(x > 0 ? x : Wide(0))", "rnn"),
    Change("the derivative of tanh without its square", _RNN, "dh_t * (1 - h_t * h_t)", "dh_t * (1 - h_t)", "rnn"),
    Change(
        "the step kernel writes h_n one row early", _RNN, "if (e >= (long long)going_on * H)", "if (e > (long long)going_on * H)", "rnn"
    ),
    Change("dh of the loss dropped, persistent", _RNN, "whole = dh_t + from_loss;", "whole = dh_t;", "rnn"),
    Change(
        "the last row of every step lost, backward",
        _RNN,
        "r < w.rows() && sequence < n && j < H",
        "r < w.rows() && sequence < n - 1 && j < H",
        "rnn",
        nth=2,
        of=2,
    ),
)
