"""The loops of a fused convolution, for tiles of 2, 3 and 4 vectors.

    convolve_V   thread p's blocks of places: (1) and (4) of numpy_.py
    weigh_V      thread p's elements of the window, for all places: (2), and (3)

All arrays but `blocks` (B, 5) and `parts` (N, F) are one-dimensional. What is compiled and kept must name what it calls, so each stands
here for itself.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.conv.tile import HEIGHTS, sweeper
from minirnn.kernels.product import VECTOR

BLOCK = 48  # places that a thread takes at a time
PLACES = 256  # of an image, whose sum dw takes at a time: their dy stays in cache


def _over_blocks(V: int) -> Callable[..., None]:
    """What `convolve_V` does."""
    sweep = sweeper(V)

    def over_blocks(
        p: int,
        P: int,
        images: Array,
        image: int,
        N: int,
        rows: Array,
        outs: Array,
        offsets: Array,
        run: int,
        blocks: Array,
        panels: Array,
        start: Array,
        out: Array,
        result: int,
        J: int,
        scratch: Array,
        lines: Array,
    ) -> None:
        """Thread p's blocks. Lanes beyond J would overwrite what comes next, so a panel that has such goes by way of `scratch`."""
        B, width = len(blocks), V * (VECTOR // out.itemsize)
        own = p * BLOCK * width
        size = panels.size // (start.size // width)  # of a panel with all phases
        for unit in range(p * N * B // P, (p + 1) * N * B // P):
            n, block = unit // B, unit % B
            first, count, before, G, numbers = blocks[block]
            for panel in range(start.size // width):
                at, b_at, used = panel * width, panel * size + numbers * width, min(width, J - panel * width)
                if used == width:
                    sweep(
                        images,
                        n * image,
                        rows,
                        first,
                        count,
                        1,
                        offsets,
                        before,
                        G,
                        run,
                        panels,
                        b_at,
                        width,
                        start,
                        at,
                        out,
                        n * result + at,
                        outs,
                    )
                    continue
                to = own - first * width
                sweep(images, n * image, rows, first, count, 1, offsets, before, G, run, panels, b_at, width, start, at, scratch, to, lines)
                for row in range(first, first + count):
                    for lane in range(used):
                        out[n * result + outs[row] + at + lane] = scratch[to + lines[row] + lane]

    over_blocks.__name__ = over_blocks.__qualname__ = f"over_blocks_{V}"  # compiled code is kept under this name
    return njit(error_model="numpy")(over_blocks)


def _over_elements(V: int) -> Callable[..., None]:
    """What `weigh_V` does."""
    sweep, tallest = sweeper(V, adds=True), HEIGHTS[V][0]

    def over_elements(
        p: int,
        P: int,
        images: Array,
        image: int,
        elements: Array,
        step: int,
        lines: Array,
        dy: Array,
        columns: int,
        Q: int,
        dwt: Array,
        outs: Array,
        C: int,
        dw: Array,
        parts: Array,
    ) -> None:
        """Thread p's elements of the window, for all places; and the sums of dy of its images."""
        N, K, height, width = len(parts), len(elements), max(1, PLACES // Q), V * (VECTOR // dy.itemsize)
        UV = K // C
        tiles = (K + tallest - 1) // tallest
        first, last = p * tiles // P * tallest, min(K, (p + 1) * tiles // P * tallest)
        for n in range(N):
            for top in range(0, len(lines), height):
                G = min(height, len(lines) - top)
                b_at = (n * len(lines) + top) * Q * columns
                for panel in range(columns // width):
                    at = panel * width
                    sweep(
                        images,
                        n * image,
                        elements,
                        first,
                        last - first,
                        step,
                        lines,
                        top,
                        G,
                        Q,
                        dy,
                        b_at + at,
                        columns,
                        dwt,
                        0,
                        dwt,
                        at,
                        outs,
                    )
        for k in range(first, last):
            line, there = dwt[k * columns :], dw[k % C * UV + k // C :]
            for f in range(len(dw) // K):
                there[f * K] = line[f]
        for n in range(p * N // P, (p + 1) * N // P):
            for place in range(n * len(lines) * Q, (n + 1) * len(lines) * Q):
                row = dy[place * columns :]
                for f in range(columns):
                    parts[n, f] += row[f]

    over_elements.__name__ = over_elements.__qualname__ = f"over_elements_{V}"
    return njit(error_model="numpy")(over_elements)


@compiled()
def pad(p: int, P: int, x: Array, out: Array, top: int, left: int) -> None:
    """x (N, H, W, C) into out (N, height, width): `left` numbers of a row before it, and the rest, are zeros"""
    N, H, W, C = x.shape
    for n in range(p * N // P, (p + 1) * N // P):
        out[n, :top] = 0
        out[n, top + H :] = 0
        for h in range(H):
            row = out[n, top + h]
            row[:left] = 0
            row[left + W * C :] = 0
            for w in range(W):
                pixel = row[left + w * C :]
                for c in range(C):
                    pixel[c] = x[n, h, w, c]


@compiled()
def pack(p: int, P: int, w: Array, J: int, by_j: int, by_i: int, numbers: int, elements: Array, run: int, panels: Array) -> None:
    """panels[panel, k, lane] = w[j by_j + i by_i + element], k = (element, along the window, i)"""
    count, _, width = panels.shape
    for panel in range(p * count // P, (p + 1) * count // P):
        used = min(width, J - panel * width)
        first = panel * width * by_j
        k = 0
        for element in elements:
            for along in range(run // numbers):
                for i in range(numbers):
                    at = first + i * by_i + element + along
                    for lane in range(used):
                        panels[panel, k, lane] = w[at + lane * by_j]
                    for lane in range(used, width):
                        panels[panel, k, lane] = 0
                    k += 1


_over_blocks_2 = _over_blocks(2)
_over_blocks_3 = _over_blocks(3)
_over_blocks_4 = _over_blocks(4)


@compiled(error_model="numpy")
def convolve_2(
    p: int,
    P: int,
    images: Array,
    image: int,
    N: int,
    rows: Array,
    outs: Array,
    offsets: Array,
    run: int,
    blocks: Array,
    panels: Array,
    start: Array,
    out: Array,
    result: int,
    J: int,
    scratch: Array,
    lines: Array,
) -> None:
    _over_blocks_2(p, P, images, image, N, rows, outs, offsets, run, blocks, panels, start, out, result, J, scratch, lines)


@compiled(error_model="numpy")
def convolve_3(
    p: int,
    P: int,
    images: Array,
    image: int,
    N: int,
    rows: Array,
    outs: Array,
    offsets: Array,
    run: int,
    blocks: Array,
    panels: Array,
    start: Array,
    out: Array,
    result: int,
    J: int,
    scratch: Array,
    lines: Array,
) -> None:
    _over_blocks_3(p, P, images, image, N, rows, outs, offsets, run, blocks, panels, start, out, result, J, scratch, lines)


@compiled(error_model="numpy")
def convolve_4(
    p: int,
    P: int,
    images: Array,
    image: int,
    N: int,
    rows: Array,
    outs: Array,
    offsets: Array,
    run: int,
    blocks: Array,
    panels: Array,
    start: Array,
    out: Array,
    result: int,
    J: int,
    scratch: Array,
    lines: Array,
) -> None:
    _over_blocks_4(p, P, images, image, N, rows, outs, offsets, run, blocks, panels, start, out, result, J, scratch, lines)


_over_elements_2 = _over_elements(2)
_over_elements_3 = _over_elements(3)
_over_elements_4 = _over_elements(4)


@compiled(error_model="numpy")
def weigh_2(
    p: int,
    P: int,
    images: Array,
    image: int,
    elements: Array,
    step: int,
    lines: Array,
    dy: Array,
    columns: int,
    Q: int,
    dwt: Array,
    outs: Array,
    C: int,
    dw: Array,
    parts: Array,
) -> None:
    _over_elements_2(p, P, images, image, elements, step, lines, dy, columns, Q, dwt, outs, C, dw, parts)


@compiled(error_model="numpy")
def weigh_3(
    p: int,
    P: int,
    images: Array,
    image: int,
    elements: Array,
    step: int,
    lines: Array,
    dy: Array,
    columns: int,
    Q: int,
    dwt: Array,
    outs: Array,
    C: int,
    dw: Array,
    parts: Array,
) -> None:
    _over_elements_3(p, P, images, image, elements, step, lines, dy, columns, Q, dwt, outs, C, dw, parts)


@compiled(error_model="numpy")
def weigh_4(
    p: int,
    P: int,
    images: Array,
    image: int,
    elements: Array,
    step: int,
    lines: Array,
    dy: Array,
    columns: int,
    Q: int,
    dwt: Array,
    outs: Array,
    C: int,
    dw: Array,
    parts: Array,
) -> None:
    _over_elements_4(p, P, images, image, elements, step, lines, dy, columns, Q, dwt, outs, C, dw, parts)
