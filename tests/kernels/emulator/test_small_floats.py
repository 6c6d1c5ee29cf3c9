"""float16 and bfloat16 in software, against NumPy's and ml_dtypes', bit for bit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import stand_in

SOURCE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
template <class T> struct From;
template <> struct From<__half> {
  static float widen(__half x) { return __half2float(x); }
  static __half narrow(float x) { return __float2half_rn(x); }
};
template <> struct From<__nv_bfloat16> {
  static float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __nv_bfloat16 narrow(float x) { return __float2bfloat16_rn(x); }
};
#define INDEX const int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;
template <class T> __global__ void widen(const T* x, float* out, int n) { INDEX out[i] = From<T>::widen(x[i]); }
template <class T> __global__ void narrow(const float* x, T* out, int n) { INDEX out[i] = From<T>::narrow(x[i]); }
template <class T> __global__ void arithmetic(const T* a, const T* b, T* out, int n) {
  INDEX
  out[i] = a[i] + b[i];
  out[n + i] = a[i] - b[i];
  out[2 * n + i] = a[i] * b[i];
  out[3 * n + i] = a[i] / b[i];
}
template <class T> __global__ void fma(const T* a, const T* b, const T* c, T* out, int n) { INDEX out[i] = __hfma(a[i], b[i], c[i]); }
"""
TYPES = {"float16": "__half", "bfloat16": "__nv_bfloat16"}
dtypes = pytest.mark.parametrize("name", TYPES)
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # ml_dtypes warns of signalling NaNs


@cache
def module() -> Any:
    names = [f"{kernel}<{type_}>" for kernel in ("widen", "narrow", "arithmetic", "fma") for type_ in TYPES.values()]
    return stand_in.RawModule(code=SOURCE, name_expressions=names)


def dtype_of(name: str) -> np.dtype[Any]:
    if name == "float16":
        return np.dtype(np.float16)
    return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)


def run(kernel: str, name: str, out: Any, *args: Any) -> Any:
    n = args[0].size
    result = stand_in.empty(out[0], out[1])
    arrays = [stand_in.asarray(each) for each in args]
    module().get_function(f"{kernel}<{TYPES[name]}>")((-(-n // 64),), (64,), (*arrays, result, np.int32(n)))
    return result.get()


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, a NaN to any NaN."""
    bits = f"u{a.itemsize}"
    return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


def patterns(dtype: np.dtype[Any]) -> Any:
    return np.arange(65_536, dtype=np.uint16).view(dtype)


@dtypes
def test_every_pattern_widens_and_comes_back(name: str) -> None:
    x = patterns(dtype_of(name))
    wide = run("widen", name, (65_536, np.float32), x)
    assert same(wide, x.astype(np.float32))
    assert same(run("narrow", name, (65_536, x.dtype), wide), x)


@dtypes
def test_rounding_is_to_the_nearest_and_ties_go_to_even(name: str) -> None:
    """Between every two neighbours: their middle, and the floats next to it, at which rounding changes."""
    dtype = dtype_of(name)
    ordered = np.sort(patterns(dtype)[np.isfinite(patterns(dtype))].astype(np.float64))
    middles = ((ordered[1:] + ordered[:-1]) / 2).astype(np.float32)
    for x in (middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))):
        with np.errstate(over="ignore"):
            assert same(run("narrow", name, (x.size, dtype), x), x.astype(dtype))


@dtypes
def test_floats_of_all_magnitudes_round_as_numpy_s(name: str) -> None:
    dtype = dtype_of(name)
    x = np.random.default_rng(1).integers(0, 2**32, 50_000, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        assert same(run("narrow", name, (x.size, dtype), x), x.astype(dtype))


@dtypes
def test_arithmetic_rounds_once(name: str) -> None:
    dtype = dtype_of(name)
    a, b = np.random.default_rng(2).integers(0, 65_536, (2, 20_000), dtype=np.uint16).view(dtype)
    got = run("arithmetic", name, ((4, a.size), dtype), a, b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)  # a sum, product or quotient rounded to double first rounds to the same
    with np.errstate(all="ignore"):
        for result, exact in zip(got, (wide_a + wide_b, wide_a - wide_b, wide_a * wide_b, wide_a / wide_b), strict=True):
            assert same(result, exact.astype(np.float32).astype(dtype) if name == "bfloat16" else exact.astype(dtype))


@dtypes
def test_a_fused_multiply_add_rounds_once(name: str) -> None:
    dtype, rng = dtype_of(name), np.random.default_rng(5)
    a, b, c = (rng.standard_normal(200).astype(dtype) for _ in range(3))
    c = (c.astype(np.float32) * 2.0 ** rng.integers(-8, 1, 200)).astype(dtype)
    exact = a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)  # its 64 bits hold every bit of these
    assert same(run("fma", name, (200, dtype), a, b, c), _nearest(exact, dtype))


def test_a_tie_is_broken_by_what_a_double_cannot_hold() -> None:
    """1.0078125 * 1.5 is the middle of two neighbours in bfloat16, and c = 2^-100 lies on one side of zero or the other."""
    dtype = dtype_of("bfloat16")
    a, b = np.array([1.0078125] * 2, dtype), np.array([1.5] * 2, dtype)
    c = np.array([2.0**-100, -(2.0**-100)], dtype)
    np.testing.assert_array_equal(run("fma", "bfloat16", (2, dtype), a, b, c).astype(np.float64), [1.515625, 1.5078125])


def _nearest(exact: Any, dtype: np.dtype[Any]) -> Any:
    """The number of the dtype nearest to each, by looking at all of them; even where two are."""
    all_ = patterns(dtype)
    all_ = all_[np.isfinite(all_)]
    wide = all_.astype(np.longdouble)
    result = []
    for x in exact:
        distance = np.abs(wide - x)
        nearest = np.flatnonzero(distance == distance.min())
        even = [i for i in nearest if not all_.view(np.uint16)[i] & 1]
        result.append(all_[even[0] if even else nearest[0]])
    return np.array(result, dtype)
