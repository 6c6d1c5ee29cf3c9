"""What Numba's own loops do not keep in registers, in the compiler's vector instructions: the tile of a product, and a transposed block.

A tile is R rows by V vectors of L numbers (L fills a register). Its R V sums stay in registers while it walks over k once: V loads and R
broadcasts feed R V multiply-adds,

    sum[r, v, l] = sum over k of a[r, k] w[k, v, l]        k in order, one chain of multiply-adds for every number

so a result does not depend, in any bit, on the tile that it falls in. All arrays are one-dimensional, or taken as such, with offsets.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_config: Any = numba.config
_features = _config.CPU_FEATURES  # what Numba was told to compile for, or None: for this machine
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f")) and "+avx512f" in (_features or "+avx512f")
VECTOR = 64 if WIDE else 32  # bytes of one register, of which there are 32 or 16

_int32 = ir.IntType(32)


class _Lanes:
    """Vectors of one dtype at one place of the code."""

    def __init__(self, context: Any, builder: Any, real: Any) -> None:
        self.context, self.builder = context, builder
        self.L = VECTOR * 8 // real.bitwidth
        self.vector = ir.VectorType(context.get_value_type(real), self.L)
        self.zero = ir.Constant(self.vector, [0.0] * self.L)
        self.name = f"v{self.L}f{real.bitwidth}"
        self.align = real.bitwidth // 8

    def pointer(self, array: Any, value: Any) -> Any:
        """Where an array begins."""
        return self.context.make_array(array)(self.context, self.builder, value).data

    def load(self, at: Any) -> Any:
        return self.builder.load(self.builder.bitcast(at, self.vector.as_pointer()), align=self.align)

    def load_where(self, mask: Any, at: Any) -> Any:
        """The lanes that the mask has, and 0; nothing is read of the others."""
        pointer = self.vector.as_pointer()
        f = self._function(f"masked.load.{self.name}.p0{self.name}", self.vector, pointer, _int32, mask.type, self.vector)
        return self.builder.call(f, [self.builder.bitcast(at, pointer), _int32(self.align), mask, self.zero])

    def will_write(self, at: Any) -> None:
        """Ask for the cache line that is to be written."""
        byte = ir.IntType(8).as_pointer()
        f = self._function("prefetch.p0i8", ir.VoidType(), byte, _int32, _int32, _int32)
        self.builder.call(f, [self.builder.bitcast(at, byte), _int32(1), _int32(3), _int32(1)])

    def will_read(self, at: Any) -> None:
        """Ask for a cache line that need not exist."""
        byte = ir.IntType(8).as_pointer()
        f = self._function("prefetch.p0i8", ir.VoidType(), byte, _int32, _int32, _int32)
        self.builder.call(f, [self.builder.bitcast(at, byte), _int32(0), _int32(3), _int32(1)])

    def store_where(self, mask: Any, value: Any, at: Any) -> None:
        pointer = self.vector.as_pointer()
        f = self._function(f"masked.store.{self.name}.p0{self.name}", ir.VoidType(), self.vector, pointer, _int32, mask.type)
        self.builder.call(f, [value, self.builder.bitcast(at, pointer), _int32(self.align), mask])

    def muladd(self, x: Any, y: Any, z: Any) -> Any:
        return self.builder.call(self._function(f"fmuladd.{self.name}", self.vector, *[self.vector] * 3), [x, y, z])

    def everywhere(self, number: Any) -> Any:
        """A number in all lanes."""
        one = self.builder.insert_element(ir.Constant(ir.VectorType(number.type, self.L), ir.Undefined), number, _int32(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_int32, self.L), [0] * self.L))

    def first(self, count: Any) -> Any:
        """The mask of the first `count` lanes: none for a negative count, all for L or more."""
        order = ir.Constant(ir.VectorType(count.type, self.L), list(range(self.L)))
        return self.builder.icmp_signed("<", order, self.everywhere(count))

    def zip(self, x: Any, y: Any) -> tuple[Any, Any]:
        """x0 y0 x1 y1 ..., in two vectors."""
        both = [lane for pair in zip(range(self.L), range(self.L, 2 * self.L), strict=True) for lane in pair]
        masks = (ir.Constant(ir.VectorType(_int32, self.L), half) for half in (both[: self.L], both[self.L :]))
        low, high = (self.builder.shuffle_vector(x, y, mask) for mask in masks)
        return low, high

    def totals(self, xs: list[Any]) -> list[Any]:
        """The sum over the lanes of each vector, in order, in as few vectors as hold them; a power of 2 of vectors.

        Of every two vectors the halves are put side by side and added: the first halves of all groups of lanes and the second ones.
        """
        group = self.L  # lanes that are parts of one sum
        while group > 1:
            halves = [[lane for lane in range(2 * self.L) if (lane % group < group // 2) == is_first] for is_first in (True, False)]
            masks = [ir.Constant(ir.VectorType(_int32, self.L), lanes) for lanes in halves]
            pairs = list(zip(xs[::2], xs[1::2], strict=True)) if len(xs) > 1 else [(xs[0], xs[0])]
            xs = [self.builder.fadd(*(self.builder.shuffle_vector(x, y, mask) for mask in masks)) for x, y in pairs]
            group //= 2
        return xs

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        module = self.builder.module
        return module.globals.get(f"llvm.{name}") or ir.Function(module, ir.FunctionType(result, arguments), f"llvm.{name}")


def tiles(V: int, tallest: int, at_once: int) -> Any:
    """The tiles of V vectors, for Numba functions, as one function: 1 .. `tallest` rows of one panel, or one row of 1 .. `at_once` panels.

    R, Q                        rows and panels; Q is a power of 2
    a, a_at, a_row, a_k         a[r, k] is element a_at + r a_row + k a_k
    K                           at least 1
    panels, w_at, w_panel       w[k, v, :] of panel q are the L elements from w_at + q w_panel + (k V + v) L
    out, out_at, out_row, out_panel, out_vector
                                its sum[r, v, :] goes to the L elements from out_at + r out_row + q out_panel + v out_vector
    start, start_at, start_row, starts
                                what is added to the sums, otherwise laid out as `out` is; nothing unless `starts`
    columns                     of the Q V L columns, the first so many are read from `start` and written
    """
    shapes = [(R, 1) for R in range(1, tallest + 1)] + [(1, Q) for Q in (2, 4) if at_once >= Q]

    @intrinsic
    def tile(
        context: Any,
        R: Any,
        Q: Any,
        a: Any,
        a_at: Any,
        a_row: Any,
        a_k: Any,
        K: Any,
        panels: Any,
        w_at: Any,
        w_panel: Any,
        out: Any,
        out_at: Any,
        out_row: Any,
        out_panel: Any,
        out_vector: Any,
        start: Any,
        start_at: Any,
        start_row: Any,
        starts: Any,
        columns: Any,
    ) -> Any:
        place = types.intp
        arguments = (
            (place,) * 2,
            (a, *(place,) * 4),
            (panels, *(place,) * 2),
            (out, *(place,) * 4),
            (start, place, place, types.boolean, place),
        )
        signature = types.void(*itertools.chain(*arguments))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            of = _Lanes(context, builder, a.dtype)
            R, Q, *others = (
                of.pointer(kind, argument) if isinstance(kind, types.Array) else argument
                for kind, argument in zip(signature.args, arguments, strict=True)
            )
            operands = _Operands(*others)
            done = builder.append_basic_block("done")
            switch = builder.switch(builder.add(builder.mul(R, R.type(8)), Q), done)
            for rows, panels in shapes:
                block = builder.append_basic_block(f"tile_{rows}_{panels}")
                switch.add_case(R.type(rows * 8 + panels), block)
                builder.position_at_end(block)
                _tile(of, rows, panels, V, operands)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    return tile


class _Operands(NamedTuple):
    """What a tile works on: pointers and numbers of the code that is being written."""

    a: Any
    a_at: Any
    a_row: Any
    a_k: Any
    K: Any
    panels: Any
    w_at: Any
    w_panel: Any
    out: Any
    out_at: Any
    out_row: Any
    out_panel: Any
    out_vector: Any
    start: Any
    start_at: Any
    start_row: Any
    starts: Any
    columns: Any


def _tile(of: _Lanes, R: int, Q: int, V: int, x: _Operands) -> None:
    """The code of one tile."""
    builder, L, integer = of.builder, of.L, x.K.type

    def element(array: Any, at: Any, *steps: tuple[Any, Any]) -> Any:
        for size, times in steps:
            at = builder.add(at, builder.mul(size, times if isinstance(times, ir.Value) else integer(times)))
        return builder.gep(array, [at])

    vectors = [(q, v) for q in range(Q) for v in range(V)]
    rows = [element(x.a, x.a_at, (x.a_row, r)) for r in range(R)]
    panels = [element(x.panels, x.w_at, (x.w_panel, q)) for q in range(Q)]
    for q, v in vectors:
        for r in range(R):
            of.will_write(element(x.out, x.out_at, (x.out_row, r), (x.out_panel, q), (x.out_vector, v)))
    before, loop, after = builder.block, builder.append_basic_block("over_k"), builder.append_basic_block("store")
    builder.branch(loop)

    builder.position_at_end(loop)
    k, a_k = builder.phi(integer), builder.phi(integer)
    sums = {(r, *vector): builder.phi(of.vector) for r in range(R) for vector in vectors}

    def of_row(r: int) -> Any:
        return of.everywhere(builder.load(builder.gep(rows[r], [a_k])))

    def of_vector(q: int, v: int) -> Any:
        return of.load(element(panels[q], integer(v * L), (integer(V * L), k)))

    def add(r: int, q: int, v: int, factor: Any, w: Any) -> None:
        sums[r, q, v].add_incoming(of.zero, before)
        sums[r, q, v].add_incoming(of.muladd(factor, w, sums[r, q, v]), loop)

    if len(vectors) <= R:  # the fewer operands wait in registers, the others come one by one
        ws = {vector: of_vector(*vector) for vector in vectors}
        for r in range(R):
            factor = of_row(r)
            for vector in vectors:
                add(r, *vector, factor, ws[vector])
    else:
        factors = [of_row(r) for r in range(R)]
        for vector in vectors:
            w = of_vector(*vector)
            for r in range(R):
                add(r, *vector, factors[r], w)
    for phi, step in ((k, integer(1)), (a_k, x.a_k)):
        phi.add_incoming(integer(0), before)
        phi.add_incoming(builder.add(phi, step), loop)
    builder.cbranch(builder.icmp_signed("<", k.incomings[1][0], x.K), loop, after)

    builder.position_at_end(after)
    for q, v in vectors:
        mask = of.first(builder.sub(x.columns, integer((q * V + v) * L)))
        started = builder.and_(mask, of.everywhere(x.starts))
        for r in range(R):
            start = of.load_where(started, element(x.start, x.start_at, (x.start_row, r), (x.out_panel, q), (x.out_vector, v)))
            result = builder.fadd(sums[r, q, v].incomings[1][0], start)
            of.store_where(mask, result, element(x.out, x.out_at, (x.out_row, r), (x.out_panel, q), (x.out_vector, v)))


def _transpose(
    context: Any,
    source: Any,
    source_at: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
    target: Any,
    target_at: Any,
    target_row: Any,
) -> Any:
    """target[k, l] = source[l, k] for the L lanes l and k < min(columns, L), 0 for l >= rows; `..._row` elements lie between two rows.

    log2 L times the same step on the L vectors: the first half of them is zipped with the second.
    """
    place = types.intp
    signature = types.void(source, place, place, place, place, target, place, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of = _Lanes(context, builder, signature.args[0].dtype)
        source_at, source_row, rows, columns = arguments[1:5]
        target_at, target_row = arguments[6:8]
        integer, L = rows.type, of.L
        source, target = (of.pointer(signature.args[k], arguments[k]) for k in (0, 5))
        wanted = of.first(columns)
        x = []
        for lane in range(L):
            mask = builder.and_(wanted, of.everywhere(builder.icmp_signed(">", rows, integer(lane))))
            x.append(of.load_where(mask, builder.gep(source, [builder.add(source_at, builder.mul(source_row, integer(lane)))])))
        for _ in range(L.bit_length() - 1):
            x = [half for i in range(L // 2) for half in of.zip(x[i], x[i + L // 2])]
        for k in range(L):
            mask = of.everywhere(builder.icmp_signed(">", columns, integer(k)))
            of.store_where(mask, x[k], builder.gep(target, [builder.add(target_at, builder.mul(target_row, integer(k)))]))
        return context.get_dummy_value()

    return signature, generate


def _copy(context: Any, source: Any, source_at: Any, columns: Any, target: Any, target_at: Any, width: Any) -> Any:
    """target[l] = source[l] for l < columns, 0 for the others of l < width <= L; nothing else is written."""
    signature = types.void(source, types.intp, types.intp, target, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of = _Lanes(context, builder, signature.args[0].dtype)
        source, target = (of.pointer(signature.args[k], arguments[k]) for k in (0, 3))
        source_at, columns, target_at, width = (arguments[k] for k in (1, 2, 4, 5))
        x = of.load_where(of.first(columns), builder.gep(source, [source_at]))
        of.store_where(of.first(width), x, builder.gep(target, [target_at]))
        return context.get_dummy_value()

    return signature, generate


transpose: Any = intrinsic(_transpose)
copy: Any = intrinsic(_copy)
