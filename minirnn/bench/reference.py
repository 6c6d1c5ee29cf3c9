"""A recurrent layer in float64, from the NumPy kernel and NumPy's matrix product alone: what every implementation is compared with.

Neither the autograd engine nor the layers take part, nor any product but NumPy's, so that an error of theirs cannot hide in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minirnn.bench.cases import STATES, Array, Arrays, Case
from minirnn.kernels import load
from minirnn.nn.packing import Packing


class _Scan(NamedTuple):
    """One layer in one direction: what its backward pass needs."""

    suffix: str
    rows: Array  # (S, D) in, turned round for the reverse direction
    tape: Any
    turn: Array | slice  # the rows in the direction's own order of time; its own inverse


def reference(case: Case, arrays: Arrays, states: bool) -> Arrays:
    """Output, last states and all gradients, of the loss that is the sum of the outputs times "output_gradient".

    states  whether the first states are given and the last ones are part of the loss; otherwise the first ones are zero

    Returns "output" (T, N, H directions), "h_n" (and "c_n"), "gradient of input", of each parameter and, with states, of the first ones.
    """
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    packing, kernel = Packing(case.lengths), load(case.cell, "numpy")
    names = STATES[case.cell]
    zeros = np.zeros((case.layers * case.directions, case.N, case.H))
    first = [exact[f"{name}_0"] if states else zeros for name in names]
    last_gradients = [exact[f"{name}_n_gradient"] if states else zeros for name in names]

    rows = exact["input"].reshape(case.T * case.N, case.D)[packing.rows]  # (S, D)
    scans: list[_Scan] = []
    last: dict[str, list[Array]] = {name: [] for name in names}
    for layer in range(case.layers):
        outputs = []
        for suffix in _suffixes(case, layer):
            turn = packing.reverse if suffix.endswith("reverse") else slice(None)
            start = [s[len(scans)][packing.order] for s in first]
            tape = kernel.forward(*_projected(case, exact, suffix, rows[turn]), *start, packing.batch_sizes)
            scans.append(_Scan(suffix, rows[turn], tape, turn))
            outputs.append(tape.h[turn])
            for name in names:
                last[name].append(getattr(tape, f"{name}_n")[packing.inverse])
        rows = np.concatenate(outputs, axis=1)  # (S, H directions)

    found = {"output": _unpack(rows, packing, case)} | {f"{name}_n": np.stack(last[name]) for name in names}
    others: Arrays = {}  # of the parameters and first states
    first_gradients: dict[str, list[Array]] = {name: [] for name in names}
    d_rows = exact["output_gradient"].reshape(case.T * case.N, -1)[packing.rows]  # (S, H directions)
    for layer in reversed(range(case.layers)):
        dx = np.zeros((packing.S, scans[layer * case.directions].rows.shape[1]))
        for direction in reversed(range(case.directions)):
            number = layer * case.directions + direction
            scan = scans[number]
            dh = np.ascontiguousarray(d_rows[scan.turn, direction * case.H : (direction + 1) * case.H])  # (S, H)
            rest = [None] if case.cell == "lstm" else []  # dc
            ends = [g[number][packing.order] for g in last_gradients]
            grads = kernel.backward(scan.tape, exact[f"weight_hh{scan.suffix}"], dh, *rest, *ends)
            dx += (grads.dz @ exact[f"weight_ih{scan.suffix}"])[scan.turn]
            others |= _weight_gradients(case, scan, grads)
            for name in names:
                first_gradients[name].append(getattr(grads, f"d{name}0")[packing.inverse])
        d_rows = dx
    others |= {f"gradient of {name}_0": np.stack(gradients[::-1]) for name, gradients in first_gradients.items() if states}
    return {**found, "gradient of input": _unpack(d_rows, packing, case), **others}


def forward_alone(case: Case, arrays: Arrays) -> Arrays:
    """ "output", "h_n" (and "c_n") alone."""
    return {name: array for name, array in reference(case, arrays, False).items() if not name.startswith("gradient")}


def _suffixes(case: Case, layer: int) -> tuple[str, ...]:
    return (f"_l{layer}", f"_l{layer}_reverse")[: case.directions]


def _projected(case: Case, exact: Arrays, suffix: str, rows: Array) -> list[Array]:
    """z (S, GH), w_hh (GH, H) and, of a GRU, b_hn (H,), which its reset gate multiplies."""
    w_ih, w_hh, b_ih, b_hh = (exact[name + suffix] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    z = rows @ w_ih.T + b_ih
    if case.cell != "gru":
        return [z + b_hh, w_hh]
    z[:, : 2 * case.H] += b_hh[: 2 * case.H]
    return [z, w_hh, b_hh[2 * case.H :]]


def _weight_gradients(case: Case, scan: _Scan, grads: Any) -> Arrays:
    db = grads.dz.sum(axis=0)  # (GH,)
    found = {"weight_ih": grads.dz.T @ scan.rows, "weight_hh": grads.dw_hh, "bias_ih": db, "bias_hh": db}
    if case.cell == "gru":
        found["bias_hh"] = np.concatenate([db[: 2 * case.H], grads.db_hn])
    return {f"gradient of {name}{scan.suffix}": gradient for name, gradient in found.items()}


def _unpack(rows: Array, packing: Packing, case: Case) -> Array:
    """(S, ...) to (T, N, ...), zero after each sequence's end."""
    dense = np.zeros((case.T * case.N, rows.shape[1]))
    dense[packing.rows] = rows
    return dense.reshape(case.T, case.N, -1)
