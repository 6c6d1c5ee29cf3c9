"""Shared and global memory of an emulated kernel: what is uninitialised, out of bounds or too large is found."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import build, memory, stand_in
from minirnn.kernels.emulator.translate import EmulatorError, translate

SOURCE = """
extern "C" __global__ void uninitialised(float* out) {
  __shared__ float s[4];
  extern __shared__ float d[];
  float local[4];
  out[0] = s[1];
  out[1] = d[2];
  out[2] = local[threadIdx.x];
}
extern "C" __global__ void beyond_shared(float* out, int at) {
  __shared__ float before[8];
  __shared__ float s[8];
  before[0] = 0;
  s[at] = 1;
  out[0] = s[0] + before[0];
}
extern "C" __global__ void beyond_dynamic(float* out, int at) {
  extern __shared__ float d[];
  d[at] = 1;
  out[0] = d[0];
}
extern "C" __global__ void write(float* out, int at) { out[at] = 1; }
extern "C" __global__ void read(const float* x, float* out, int at) { out[0] = x[at]; }
extern "C" __global__ void declares(float* out) {
  __shared__ float s[12 * 1024];
  s[0] = 1;
  out[0] = s[0];
}
extern "C" __global__ void declares_too_much(float* out) {
  __shared__ float s[12 * 1024];
  __shared__ float one[1];
  s[0] = one[0] = 1;
  out[0] = s[0];
}
extern "C" __global__ void wild(float* out) { *(float*)8 = out[0]; }
extern "C" __global__ void divides(int* out, int by) { out[0] = 7 / by; }
__device__ int deep(int n, volatile int* out) {
  volatile int local[1000];
  local[n % 1000] = n;
  *out = n;
  return n == 0 ? 0 : deep(n - 1, out) + local[n % 1000];
}
extern "C" __global__ void overflows(int* out) { out[0] = deep(1000, out); }
extern "C" __global__ void asserts(int* out) { assert(out[0] == 42); }
extern "C" __global__ void traps(int* out) { if (out[0] != 42) __trap(); }

template <class T> __device__ T through_shared(T x) {  // each instance has an array of its own
  __shared__ T s[2];
  s[0] = x;
  return s[0];
}
extern "C" __global__ void two_instances(double* out) {
  float a = through_shared(1.5f);
  double b = through_shared(2.5);
  out[0] = a + b;
}
extern "C" __global__ void block_has_its_own(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = blockIdx.x;
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = s;
}
"""


@cache
def module() -> Any:
    return stand_in.RawModule(code=SOURCE)


def launch(name: str, *args: Any, **options: Any) -> None:
    module().get_function(name)((1,), (1,), args, **options)


def test_what_nobody_wrote_is_no_number_or_a_huge_one() -> None:
    out = stand_in.zeros(3, np.float32)
    launch("uninitialised", out, shared_mem=16)
    shared, dynamic, local = out.get()
    assert np.isnan(shared)
    assert np.isnan(dynamic)
    assert local < -1e38
    assert np.isnan(stand_in.empty(3, np.float16)[0].get())


@pytest.mark.parametrize("at", [-1, 8, 30])
def test_a_write_beside_a_shared_array_names_it(at: int) -> None:
    with pytest.raises(EmulatorError, match=r"a write outside of __shared__ (s|before) \(kernel.cu:1[12]\)"):
        launch("beyond_shared", stand_in.zeros(1, np.float32), np.int32(at))


@pytest.mark.parametrize("at", [-1, 5])
def test_a_write_beside_dynamic_shared_memory(at: int) -> None:
    with pytest.raises(EmulatorError, match="a write outside of the 20 bytes of dynamic shared memory"):
        launch("beyond_dynamic", stand_in.zeros(1, np.float32), np.int32(at), shared_mem=20)
    launch("beyond_dynamic", stand_in.zeros(1, np.float32), np.int32(4), shared_mem=20)


@pytest.mark.parametrize("at", [-3, 6, 20])
def test_a_write_beside_an_array_is_found_after_the_launch(at: int) -> None:
    with pytest.raises(EmulatorError, match=r"write wrote outside of an array: beside the first array, float32 \(2, 3\)"):
        launch("write", stand_in.zeros((2, 3), np.float32), np.int32(at))
    launch("write", stand_in.zeros((2, 3), np.float32), np.int32(5))


def test_a_read_beside_an_array_is_no_number() -> None:
    out = stand_in.zeros(1, np.float32)
    launch("read", stand_in.zeros((2, 3), np.float32), out, np.int32(7))
    assert np.isnan(float(out[0]))


def test_arrays_lie_between_zones_and_aligned_however_they_came_about() -> None:
    x = stand_in.asarray(np.arange(6.0).reshape(2, 3))
    for array in (x, x + 1, stand_in.concatenate([x, x]), x.T.copy(), x[[1, 0]], stand_in.linspace(0, 1, 5), x.sum(0), x[1:]):
        assert isinstance(memory._root(array._array), memory.Memory)
    assert (x + 1).data.ptr % 256 == 0


def test_shared_memory_has_its_limits() -> None:
    out = stand_in.zeros(1, np.float32)
    launch("declares", out)
    with pytest.raises(EmulatorError, match="with one a block declares 49156 bytes of shared memory, at most 49152"):
        launch("declares_too_much", out)
    kernel = module().get_function("declares")
    kernel.max_dynamic_shared_size_bytes = 52 * 1024
    with pytest.raises(EmulatorError, match="a block takes 102400 bytes of shared memory, declared and dynamic, this device has 101376"):
        kernel((1,), (1,), (out,), shared_mem=52 * 1024)
    with stand_in.device_properties(shared_memory=100 * 1024):
        kernel((1,), (1,), (out,), shared_mem=52 * 1024)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("wild", (np.float32,), "a read or write at 0x8, where there is no memory, in block"),
        ("divides", (np.int32, np.int32(0)), "a division of an integer by zero"),
        ("overflows", (np.int32,), "the stack overflows"),
        ("asserts", (np.int32,), r"assert\(out\[0\] == 42\) at kernel.cu:"),
        ("traps", (np.int32,), r"__trap\(\) at kernel.cu:"),
    ],
)
def test_what_would_end_the_process_ends_the_launch(name: str, args: tuple[Any, ...], words: str) -> None:
    with pytest.raises(EmulatorError, match=words):
        launch(name, stand_in.zeros(1, args[0]), *args[1:])
    test_each_instance_and_each_block_has_its_own_shared_memory()  # the runtime is as it was


def test_each_instance_and_each_block_has_its_own_shared_memory() -> None:
    out = stand_in.zeros(1, np.float64)
    launch("two_instances", out)
    assert float(out[0]) == 4
    blocks = stand_in.zeros(3 * 40, np.int32)
    module().get_function("block_has_its_own")((3,), (40,), (blocks,))
    assert (blocks.get() == np.repeat([0, 1, 2], 40)).all()


def test_a_declaration_that_cannot_be_translated_is_named() -> None:
    with pytest.raises(EmulatorError, match=r"one to a statement, not as __shared__ float a\[3\], b\[4\];"):
        translate("__shared__ float a[3], b[4];")


def test_a_translation_keeps_lines_and_drops_comments() -> None:
    text = translate("/* __shared__\n */ int a;\n// __shared__\n__shared__ __align__(16) unsigned char s[2][N + 1];")
    assert text.count("\n") == 3
    assert text.split("\n")[3] == "EMU_SHARED(unsigned char, s, [2][N + 1]);"


def test_the_compiler_s_words_reach_the_reader() -> None:
    with pytest.raises(EmulatorError, match=r"(?s)the C\+\+ compiler refused the kernel.*kernel.cu:2:.*nonsense"):
        build.compile('\nextern "C" __global__ void f() { nonsense; }')
