"""A product of a few rows with a packed matrix, for Numba functions: out (n, M) = a (n, K) @ w (K, M).

A recurrence multiplies by the same `w` in every step, so `w` is packed once per call into panels of V vectors of L numbers (L fills a
register), and the numbers that one k needs lie side by side:

    panel[p, k, v, l]        k = 0 .. K-1,  v = 0 .. V-1,  l = 0 .. L-1

A tile of R rows by one panel keeps its R V accumulators in registers and walks over k once: V loads and R broadcasts feed R V
multiply-adds. Every number of `out` is one chain of multiply-adds over k in order, whichever tile it falls in, so a row's result does not
depend, in any bit, on the rows beside it.

Numba's own loops do not keep such a tile in registers, so it is written in the compiler's vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

_wide = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
VECTOR = 64 if _wide else 32  # bytes of one register
TALLEST = {3: 8 if _wide else 4, 4: 6 if _wide else 3}  # rows of the tallest tile by V: accumulators, operands: 32 or 16 registers


def empty(size: int, dtype: Any) -> Array:
    """An uninitialised vector that begins on a cache line, so that no load of a panel straddles two."""
    itemsize = np.dtype(dtype).itemsize
    buffer = np.empty(size + 64 // itemsize, dtype)
    return buffer[-buffer.ctypes.data % 64 // itemsize :][:size]


def lanes(dtype: Any) -> int:
    """L, the numbers in one register."""
    return int(VECTOR // np.dtype(dtype).itemsize)


def padded(columns: int, multiple: int) -> int:
    """The least multiple of `multiple` that holds `columns`."""
    return -(-columns // multiple) * multiple


def pack_gates(w: Array, gates: int) -> Array:
    """Panels of w^T for w (gates * H, K): panel p has units p L .. p L + L - 1 of every gate, a vector each; zeros fill the last."""
    L, H, K = lanes(w.dtype), len(w) // gates, w.shape[1]
    panels = empty(gates * padded(H, L) * K, w.dtype)
    _pack_gates(w.reshape(gates, H, K), panels.reshape(-1, K, gates, L))
    return panels


def pack_columns(w: Array, vectors: int = 4) -> Array:
    """Panels of w (K, M): panel p has the columns p V L .. p V L + V L - 1. Zeros fill the last."""
    L, (K, M) = lanes(w.dtype), w.shape
    panels = empty(padded(M, vectors * L) * K, w.dtype)
    _pack_columns(w, panels.reshape(-1, K, vectors * L))
    return panels


@compiled()
def _pack_gates(w: Array, panels: Array) -> None:
    G, H, K = w.shape
    P, _, _, L = panels.shape
    for p in range(P):
        for v in range(G):
            for lane in range(L):
                if p * L + lane < H:
                    for k in range(K):
                        panels[p, k, v, lane] = w[v, p * L + lane, k]
                else:
                    for k in range(K):
                        panels[p, k, v, lane] = 0


@compiled()
def _pack_columns(w: Array, panels: Array) -> None:
    K, M = w.shape
    P, _, width = panels.shape
    for p in range(P):
        whole = min(width, M - p * width)
        for k in range(K):
            for j in range(whole):
                panels[p, k, j] = w[k, p * width + j]
            for j in range(whole, width):
                panels[p, k, j] = 0


def _tile(R: int, V: int) -> Any:
    """out[r, v, :] = sum_k a[r, k] panel[k, v, :] for R rows and V vectors; `a`, `panels`, `out` are one-dimensional, with offsets."""

    @intrinsic
    def tile(
        context: Any,
        a: Any,
        a_at: Any,
        a_row: Any,
        K: Any,
        panels: Any,
        panel_at: Any,
        out: Any,
        out_at: Any,
        out_row: Any,
        out_vector: Any,
    ) -> Any:
        signature = types.void(a, a_at, a_row, K, panels, panel_at, out, out_at, out_row, out_vector)
        real = a.dtype
        L = VECTOR * 8 // real.bitwidth

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a_at, a_row, K, panel_at, out_at, out_row, out_vector = (arguments[k] for k in (1, 2, 3, 5, 7, 8, 9))
            scalar = context.get_value_type(real)
            vector = ir.VectorType(scalar, L)
            integer = a_at.type
            name = f"llvm.fmuladd.v{L}f{real.bitwidth}"
            known = builder.module.globals.get(name)
            muladd = known or ir.Function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

            def pointer(argument: int, offset: Any) -> Any:
                data = context.make_array(signature.args[argument])(context, builder, arguments[argument]).data
                return builder.gep(data, [offset])

            def as_vector(at: Any) -> Any:
                return builder.bitcast(at, vector.as_pointer())

            rows = [builder.gep(pointer(0, a_at), [builder.mul(a_row, integer(r))]) for r in range(R)]
            panel = pointer(4, panel_at)
            before, loop, after = builder.block, builder.append_basic_block("over_k"), builder.append_basic_block("store")
            builder.branch(loop)

            builder.position_at_end(loop)
            k = builder.phi(integer)
            k.add_incoming(integer(0), before)
            sums = [builder.phi(vector) for _ in range(R * V)]
            at = builder.gep(panel, [builder.mul(k, integer(V * L))])
            w = [builder.load(as_vector(builder.gep(at, [integer(v * L)])), align=real.bitwidth // 8) for v in range(V)]
            for r in range(R):
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), builder.load(builder.gep(rows[r], [k])), ir.IntType(32)(0))
                all_lanes = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), L), [0] * L))
                for v in range(V):
                    total = sums[r * V + v]
                    total.add_incoming(ir.Constant(vector, [0.0] * L), before)
                    total.add_incoming(builder.call(muladd, [all_lanes, w[v], total]), loop)
            following = builder.add(k, integer(1))
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, K), loop, after)

            builder.position_at_end(after)
            for r in range(R):
                row = builder.gep(pointer(6, out_at), [builder.mul(out_row, integer(r))])
                for v in range(V):
                    result = sums[r * V + v].incomings[1][0]
                    builder.store(result, as_vector(builder.gep(row, [builder.mul(out_vector, integer(v))])), align=real.bitwidth // 8)
            return context.get_dummy_value()

        return signature, generate

    return tile


def multiplier(V: int) -> Callable[..., None]:
    """multiply(...) for panels of V vectors, to be called from Numba functions."""
    tallest = TALLEST[V]
    tile_tallest, tile_2, tile_1 = _tile(tallest, V), _tile(2, V), _tile(1, V)

    @njit(error_model="numpy")
    def multiply(
        a: Array,
        a_at: int,
        a_row: int,
        n: int,
        K: int,
        panels: Array,
        count: int,
        out: Array,
        out_panel: int,
        out_row: int,
        out_vector: int,
    ) -> None:
        """out = a @ w for n rows, `count` panels. All arrays one-dimensional; row r of `a` begins at a_at + r a_row, vector v of panel p of
        row r of `out` at p out_panel + r out_row + v out_vector."""
        size = panels.size // count
        for p in range(count):
            r = 0
            while r + tallest <= n:
                tile_tallest(a, a_at + r * a_row, a_row, K, panels, p * size, out, p * out_panel + r * out_row, out_row, out_vector)
                r += tallest
            while r + 2 <= n:
                tile_2(a, a_at + r * a_row, a_row, K, panels, p * size, out, p * out_panel + r * out_row, out_row, out_vector)
                r += 2
            if r < n:
                tile_1(a, a_at + r * a_row, a_row, K, panels, p * size, out, p * out_panel + r * out_row, out_row, out_vector)

    return multiply


multiply_3 = multiplier(3)
multiply_4 = multiplier(4)
