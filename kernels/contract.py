"""The narrow interface that every implementation of a recurrence meets.

Dense and ragged batches have one layout, the packed one. Rows are time-major: step `t` owns `batch_sizes[t]` consecutive rows,
one for each sequence that is still running, and `batch_sizes` never increases. A dense batch is the case in which they are all `N`.

    T  steps                    batch_sizes  (T,) int64, non-increasing, each >= 1
    N  sequences                N = batch_sizes[0]; sequences are sorted by length, longest first
    S  rows, all steps          S = sum(batch_sizes)
    H  hidden units             z  the input projection of every row, biases included

An implementation is a module with `forward` and `backward`. It knows arrays only: C-contiguous, of one dtype and on one device, which
the caller guarantees (`check_packed` says what is wrong where it does not hold). It writes to none of its arguments, and keeps what
its backward pass needs in the tape that `forward` returns. In the backward pass each of `dh`, `dc`, `dh_n` and `dc_n` may be None,
which means zero.

What a module may offer beside these, known by its name:

    in_place = True
        `forward` and `backward` take `out=None`, an array to write to. Forward: the gates (an RNN, which keeps none: h); it may be z
        itself, whose contents are then lost. Backward: dz; it may be the tape's gates (not an RNN's h), and the tape is then spent.
    taps = True
        `backward` takes `taps=None`, arrays (S, H) to write to: (dh_t, dc_t) of an LSTM, (dh_t,) of a GRU or an RNN. Row by row they get
        the whole gradients dL/dh_t and dL/dc_t, all that the loss reads from this state now or later: what (2.4) and (2.6) of the LSTM's
        equations read, dh_t after (2.2) and dc_t after (2.5); of a GRU and an RNN dh_t after (2.2). They share memory with no other array,
        what they held before is lost, and every other result has the same bits with them as without.
    gates(a) -> None                                    LSTM
        (1.2) to (1.5) of all rows at once, in place of a = z + h_{t-1} w_hh^T (S, 4H): the tape's gates once more.
    gates(z, a, b_hn) -> hn                             GRU
        (1.2) to (1.5) of all rows at once, in place of z (S, 3H), from a = h_{t-1} w_hh^T (S, 3H); hn (S, H).
    step(x, h, c, w_ih, w_hh, b_ih, b_hh) -> h, c       LSTM
    step(x, h, w_ih, w_hh, b_ih, b_hh) -> h             GRU; RNN, with nonlinearity="tanh" at the end
        One step without a tape. x (N, D), states (N, H), w_ih (4H, D), w_hh (4H, H), biases (4H,) or both None; new states in new arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


class LSTMTape(NamedTuple):
    """What the forward pass of an LSTM leaves: its outputs, and what the backward pass reads."""

    h: Array  # (S, H)   hidden state after each row
    c: Array  # (S, H)   cell state after each row
    gates: Array  # (S, 4H)  i, f, g, o after their nonlinearities
    h_n: Array  # (N, H)   hidden state after each sequence's own last step
    c_n: Array  # (N, H)
    h0: Array  # (N, H)
    c0: Array  # (N, H)
    batch_sizes: Array  # (T,)


class LSTMGrads(NamedTuple):
    """What the backward pass of an LSTM gives: dL/dz of every row, and the gradients of the weights and of the first states."""

    dz: Array  # (S, 4H)
    dw_hh: Array  # (4H, H)
    dh0: Array  # (N, H)
    dc0: Array  # (N, H)


class LSTMKernel(Protocol):
    """i, f, o = sigmoid(.), g = tanh(.) of z_t + h_{t-1} w_hh^T;   c_t = f c_{t-1} + i g;   h_t = o tanh c_t"""

    def forward(self, z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array) -> LSTMTape:
        """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,)."""
        ...

    def backward(
        self, tape: LSTMTape, w_hh: Array, dh: Array | None, dc: Array | None, dh_n: Array | None, dc_n: Array | None
    ) -> LSTMGrads:
        """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H)."""
        ...


class GRUTape(NamedTuple):
    """What the forward pass of a GRU leaves. `hn` is the recurrent half of the candidate, which the reset gate multiplies."""

    h: Array  # (S, H)
    gates: Array  # (S, 3H)  r, u, n after their nonlinearities
    hn: Array  # (S, H)   h_{t-1} w_hn^T + b_hn
    h_n: Array  # (N, H)
    h0: Array  # (N, H)
    batch_sizes: Array  # (T,)


class GRUGrads(NamedTuple):
    """What the backward pass of a GRU gives. dz does not hold what the reset gate does to b_hn: db_hn is its gradient."""

    dz: Array  # (S, 3H)
    dw_hh: Array  # (3H, H)
    db_hn: Array  # (H,)
    dh0: Array  # (N, H)


class GRUKernel(Protocol):
    """r, u = sigmoid(z_t + h_{t-1} w^T);   n = tanh(z_n + r (h_{t-1} w_hn^T + b_hn));   h_t = (1 - u) n + u h_{t-1}

    Gates lie in PyTorch's order r, z, n; its z (update) is called u here, because z is the input projection. `b_hn` is the one recurrent
    bias that cannot be folded into the projection: the reset gate multiplies it.
    """

    def forward(self, z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array) -> GRUTape:
        """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,)."""
        ...

    def backward(self, tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None) -> GRUGrads:
        """dh (S, H), dh_n (N, H)."""
        ...


class RNNTape(NamedTuple):
    """What the forward pass of a plain RNN leaves. It has no gates; h alone says what the backward pass needs."""

    h: Array  # (S, H)
    h_n: Array  # (N, H)
    h0: Array  # (N, H)
    batch_sizes: Array  # (T,)
    nonlinearity: str  # "tanh" or "relu"


class RNNGrads(NamedTuple):
    """What the backward pass of a plain RNN gives."""

    dz: Array  # (S, H)
    dw_hh: Array  # (H, H)
    dh0: Array  # (N, H)


class RNNKernel(Protocol):
    """h_t = phi(z_t + h_{t-1} w_hh^T), phi = tanh or relu"""

    def forward(self, z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh") -> RNNTape:
        """z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,)."""
        ...

    def backward(self, tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None) -> RNNGrads:
        """dh (S, H), dh_n (N, H)."""
        ...


def check_nonlinearity(nonlinearity: str) -> None:
    """Raise a ValueError unless it is "tanh" or "relu"."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'RNN: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')


def check_packed(cell: str, gates: int, z: Array, w_hh: Array, batch_sizes: Array, *, b_hn: Array | None = None, **states: Array) -> None:
    """Raise a ValueError that names the argument, what was expected and what came, unless the shapes fit the contract.

    `gates` is the number of gates (LSTM 4, GRU 3, RNN 1); `b_hn` is the GRU's bias; `states` are the (N, H) arrays by name.
    """
    if batch_sizes.ndim != 1 or len(batch_sizes) == 0 or batch_sizes[-1] < 1 or (batch_sizes[1:] > batch_sizes[:-1]).any():
        raise ValueError(
            f"{cell}: batch_sizes must be a non-increasing (T,) array of counts >= 1, got {np.array2string(batch_sizes, threshold=8)}; "
            "sort the sequences by length, longest first (minirnn.nn.pack does)"
        )
    hidden, wide = w_hh.shape[-1], f"{gates}H" if gates > 1 else "H"
    expected: dict[str, tuple[str, Array, tuple[int, ...]]] = {
        "w_hh": (f"({wide}, H)", w_hh, (gates * hidden, hidden)),
        "z": (f"(S, {wide})", z, (int(batch_sizes.sum()), gates * hidden)),
        **{name: ("(N, H)", state, (int(batch_sizes[0]), hidden)) for name, state in states.items()},
    }
    if b_hn is not None:
        expected["b_hn"] = ("(H,)", b_hn, (hidden,))
    for name, (symbols, array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{cell}: {name} must be {symbols} = {shape}, got {array.shape}")
        if array.dtype != w_hh.dtype:
            raise TypeError(f"{cell}: {name} is {array.dtype} and w_hh is {w_hh.dtype}; convert one of them, all arrays share one dtype")
