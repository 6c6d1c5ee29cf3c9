"""A tile of sums of products between gathered rows and packed vectors, kept in registers; for Numba functions.

    out[r, v, :] (+)= start[v, :] + sum over g, k of a[rows[r] + offsets[g] + k step] b[g, k, v, :]     g = 0 .. G-1,  k = 0 .. run-1

`rows` and `offsets` say where things are, so that one tile serves all three products of a convolution: a row is a place and the sum goes
over a window, or a row is an element of the window and the sum goes over places. The R V vectors of `out` are the accumulators; one k costs
V loads and R broadcasts for R V multiply-adds. Every number of `out` is one chain of multiply-adds in the order of g and k, whichever
tile it falls in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from minirnn.kernels.contract import Array
from minirnn.kernels.product import VECTOR

WIDE = VECTOR == 64
HEIGHTS = (
    {2: (8, 4, 2, 1), 3: (8, 4, 2, 1), 4: (6, 4, 2, 1)} if WIDE else {2: (6, 4, 2, 1), 3: (4, 2, 1), 4: (3, 2, 1)}
)  # 32 or 16 registers


def _tile(R: int, V: int, adds: bool) -> Any:
    """R rows, V vectors; with `adds` the sums are added to `out`, which then plays the part of `start` at the end."""

    @intrinsic
    def tile(
        context: Any,
        a: Any,
        a_at: Any,
        rows: Any,
        rows_at: Any,
        step: Any,
        offsets: Any,
        offsets_at: Any,
        G: Any,
        run: Any,
        b: Any,
        b_at: Any,
        b_step: Any,
        start: Any,
        start_at: Any,
        out: Any,
        out_at: Any,
        outs: Any,
        outs_at: Any,
    ) -> Any:
        signature = types.void(
            a, a_at, rows, rows_at, step, offsets, offsets_at, G, run, b, b_at, b_step, start, start_at, out, out_at, outs, outs_at
        )
        real = a.dtype
        L = VECTOR * 8 // real.bitwidth

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a_at, rows_at, step, offsets_at, G, run = (arguments[k] for k in (1, 3, 4, 6, 7, 8))
            b_at, b_step, start_at, out_at, outs_at = (arguments[k] for k in (10, 11, 13, 15, 17))
            scalar = context.get_value_type(real)
            vector = ir.VectorType(scalar, L)
            integer = a_at.type
            name = f"llvm.fmuladd.v{L}f{real.bitwidth}"
            muladd = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
            bytes_ = real.bitwidth // 8

            def pointer(argument: int, offset: Any) -> Any:
                data = context.make_array(signature.args[argument])(context, builder, arguments[argument]).data
                return builder.gep(data, [offset])

            def entry(argument: int, index: Any) -> Any:
                return builder.load(pointer(argument, index))

            def vectors_at(at: Any) -> list[Any]:
                places = [builder.gep(at, [integer(v * L)]) for v in range(V)]
                return [builder.load(builder.bitcast(place, vector.as_pointer()), align=bytes_) for place in places]

            firsts = [pointer(0, builder.add(a_at, entry(2, builder.add(rows_at, integer(r))))) for r in range(R)]
            begins = [ir.Constant(vector, [0.0] * L)] * V if adds else vectors_at(pointer(12, start_at))
            panel = pointer(9, b_at)
            before = builder.block
            outer, inner, latch, after = (builder.append_basic_block(name) for name in ("over_g", "over_k", "next_g", "store"))
            builder.branch(outer)

            builder.position_at_end(outer)
            g, at_g = builder.phi(integer), builder.phi(panel.type)
            g.add_incoming(integer(0), before)
            at_g.add_incoming(panel, before)
            sums_g = [builder.phi(vector) for _ in range(R * V)]
            for j, total in enumerate(sums_g):
                total.add_incoming(begins[j % V], before)
            offset = entry(5, builder.add(offsets_at, g))
            builder.branch(inner)

            builder.position_at_end(inner)
            k, at, place = builder.phi(integer), builder.phi(panel.type), builder.phi(integer)
            k.add_incoming(integer(0), outer)
            at.add_incoming(at_g, outer)
            place.add_incoming(offset, outer)
            sums = [builder.phi(vector) for _ in range(R * V)]
            w = vectors_at(at)
            found = []
            for r in range(R):
                one = builder.load(builder.gep(firsts[r], [place]))
                lane = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
                every = builder.shuffle_vector(lane, lane, ir.Constant(ir.VectorType(ir.IntType(32), L), [0] * L))
                found += [builder.call(muladd, [every, w[v], sums[r * V + v]]) for v in range(V)]
            for total, begun, now in zip(sums, sums_g, found, strict=True):
                total.add_incoming(begun, outer)
                total.add_incoming(now, inner)
            following, beyond = builder.add(k, integer(1)), builder.gep(at, [b_step])
            k.add_incoming(following, inner)
            at.add_incoming(beyond, inner)
            place.add_incoming(builder.add(place, step), inner)
            builder.cbranch(builder.icmp_signed("<", following, run), inner, latch)

            builder.position_at_end(latch)
            later = builder.add(g, integer(1))
            g.add_incoming(later, latch)
            at_g.add_incoming(beyond, latch)
            for total, now in zip(sums_g, found, strict=True):
                total.add_incoming(now, latch)
            builder.cbranch(builder.icmp_signed("<", later, G), outer, after)

            builder.position_at_end(after)
            for r in range(R):
                row = pointer(14, builder.add(out_at, entry(16, builder.add(outs_at, integer(r)))))
                there = vectors_at(row) if adds else None
                for v in range(V):
                    result = builder.fadd(there[v], found[r * V + v]) if there else found[r * V + v]
                    at = builder.bitcast(builder.gep(row, [integer(v * L)]), vector.as_pointer())
                    builder.store(result, at, align=bytes_)
            return context.get_dummy_value()

        return signature, generate

    return tile


def sweeper(V: int, adds: bool = False) -> Callable[..., None]:
    """sweep(...): tiles of V vectors over n rows, to be called from Numba functions. All arrays are one-dimensional."""
    heights = HEIGHTS[V]
    tallest, taller = heights[0], heights[1]
    tile_tallest, tile_taller, tile_2, tile_1 = (_tile(R, V, adds) for R in (tallest, taller, 2, 1))

    def sweep(
        a: Array,
        a_at: int,
        rows: Array,
        at: int,
        n: int,
        step: int,
        offsets: Array,
        offsets_at: int,
        G: int,
        run: int,
        b: Array,
        b_at: int,
        b_step: int,
        start: Array,
        start_at: int,
        out: Array,
        out_at: int,
        outs: Array,
    ) -> None:
        """Rows at .. at + n - 1 of `rows` and `outs`; the other arguments are the tile's."""
        last = at + n
        while at + tallest <= last:
            tile_tallest(a, a_at, rows, at, step, offsets, offsets_at, G, run, b, b_at, b_step, start, start_at, out, out_at, outs, at)
            at += tallest
        while at + taller <= last:
            tile_taller(a, a_at, rows, at, step, offsets, offsets_at, G, run, b, b_at, b_step, start, start_at, out, out_at, outs, at)
            at += taller
        while at + 2 <= last:
            tile_2(a, a_at, rows, at, step, offsets, offsets_at, G, run, b, b_at, b_step, start, start_at, out, out_at, outs, at)
            at += 2
        if at < last:
            tile_1(a, a_at, rows, at, step, offsets, offsets_at, G, run, b, b_at, b_step, start, start_at, out, out_at, outs, at)

    sweep.__name__ = sweep.__qualname__ = f"sweep_{V}_{'adds' if adds else 'begins'}"  # compiled code is kept under this name
    return njit(error_model="numpy")(sweep)
