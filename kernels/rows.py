"""A product of few rows with a matrix as it lies, for Numba functions: out (n, M) = a (n, K) w^T for w (M, K), nothing packed.

A step of decoding multiplies a handful of rows by every weight once: to copy the weight (`matmul/numba_cpu.py`) would cost more than the
product. Every number is the dot product of two contiguous rows. A tile takes ROWS rows of w by C of a; its ROWS C sums are vectors along k,

    sum[j, c, l] = sum over k = l, l + L, ... of w[j, k] a[c, k]        ROWS + C loads for ROWS C multiply-adds

and at the end the L lanes of all of them are added: vectors are paired, and halves of each put side by side, which are added, so that L
vectors become one with their L totals in L - 1 additions. That costs a row as much as some 60 k's, packing as much as 4 rows: beyond some
tens of rows a packed matrix is faster. The rows of w are read from memory once, ROWS of them; the next ones are asked for meanwhile.

A number is the sum, in order, of the blocks of DEEPEST k's, whichever tile it falls in, so it depends on its two rows alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import extending, njit, types

from minirnn.kernels.contract import Array
from minirnn.kernels.tile import WIDE
from minirnn.kernels.tile import _Lanes as Lanes

_intrinsic: Callable[[Any], Any] = extending.intrinsic
ROWS = 8  # of w in a tile
TALLEST = 3 if WIDE else 1  # rows of a in a tile: sums, the rows of a and one of w fill the registers
DEEPEST = 512  # k's of a block: ROWS rows of it stay in the first cache while the rows of `a` pass by


@njit(error_model="numpy")
def rows_into(w: Array, first: int, last: int, x: Array, b: Array, out: Array) -> None:
    """out[n, m] += b[m] + sum over k of w[m, k] x[n, k] for the rows m = first .. last - 1.

    w (M, K), x (N, K), out (N, M), b (M,) or empty
    """
    (N, M), K = out.shape, w.shape[1]
    if b.size:
        for n in range(N):
            for m in range(first, last):
                out[n, m] += b[m]
    dots(x, 0, K, N, K, w, first * K, K, last - first, out, first, M, out, first, M, True)


@njit(error_model="numpy")
def dots(
    a: Any,
    a_at: int,
    a_row: int,
    n: int,
    K: int,
    w: Any,
    w_at: int,
    w_row: int,
    M: int,
    out: Any,
    out_at: int,
    out_row: int,
    start: Any,
    start_at: int,
    start_row: int,
    starts: bool,
) -> None:
    """out (n, M) = a w^T, and `start` if `starts`. Of each array, a vector: where its matrix begins, and how far apart rows are."""
    for m in range(0, M, ROWS):
        for k in range(0, K, DEEPEST):
            depth = min(DEEPEST, K - k)
            r = 0
            while r < n:
                left = (n - r + TALLEST - 1) // TALLEST  # tiles
                C = (n - r + left - 1) // left
                of_w = (w, w_at + m * w_row + k, w_row, min(ROWS, M - m), depth)
                to = (out, out_at + r * out_row + m, out_row)
                if k == 0:
                    _tile(C, r == 0, a, a_at + r * a_row + k, a_row, *of_w, *to, start, start_at + r * start_row + m, start_row, starts)
                else:
                    _tile(C, r == 0, a, a_at + r * a_row + k, a_row, *of_w, *to, *to, True)
                r += C


@_intrinsic
def _tile(
    context: Any,
    C: Any,
    is_first: Any,
    a: Any,
    a_at: Any,
    a_row: Any,
    w: Any,
    w_at: Any,
    w_row: Any,
    M: Any,
    K: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
    start: Any,
    start_at: Any,
    start_row: Any,
    starts: Any,
) -> Any:
    """out[c, j] = start[c, j] + sum over k of w[j, k] a[c, k] for j < M <= ROWS and c < C; `is_first` asks for the next rows of w."""
    place = types.intp
    operands = (a, place, place, w, place, place, place, place, out, place, place, start, place, place, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of = Lanes(context, builder, a.dtype)
        C, is_first, *others = (
            of.pointer(kind, argument) if isinstance(kind, types.Array) else argument
            for kind, argument in zip(signature.args, arguments, strict=True)
        )
        done = builder.append_basic_block("done")
        switch = builder.switch(builder.add(builder.mul(C, C.type(2)), builder.zext(is_first, C.type)), done)
        for rows in range(1, TALLEST + 1):
            for fetches in (False, True):
                block = builder.append_basic_block(f"dots_{rows}")
                switch.add_case(C.type(2 * rows + fetches), block)
                builder.position_at_end(block)
                _dots(of, rows, fetches, *others)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(place, types.boolean, *operands), generate


def _dots(
    of: Lanes,
    C: int,
    fetches: bool,
    a: Any,
    a_at: Any,
    a_row: Any,
    w: Any,
    w_at: Any,
    w_row: Any,
    M: Any,
    K: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
    start: Any,
    start_at: Any,
    start_row: Any,
    starts: Any,
) -> None:
    builder, integer, L = of.builder, K.type, of.L

    def element(array: Any, at: Any, row: Any, number: Any, more: Any) -> Any:
        return builder.gep(array, [builder.add(builder.add(at, builder.mul(row, number)), more)])

    last = builder.sub(M, integer(1))  # it stands in for the rows that are not there
    of_w = []
    for j in range(ROWS):
        there = builder.select(builder.icmp_signed("<", integer(j), last), integer(j), last)
        of_w.append(element(w, w_at, w_row, there, integer(0)))
    of_a = [element(a, a_at, a_row, integer(c), integer(0)) for c in range(C)]
    whole = builder.and_(builder.sub(K, integer(1)), integer(-L))  # k's before the last vector, of 1 .. L numbers
    before, head = builder.block, builder.append_basic_block("head")
    loop, after = builder.append_basic_block("over_k"), builder.append_basic_block("rest")
    builder.branch(head)

    builder.position_at_end(head)
    k = builder.phi(integer)
    sums = {(c, j): builder.phi(of.vector) for c in range(C) for j in range(ROWS)}
    builder.cbranch(builder.icmp_signed("<", k, whole), loop, after)

    def added(load: Any) -> dict[tuple[int, int], Any]:
        xs = [load(row) for row in of_a]
        ws = [load(row) for row in of_w]
        return {(c, j): of.muladd(ws[j], xs[c], sums[c, j]) for j in range(ROWS) for c in range(C)}

    builder.position_at_end(loop)
    if fetches:
        ahead = builder.add(k, builder.mul(w_row, integer(ROWS)))
        for row in of_w:
            of.will_read(builder.gep(row, [ahead]))
    new = added(lambda row: of.load(builder.gep(row, [k])))
    for which, phi in sums.items():
        phi.add_incoming(of.zero, before)
        phi.add_incoming(new[which], loop)
    k.add_incoming(integer(0), before)
    k.add_incoming(builder.add(k, integer(L)), loop)
    builder.branch(head)

    builder.position_at_end(after)
    rest = of.first(builder.sub(K, whole))
    new = added(lambda row: of.load_where(rest, builder.gep(row, [whole])))
    for c in range(C):
        for i, result in enumerate(of.totals([new[c, j] for j in range(ROWS)])):
            at = integer(i * L)
            mask = of.first(builder.sub(M, at))
            started = builder.and_(mask, of.everywhere(starts))
            begun = of.load_where(started, element(start, start_at, start_row, integer(c), at))
            of.store_where(mask, builder.fadd(result, begun), element(out, out_at, out_row, integer(c), at))
