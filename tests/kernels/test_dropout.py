"""Dropout: its random words against published ones and NumPy's, its mask against what it promises, every implementation to the bit."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.dropout import cupy_, numba_cpu, numpy_
from tests.kernels import on_device
from tests.kernels.on_device import EMULATED, SCHEDULES

KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
KEYS = st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 7, 37, 131]), max_size=2).map(tuple)
P = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-12])


def plain_philox(counter: list[int], key: list[int], bits: int) -> list[int]:
    """Philox4x32 or 4x64 with ten rounds, in Python's integers: only the constants know the width."""
    m = {32: (0xD2511F53, 0xCD9E8D57), 64: (0xD2E7470EE14C6C93, 0xCA5A826395121157)}[bits]
    w = {32: (0x9E3779B9, 0xBB67AE85), 64: (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)}[bits]
    for _ in range(10):
        (high_0, low_0), (high_1, low_1) = divmod(m[0] * counter[0], 2**bits), divmod(m[1] * counter[2], 2**bits)
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0]
        key = [(k + step) % 2**bits for k, step in zip(key, w, strict=True)]
    return counter


def words(size: int, key: int) -> list[int]:
    """Word e mod 4 of counter e // 4, of every element e."""
    return [plain_philox([e // 4, 0, 0, 0], [key % 2**32, key >> 32], 32)[e % 4] for e in range(size)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_the_words_are_those_published_with_random123(counter: list[int], key: int, expected: list[int]) -> None:
    got = numpy_.philox(np.array(counter, np.uint64)[:, None], key)
    assert got.dtype == np.uint32
    assert got[:, 0].tolist() == expected


def test_the_same_rounds_with_64_bits_are_those_of_numpy(rng: np.random.Generator) -> None:
    """NumPy has Philox4x64; it counts up before it draws. What the plain form gets right for it, it gets right for 32 bits."""
    for _ in range(10):
        counter, key = rng.integers(2**63, size=4, dtype=np.uint64), rng.integers(2**63, size=2, dtype=np.uint64)
        drawn = np.random.Philox(counter=counter, key=key).random_raw(4)
        first, *others = counter.tolist()
        assert drawn.tolist() == plain_philox([first + 1, *others], key.tolist(), 64)
        small = [word % 2**32 for word in counter.tolist()]
        small_key = [word % 2**32 for word in key.tolist()]
        got = numpy_.philox(np.array(small, np.uint64)[:, None], small_key[0] | small_key[1] << 32)
        assert got[:, 0].tolist() == plain_philox(small, small_key, 32)


@given(size=st.integers(0, 30), p=P, key=KEYS)
def test_an_element_is_kept_by_its_own_word(size: int, p: float, key: int) -> None:
    assert numpy_.mask(size, p, key).tolist() == [word >= numpy_.threshold(p) for word in words(size, key)]


def test_the_mask_of_many_elements_begins_with_that_of_fewer() -> None:
    """Elements are worked on in portions; none begins its counters anew."""
    size = 2 * numpy_.CHUNK + 3
    whole = numpy_.mask(size, 0.5, 9)
    for less in (1, 4, numpy_.CHUNK - 1, numpy_.CHUNK, numpy_.CHUNK + 5):
        np.testing.assert_array_equal(numpy_.mask(less, 0.5, 9), whole[:less])
    late = numpy_.CHUNK // 4 + 1
    assert whole[4 * late : 4 * late + 4].tolist() == [w >= 2**31 for w in plain_philox([late, 0, 0, 0], [9, 0], 32)]


def test_counters_beyond_32_bits_carry_into_the_second_word() -> None:
    k_0, k_1 = np.uint64(3), np.uint64(4)
    assert [int(word) for word in numba_cpu._words(np.uint64(5 + 7 * 2**32), k_0, k_1)] == plain_philox([5, 7, 0, 0], [3, 4], 32)


@given(shape=SHAPES, p=P, key=KEYS, dtype=st.sampled_from([np.float32, np.float64]))
def test_numba_is_numpy_to_the_bit(shape: tuple[int, ...], p: float, key: int, dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    before = x.copy()
    y = numba_cpu.apply(x, p, key)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(y, numpy_.apply(x, p, key))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("kernel", [numpy_, numba_cpu, pytest.param(cupy_, marks=EMULATED)], ids=["numpy", "numba", "cupy"])
def test_the_word_that_is_the_threshold_keeps_its_element(kernel: ModuleType, size: int) -> None:
    """Its share is right only if exactly q words of all are below q; one in four thousand million is not met by chance."""
    x = np.ones(size)
    for e, word in enumerate(words(size, 6)):
        kept, dropped = word / 2**32, (word + 1) / 2**32
        for p, is_kept in ((kept, True), (dropped, False)):
            y = kernel.apply(x, p, 6) if kernel is not cupy_ else cupy_.apply(*on_device.put(x), p, 6).get()
            assert (y[e] != 0) == is_kept


@pytest.mark.usefixtures("groups")
def test_threads_leave_the_mask_alone(rng: np.random.Generator) -> None:
    x = rng.standard_normal((101, 103)).astype(np.float32)
    np.testing.assert_array_equal(numba_cpu.apply(x, 0.3, 5), numpy_.apply(x, 0.3, 5))


@KERNELS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_kept_is_divided_by_the_probability_of_being_kept(kernel: ModuleType, dtype: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal(1000).astype(dtype)
    y = kernel.apply(x, 0.4, 1)
    kept = numpy_.mask(1000, 0.4, 1)
    np.testing.assert_allclose(y[kept], x[kept] / 0.6, rtol=2 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(kernel.apply(x, 0.0, 1), x)


@KERNELS
def test_the_gradient_is_the_same_map(kernel: ModuleType, rng: np.random.Generator) -> None:
    """<dy, apply(x)> = <apply(dy), x>, exactly: products of the same numbers."""
    x, dy = rng.standard_normal((2, 11, 13))
    kept = kernel.apply(np.ones_like(x), 0.5, 77)  # 0 or 2, so that no rounding enters
    np.testing.assert_array_equal(kernel.apply(x, 0.5, 77), kept * x)
    np.testing.assert_array_equal(kernel.apply(dy, 0.5, 77), kept * dy)


@KERNELS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_what_is_dropped_is_zero_whatever_it_was(kernel: ModuleType, bad: float) -> None:
    y = kernel.apply(np.full(200, bad, np.float32), 0.5, 3)
    kept = numpy_.mask(200, 0.5, 3)
    assert 50 < kept.sum() < 150
    np.testing.assert_array_equal(y[~kept], 0)
    assert not np.signbit(y[~kept]).any()
    np.testing.assert_array_equal(y[kept], np.float32(2 * bad))


@KERNELS
def test_views_are_read_in_the_order_of_their_elements(kernel: ModuleType, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 14))
    for view in (x.T, x[::2, ::-1], np.broadcast_to(x[0], (5, 14))):
        y = kernel.apply(view, 0.5, 2)
        assert y.flags.c_contiguous
        np.testing.assert_array_equal(y, kernel.apply(view.copy(order="C"), 0.5, 2))


def test_complex_numbers_are_dropped_whole() -> None:
    x = np.array([1 + 2j, 3 - 4j] * 8)
    kept = numpy_.mask(16, 0.5, 1)
    np.testing.assert_array_equal(numpy_.apply(x, 0.5, 1), np.where(kept, 2 * x, 0))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_elements_are_dropped_independently_and_with_probability_p(p: float) -> None:
    """By Hoeffding's inequality a mean of n independent draws from [0, 1] is off by sqrt(ln(2 / a) / 2n) with probability a at most.

    With a = 1e-9, the seven means of each p together raise a false alarm for 7e-9 of all keys. These two keys are fixed.
    """
    n = 2**18
    bound = math.sqrt(math.log(2 / 1e-9) / (2 * n))
    one, other = numpy_.mask(4 * n, p, 2026), numpy_.mask(4 * n, p, 2027)
    for word in range(4):
        assert abs((~one[word::4]).mean() - p) < bound
    both = p**2  # of two elements that are independent
    assert abs((~one[0::4] & ~one[1::4]).mean() - both) < bound  # two words of a counter
    assert abs((~one[3:-1:4] & ~one[4::4]).mean() - both) < bound * 1.01  # neighbours of two counters; n - 1 of them
    assert abs((~one[:n] & ~other[:n]).mean() - both) < bound  # two keys


def test_the_bound_on_the_mask_notices_a_probability_that_is_off() -> None:
    """A percentage point more of dropping is outside of the bound above."""
    n = 2**18
    assert abs((~numpy_.mask(4 * n, 0.51, 2026)[::4]).mean() - 0.5) > math.sqrt(math.log(2 / 1e-9) / (2 * n))


@pytest.mark.parametrize(("p", "q"), [(0.0, 0), (0.5, 2**31), (2.0**-32, 1), (1 - 2.0**-40, 2**32 - 1)])
def test_the_threshold_is_the_share_of_the_words_below_it(p: float, q: int) -> None:
    assert numpy_.threshold(p) == q


@EMULATED
@given(shape=SHAPES, p=P, key=KEYS, dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16"]), schedule=SCHEDULES)
def test_the_gpu_is_numpy_to_the_bit(shape: tuple[int, ...], p: float, key: int, dtype: str, schedule: int) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(on_device.dtype(dtype))
    (there,) = on_device.put(x)
    with on_device.careful(schedule, there):
        y = cupy_.apply(there, p, key)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(y.get(), numpy_.apply(x, p, key))


@EMULATED
@pytest.mark.parametrize("size", [1023, 1024, 1025, 4099])
def test_blocks_of_a_gpu_meet_without_a_seam(size: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal(size).astype(np.float32)
    (there,) = on_device.put(x)
    np.testing.assert_array_equal(cupy_.apply(there, 0.3, 2**63 + 1).get(), numpy_.apply(x, 0.3, 2**63 + 1))


@EMULATED
def test_arrays_that_begin_anywhere_are_read_on_a_gpu(rng: np.random.Generator) -> None:
    """A slice of a larger array is not aligned to four elements."""
    x = rng.standard_normal(100).astype(np.float32)
    (there,) = on_device.put(x)
    for first in range(1, 5):
        np.testing.assert_array_equal(cupy_.apply(there[first:], 0.3, 8).get(), numpy_.apply(x[first:], 0.3, 8))


@EMULATED
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_dropped_on_a_gpu_is_zero_whatever_it_was(bad: float) -> None:
    (there,) = on_device.put(np.full(301, bad, np.float32))
    y = cupy_.apply(there, 0.5, 3).get()
    kept = numpy_.mask(301, 0.5, 3)
    np.testing.assert_array_equal(y, np.where(kept, np.float32(bad), np.float32(0)))
    assert not np.signbit(y[~kept]).any()
