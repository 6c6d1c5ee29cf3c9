"""Dropout (Srivastava et al. 2014) whose mask is computed where it is needed: in the forward pass, and in the backward pass again.

Element e of x, counted in C order, is decided by one word of 32 random bits, a function of the key and of e alone:

    (w_0, w_1, w_2, w_3) = Philox4x32-10(counter (b, 0, 0), key)        b = e // 4, 64 bits         (1)
    kept_e = w_(e mod 4) >= q                                           q = round(2^32 p)           (2)
    y_e = x_e / (1 - p) where it is kept, 0 elsewhere                                               (3)

Philox (Salmon et al. 2011, section 3.3) is ten rounds of integer products, so every implementation on every device makes the same mask.
With counter (c_0, c_1, c_2, c_3) and key (k_0, k_1), words of 32 bits with the lowest first, a round is

    c <- (high(M_1 c_2) xor c_1 xor k_0,  low(M_1 c_2),  high(M_0 c_0) xor c_3 xor k_1,  low(M_0 c_0))      (4)
    k <- (k_0 + W_0,  k_1 + W_1)   mod 2^32                                                                 (5)

An element that is dropped takes no part: y is 0 there (+0) even where x is inf or NaN, which a product with a mask would turn into NaN.
The map is linear, so its gradient is dx = apply(dy, p, key), and so is the gradient of that. Whoever calls draws one key for each mask.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array

ROUNDS = 10
M = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)  # the multipliers
W = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)  # what a round adds to the key: the golden ratio, and sqrt(3) - 1
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)  # bits
CHUNK = 1 << 14  # elements: what their words need along the way stays in cache


def apply(x: Array, p: float, key: int) -> Array:
    """x of any shape, real or complex; p in [0, 1), the probability of 0; key in [0, 2^64) -> y like x, in C order

    float16 is multiplied by 1 / (1 - p) in float32, as on a GPU.
    """
    wide = np.result_type(x.dtype, np.float32).type
    y = x.astype(wide, order="C") * wide(1 / (1 - p))
    return np.where(mask(x.size, p, key).reshape(x.shape), y, wide(0)).astype(x.dtype, copy=False)  #        (3)


def mask(size: int, p: float, key: int) -> Array:
    """Which of elements 0 .. size - 1 are kept: (size,) bool"""
    q, kept = threshold(p), np.empty(size, bool)
    for first in range(0, size, CHUNK):
        last = min(first + CHUNK, size)
        b = np.arange(first // 4, -(-last // 4), dtype=np.uint64)  # (B,)
        words = philox(np.stack([b & LOW, b >> WORD, 0 * b, 0 * b]), key)  # (4, B) (1)
        kept[first:last] = words.T.reshape(-1)[: last - first] >= q  #              (2)
    return kept


def threshold(p: float) -> int:
    """q of (2): of the 2^32 words, those below it drop their element. It is below 2^32, so p next to 1 keeps one in 2^32."""
    return min(round(p * 2**32), 2**32 - 1)


def philox(counter: Array, key: int) -> Array:
    """counter (4, B) uint64, each a word of 32 bits; key in [0, 2^64) -> words (4, B) uint32"""
    c_0, c_1, c_2, c_3 = counter  # (B,)
    k = np.array([key & 0xFFFFFFFF, key >> 32], np.uint64)
    for _ in range(ROUNDS):
        m_0, m_1 = M[0] * c_0, M[1] * c_2  # (B,), 64 bits
        c_0, c_1, c_2, c_3 = (m_1 >> WORD) ^ c_1 ^ k[0], m_1 & LOW, (m_0 >> WORD) ^ c_3 ^ k[1], m_0 & LOW  # (4)
        k = (k + W) & LOW  #                                                        (5)
    return np.stack([c_0, c_1, c_2, c_3]).astype(np.uint32)
