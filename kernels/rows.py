"""Products with a matrix as it lies, for Numba functions: what a single step needs, where packing would cost more than the product.

Every number is the dot product of two contiguous rows, in four registers of sums. The matrix is read once, as fast as memory gives it.
"""

from __future__ import annotations

from numba import njit

from minirnn.kernels.contract import Array
from minirnn.kernels.vectors import fetch, lanes_of, load, total, zeros

AHEAD = 4096  # bytes: further than the core looks by itself, which stops at the end of a page


@njit(error_model="numpy")
def rows_into(w: Array, first: int, last: int, x: Array, b: Array, out: Array) -> None:
    """out[n, m] += b[m] + sum over k of w[m, k] x[n, k] for the rows m = first .. last - 1.

    w (M, K), x (N, K), out (N, M), b (M,) or empty
    """
    K, L = w.shape[1], lanes_of(w)
    for m in range(first, last):
        for n in range(len(x)):
            of_w, of_x, k = m * K, n * K, 0
            sum_0, sum_1, sum_2, sum_3 = zeros(w), zeros(w), zeros(w), zeros(w)
            while k + 4 * L <= K:
                for v in range(4):
                    fetch(w, of_w + k + v * L + AHEAD // w.itemsize)
                sum_0 = sum_0 + load(w, of_w + k, None) * load(x, of_x + k, None)
                sum_1 = sum_1 + load(w, of_w + k + L, None) * load(x, of_x + k + L, None)
                sum_2 = sum_2 + load(w, of_w + k + 2 * L, None) * load(x, of_x + k + 2 * L, None)
                sum_3 = sum_3 + load(w, of_w + k + 3 * L, None) * load(x, of_x + k + 3 * L, None)
                k += 4 * L
            while k < K:
                sum_0 = sum_0 + load(w, of_w + k, K - k) * load(x, of_x + k, K - k)
                k += L
            result = total((sum_0 + sum_1) + (sum_2 + sum_3))
            out[n, m] += result + b[m] if b.size else result
