"""Row arithmetic on a device, emulated: what every row started from, and sums over all rows in one order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn.kernels import packed
from minirnn.kernels.cuda.packed import column_sum, device_starts, previous
from minirnn.kernels.emulator import stand_in

from .on_device import EMULATED, SCHEDULES, careful, dtype, put
from .problems import batch_sizes

pytestmark = EMULATED
DTYPES = st.sampled_from(["float32", "float64", "float16", "bfloat16"])


@given(batch_sizes, st.integers(1, 40), DTYPES, SCHEDULES)
def test_previous_rows_are_those_of_numpy(sizes: list[int], H: int, name: str, seed: int) -> None:
    rng, sizes_ = np.random.default_rng(len(sizes)), np.array(sizes)
    host = [rng.standard_normal((rows, H)).astype(dtype(name)) for rows in (sum(sizes), sizes[0])]
    state, state0 = put(*host)
    first = device_starts(stand_in, sizes_)
    with careful(seed, state, state0, first):
        before = previous(stand_in, state, state0, first)
    np.testing.assert_array_equal(before.get(), packed.previous(*host, sizes_))


@given(st.sampled_from([1, 2, 31, 32, 33, 100]), st.sampled_from([1, 7, 32, 65]), st.integers(0, 9), DTYPES, SCHEDULES)
def test_column_sums(S: int, columns: int, skipped: int, name: str, seed: int) -> None:
    """A sum of S numbers in any order is off by at most S roundings of the sum of their sizes, and what is stored by one more."""
    x = np.random.default_rng(S).standard_normal((S, skipped + columns)).astype(dtype(name))
    (on_device,) = put(x)
    with careful(seed, on_device):
        summed = column_sum(stand_in, on_device, columns)
    out = summed.get()
    exact = x[:, skipped:].astype(np.float64)
    wide, stored = {"float64": (2**-53, 0), "float32": (2**-24, 0), "float16": (2**-24, 2**-11), "bfloat16": (2**-24, 2**-8)}[name]
    bound = S * wide * np.abs(exact).sum(0) + stored * np.abs(exact.sum(0)) * (1 + 2**-8) + 2**-25
    assert out.dtype == x.dtype
    assert (np.abs(out.astype(np.float64) - exact.sum(0)) <= bound).all()


def test_the_order_of_a_column_sum_is_the_same_under_every_schedule() -> None:
    x = stand_in.array(np.random.default_rng(0).standard_normal((200, 40)).astype(np.float32))
    with stand_in.schedule(0):
        first = column_sum(stand_in, x, 40).get()
    for seed in (1, 2, 3):
        with stand_in.schedule(seed):
            np.testing.assert_array_equal(column_sum(stand_in, x, 40).get(), first)


@settings(max_examples=5)
@given(batch_sizes)
def test_starts_are_moved_once_for_each_batch(sizes: list[int]) -> None:
    first = device_starts(stand_in, np.array(sizes))
    with stand_in.counting() as counts:
        assert device_starts(stand_in, np.array(sizes)) is first
    assert counts.to_device == 0
    assert first.get().tolist() == packed.starts(np.array(sizes)).tolist()
    assert first.dtype == np.int32


def test_more_rows_than_an_int32_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 2\^31 - 1 rows over all its steps, this one has 4294967296; split it"):
        device_starts(stand_in, np.array([2**31, 2**31]))
