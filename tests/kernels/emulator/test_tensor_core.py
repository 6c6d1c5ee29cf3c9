"""The instruction of a tensor core against NumPy's product. All numbers are distinct, so that no element can stand in another's place."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import stand_in

# Loads and stores the fragments by the table of the PTX ISA (section on mma.m16n8k16), written down element by element: a0 .. a7 of the
# lane with g = lane / 4, t = lane % 4 are A[g + 8 (i / 2 % 2)][2 t + i % 2 + 8 (i / 4)].
SOURCE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
template <class T> __global__ void multiply(const T* A, const T* B, float* D) {  // A (16, 16), B (16, 8), D (16, 8)
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  T a[8], b[4];
  float d[4];
  for (int i = 0; i < 8; ++i) a[i] = A[(ROW_OF_A) * 16 + 2 * t + i % 2 + 8 * (i / 4)];
  for (int i = 0; i < 4; ++i) b[i] = B[(2 * t + i % 2 + 8 * (i / 2)) * 8 + g];
  for (int i = 0; i < 4; ++i) d[i] = D[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  uint32_t a_registers[4], b_registers[2];
  memcpy(a_registers, a, sizeof a);
  memcpy(b_registers, b, sizeof b);
  if (lane < LANES) mma_m16n8k16<T>(d, a_registers, b_registers);
  for (int i = 0; i < 4; ++i) D[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}
"""
TYPES = {"float16": "__half", "bfloat16": "__nv_bfloat16"}


@cache
def module(row: str = "g + 8 * (i / 2 % 2)", lanes: int = 32) -> Any:
    source = SOURCE.replace("ROW_OF_A", row).replace("LANES", str(lanes))
    return stand_in.RawModule(code=source, name_expressions=[f"multiply<{type_}>" for type_ in TYPES.values()])


def multiply(name: str, A: Any, B: Any, D: Any, **planted: Any) -> Any:
    result = stand_in.asarray(D)
    kernel = module(**planted).get_function(f"multiply<{TYPES[name]}>")
    kernel((1,), (32,), (stand_in.asarray(A), stand_in.asarray(B), result))
    return result.get()


def operands(name: str) -> tuple[Any, Any, Any]:
    """Integers, all products and sums of which float32 holds exactly; 128 and more of them distinct."""
    dtype = np.dtype(np.float16)
    if name == "bfloat16":
        dtype = np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)
    draw = np.random.default_rng(3).permutation
    A = (draw(256) - 128).reshape(16, 16)  # at most 8 bits: exact in bfloat16
    B = (draw(128) - 64).reshape(16, 8)
    D = draw(128).reshape(16, 8) * 1000.0
    return A.astype(dtype), B.astype(dtype), D.astype(np.float32)


@pytest.mark.parametrize("name", TYPES)
def test_every_element_is_where_the_isa_puts_it(name: str) -> None:
    A, B, D = operands(name)
    np.testing.assert_array_equal(multiply(name, A, B, D), D + A.astype(np.float64) @ B.astype(np.float64))


@pytest.mark.parametrize("name", TYPES)
def test_two_exchanged_rows_are_noticed(name: str) -> None:
    A, B, D = operands(name)
    wrong = multiply(name, A, B, D, row="g + 8 * (1 - i / 2 % 2)")
    assert (wrong != D + A.astype(np.float64) @ B.astype(np.float64)).mean() > 0.9


@pytest.mark.parametrize("name", TYPES)
def test_sums_are_taken_in_float32(name: str) -> None:
    """The error of a sum of 17 terms: 16 roundings, each of a number no larger than the sum of the magnitudes."""
    rng, (A, B, D) = np.random.default_rng(4), operands(name)
    A, B = rng.standard_normal(A.shape).astype(A.dtype), rng.standard_normal(B.shape).astype(B.dtype)
    wide_A, wide_B = A.astype(np.float64), B.astype(np.float64)
    bound = 16 * np.finfo(np.float32).eps * (np.abs(D) + np.abs(wide_A) @ np.abs(wide_B))
    assert (np.abs(multiply(name, A, B, D) - (D + wide_A @ wide_B)) <= bound).all()


def test_a_lane_that_stays_away_is_a_deadlock() -> None:
    with pytest.raises(stand_in.EmulatorError, match=r"lane \d+ has returned"):
        multiply("float16", *operands("float16"), lanes=31)
