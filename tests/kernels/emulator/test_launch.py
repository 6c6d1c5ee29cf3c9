"""What a launch refuses: geometry, types of arguments, shared memory, and cooperative grids that do not fit on the device."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import stand_in as xp
from minirnn.kernels.emulator.stand_in import EmulatorError

SOURCE = """
#include <cooperative_groups.h>
#define THREADS 64
extern "C" __global__ void __launch_bounds__(THREADS * 2, 1) scale(float* y, const float* x, float by, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = by * x[i];
}
extern "C" __global__ void everything(bool a, signed char b, unsigned char c, short d, unsigned short e, int f, unsigned g, long long h,
                                      unsigned long long i, float j, double k, double* out) {
  out[0] = a + b + c + d + e + f + g + h + i + j + k;
}
extern "C" __global__ void optional(const float* x, float* out) { out[0] = x ? x[0] : 7; }
extern "C" __global__ void vectors(const float4* x, float* out) { out[0] = x[0].w; }
extern "C" __global__ void meet(int* out) {
  extern __shared__ int s[];
  cooperative_groups::this_grid().sync();
  if (threadIdx.x == 0) out[blockIdx.x] = gridDim.x;
}
extern "C" __global__ void subnormal(float* x) { x[0] = x[0] * 0.5f; }
#ifdef NUMBER
extern "C" __global__ void defined(int* out) { out[0] = NUMBER; }
#endif
template <int N, class T> __global__ void fill(T* out) { out[threadIdx.x] = N; }
"""


@cache
def module(*options: str, cooperative: bool = False) -> Any:
    return xp.RawModule(code=SOURCE, options=options, enable_cooperative_groups=cooperative, name_expressions=["fill<3, float>"])


def scale(grid: Any = (1,), block: Any = (32,), shared_mem: int = 0, **changed: Any) -> Any:
    y = xp.zeros(32, np.float32)
    arguments = {"y": y, "x": xp.ones(32, np.float32), "by": np.float32(3), "n": np.int32(32), **changed}
    module().get_function("scale")(grid, block, tuple(arguments.values()), shared_mem=shared_mem)
    return y


def test_a_right_launch_is_one_launch_and_no_wait() -> None:
    with xp.counting() as counts:
        y = scale(block=(np.int32(32), 1))
    assert (counts.launches, counts.synchronisations, counts.to_host) == (1, 0, 0)
    assert (y.get() == 3).all()
    assert xp.launches[-1] == ("scale", (1, 1, 1), (32, 1, 1), 0, False)


@pytest.mark.parametrize(
    ("error", "words", "wrong"),
    [
        (EmulatorError, "argument 2 must be a scalar of float32, got float64 3.0", {"by": 3.0}),
        (EmulatorError, "argument 3 must be a scalar of int32, got int64 32", {"n": 32}),
        (EmulatorError, "argument 3 must be a scalar of int32, got uint32 32", {"n": np.uint32(32)}),
        (EmulatorError, "argument 3 must be a scalar of int32, got bool True", {"n": True}),
        (EmulatorError, "argument 3 must be a scalar of int32, got an array of int32", {"n": xp.zeros(1, np.int32)}),
        (EmulatorError, "argument 1 is a pointer to float32, it cannot take an array of float64", {"x": xp.ones(32)}),
        (EmulatorError, "argument 1 is a pointer to float32, it cannot take an array of int32", {"x": xp.ones(32, np.int32)}),
        (EmulatorError, "argument 1 is a pointer to float32 and needs an array, got float64 1.0", {"x": 1.0}),
        (EmulatorError, "argument 1 is a pointer to float32 and needs an array, got int64 4096", {"x": 4096}),
        (EmulatorError, "argument 1 must be a C-contiguous array", {"x": xp.ones((32, 2), np.float32)[:, 0]}),
        (TypeError, "Unsupported type <class 'numpy.ndarray'>", {"x": np.ones(32, np.float32)}),
        (TypeError, "Unsupported type <class 'str'>", {"x": "x"}),
        (EmulatorError, "scale takes 4 arguments, got 5", {"more": np.int32(1)}),
        (EmulatorError, "256 threads to a block, its __launch_bounds__ allow 128", {"block": (256,)}),
        (EmulatorError, r"an empty launch, grid \(0, 1, 1\)", {"grid": (0,)}),
        (EmulatorError, "CUDA_ERROR_INVALID_VALUE: grid", {"grid": (1, 65_536)}),
        (EmulatorError, "CUDA_ERROR_INVALID_VALUE: grid", {"block": (1, 1, 65)}),
        (EmulatorError, "49153 bytes of dynamic shared memory, at most 49152 are allowed", {"shared_mem": 49_153}),
        (TypeError, "grid must be a tuple of one to three integers, got 1", {"grid": 1}),
        (TypeError, r"grid must be a tuple of one to three integers, got \(1.0,\)", {"grid": (1.0,)}),
        (TypeError, r"block must be a tuple of one to three integers, got \[32\]", {"block": [32]}),
    ],
)
def test_a_wrong_launch_says_what_is_wrong(error: type[Exception], words: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(error, match=words):
        scale(**wrong)


def test_arguments_are_a_tuple() -> None:
    with pytest.raises(TypeError, match="must be a tuple, got list"):
        module().get_function("scale")((1,), (1,), [])


def test_a_non_contiguous_array_goes_by_its_address() -> None:
    y = xp.zeros((32, 2), np.float32)
    scale(y=y[:, 1].data, n=np.int32(4))  # writes four numbers from y[0, 1] on
    assert y.get().ravel().tolist()[:6] == [0, 3, 3, 3, 3, 0]


def test_every_scalar_type_arrives() -> None:
    types = (np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)
    out = xp.zeros(1)
    module().get_function("everything")((1,), (1,), (*(kind(2) for kind in types), out))
    assert float(out[0]) == 2 * len(types) - 1  # True is 1


@pytest.mark.parametrize("null", [None, np.uintp(0), 0])
def test_a_null_pointer(null: Any) -> None:
    out = xp.zeros(1, np.float32)
    module().get_function("optional")((1,), (1,), (null, out))
    assert float(out[0]) == 7


def test_pointers_to_vectors_take_their_elements() -> None:
    out = xp.zeros(1, np.float32)
    module().get_function("vectors")((1,), (1,), (xp.arange(4, dtype=np.float32), out))
    assert float(out[0]) == 3


def test_unknown_kernels_and_templates() -> None:
    with pytest.raises(RuntimeError, match=r"CUDA_ERROR_NOT_FOUND: named symbol not found: nothing; the file has .*scale"):
        module().get_function("nothing")
    out = xp.zeros(4, np.float32)
    module().get_function("fill<3, float>")((1,), (4,), (out,))
    assert (out.get() == 3).all()


def test_options_define_macros_and_flush() -> None:
    out = xp.zeros(1, np.int32)
    module("-DNUMBER=42").get_function("defined")((1,), (1,), (out,))
    assert int(out[0]) == 42
    least = xp.asarray(np.array([1e-40], np.float32))
    module().get_function("subnormal")((1,), (1,), (least,))
    assert 0 < float(least[0]) < 1e-40
    module("--ftz=true").get_function("subnormal")((1,), (1,), (least,))
    assert float(least[0]) == 0
    with pytest.raises(TypeError, match="must be a tuple, got list"):
        xp.RawModule(code=SOURCE, options=["-DX"])


def test_a_raw_kernel_is_a_module_of_one() -> None:
    y = xp.zeros(4, np.float32)
    kernel = xp.RawKernel(SOURCE, "scale")
    assert kernel.max_threads_per_block == 128
    kernel((1,), (4,), (y, y + 1, np.float32(2), np.int32(4)))
    assert (y.get() == 2).all()


def meet(blocks: int, threads: int = 32, shared_mem: int = 0) -> Any:
    kernel = module(cooperative=True).get_function("meet")
    kernel.max_dynamic_shared_size_bytes = max(shared_mem, 49_152)
    out = xp.zeros(blocks, np.int32)
    kernel((blocks,), (threads,), (out,), shared_mem=shared_mem)
    return out.get()


def test_a_cooperative_grid_must_fit_on_the_device() -> None:
    with xp.device_properties(multiprocessors=2):
        assert (meet(2 * 16) == 32).all()  # 16 blocks on a multiprocessor
        assert (meet(2, 1024) == 2).all()  # 1536 threads: one block of 1024
        assert (meet(2, 32, 99 * 1024) == 2).all()  # and one of all shared memory
        for blocks, threads, shared_mem in ((33, 32, 0), (3, 1024, 0), (3, 32, 99 * 1024), (5, 32, 49 * 1024)):
            with pytest.raises(EmulatorError, match="CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"):
                meet(blocks, threads, shared_mem)
    with xp.device_properties(cooperative=False), pytest.raises(EmulatorError, match="no cooperative launch"):
        meet(1)


def test_more_shared_memory_than_the_device_has_is_refused_when_asked_for() -> None:
    with pytest.raises(EmulatorError, match="asks for 101377 bytes of dynamic shared memory, a block on this device has at most 101376"):
        module(cooperative=True).get_function("meet").max_dynamic_shared_size_bytes = 99 * 1024 + 1
    with xp.device_properties(shared_memory=227 * 1024, multiprocessors=132):
        assert xp.cuda.Device().attributes["MultiProcessorCount"] == 132
        assert (meet(132, 32, 227 * 1024) == 132).all()
    assert xp.cuda.Device().attributes["MultiProcessorCount"] == 16
