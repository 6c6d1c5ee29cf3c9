"""What a GPU has: the figures that a plan must keep to and that a prediction rests on, as published, or as a present device answers.

Sources, by the letter that stands behind each figure:

    H  NVIDIA H100 Tensor Core GPU Architecture (whitepaper, v1.04), H100 SXM5
    A  NVIDIA A100 Tensor Core GPU Architecture (whitepaper, v1.0), A100 SXM4; the memory of the 80 GB version from its datasheet
    R  NVIDIA Ada GPU Architecture (whitepaper, v2.02), GeForce RTX 4090
    C  CUDA C++ Programming Guide, technical specifications per compute capability
    -  not published by NVIDIA: assumed, and said beside the figure

Rates are peaks of dense arithmetic: no kernel reaches them, and a floor made of them stays a floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Device:
    """Limits that decide a plan, and rates that a prediction rests on. A rate that nobody has published for a device is None."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_per_block: int  # bytes, with the opt-in that CuPy's max_dynamic_shared_size_bytes asks for
    shared_per_multiprocessor: int  # bytes; each block takes 1 KiB of it for the system
    registers: int  # of 32 bits, per multiprocessor
    threads_per_multiprocessor: int
    l2: int  # bytes
    clock: float | None = None  # Hz, boost
    bandwidth: float | None = None  # bytes/s from device memory
    l2_bandwidth: float | None = None  # bytes/s, all multiprocessors together
    float32: float | None = None  # FLOP/s outside the tensor cores; a multiply-add counts two
    float64: float | None = None
    tensor: float | None = None  # FLOP/s of float16 and bfloat16 products with float32 sums

    @property
    def has_bfloat16_tensor_cores(self) -> bool:
        return self.compute_capability >= (8, 0)

    def rate(self, dtype: str) -> float | None:
        """The peak FLOP/s of a matrix product of this dtype, summed at least in float32."""
        return {"float64": self.float64, "float32": self.float32}.get(dtype, self.tensor)


H100 = Device(
    "H100",
    compute_capability=(9, 0),  # H
    multiprocessors=132,  # H
    shared_per_block=227 * KIB,  # C
    shared_per_multiprocessor=228 * KIB,  # H
    registers=64 * KIB,  # H: 256 KiB
    threads_per_multiprocessor=2048,  # H
    l2=50 * MIB,  # H
    clock=1.83e9,  # H: boost of the tensor cores; 1.98e9 outside of them
    bandwidth=3.352e12,  # H
    l2_bandwidth=5120 * 1.83e9,  # -: NVIDIA states none; the A100's bytes per clock
    float32=66.9e12,  # H
    float64=33.5e12,  # H
    tensor=989.4e12,  # H
)

A100 = Device(
    "A100",
    compute_capability=(8, 0),  # A
    multiprocessors=108,  # A
    shared_per_block=163 * KIB,  # C
    shared_per_multiprocessor=164 * KIB,  # A
    registers=64 * KIB,  # A: 256 KiB
    threads_per_multiprocessor=2048,  # A
    l2=40 * MIB,  # A
    clock=1.41e9,  # A
    bandwidth=2.039e12,  # A, datasheet of the 80 GB version
    l2_bandwidth=5120 * 1.41e9,  # A: 5,120 bytes per clock
    float32=19.5e12,  # A
    float64=9.7e12,  # A
    tensor=312e12,  # A
)

RTX_4090 = Device(
    "RTX 4090",
    compute_capability=(8, 9),  # R
    multiprocessors=128,  # R
    shared_per_block=99 * KIB,  # C
    shared_per_multiprocessor=100 * KIB,  # C
    registers=64 * KIB,  # R: 256 KiB
    threads_per_multiprocessor=1536,  # C
    l2=72 * MIB,  # R
    clock=2.52e9,  # R
    bandwidth=1.008e12,  # R
    l2_bandwidth=2048 * 2.52e9,  # -: NVIDIA states none; 2,048 bytes per clock, the V100's in A
    float32=82.6e12,  # R
    float64=82.6e12 / 64,  # C: two results per clock and multiprocessor against 128
    tensor=165.2e12,  # R: with float32 sums
)

PUBLISHED = {device.name: device for device in (H100, A100, RTX_4090)}

# Latencies in seconds, from the best case to the worst that is worth planning for. No vendor publishes them; predictions show both ends.
#
# A grid barrier: each block's atomic travels to the L2 and its spin comes back from there, so at least three trips of about 260 clocks
# (the L2 latency that Luo et al., arXiv:2402.13499, report for A100 and H100): 0.5 us. Zhang et al., arXiv:2004.05371, study the
# cooperative-groups barrier itself on P100 and V100, where it costs one to three.
BARRIER = (0.5e-6, 3.0e-6)
# A kernel in a queue that is never empty: NVIDIA's "Getting Started with CUDA Graphs" (2019) finds 0.9 us between short kernels launched
# from C++. Python prepares each launch in the time in which short kernels run: 10 us is assumed for the worst case.
LAUNCH = (0.9e-6, 10e-6)


BOARDS = {  # what the driver calls them
    "NVIDIA H100 80GB HBM3": H100,
    "NVIDIA A100-SXM4-80GB": A100,
    "NVIDIA GeForce RTX 4090": RTX_4090,
}


def here(xp: Any) -> Device:
    """The device that an array module (`cupy`, or the emulator's stand-in) computes on, as it describes itself.

    Of rates it tells the clock alone; a published device of the same name lends it the others.
    """
    index = int(xp.cuda.Device().id)
    # Every launch is planned for its device, and asking a real one takes longer than a kernel; the emulated one can be changed.
    return _known(xp, index) if xp.__name__ == "cupy" else _describe(xp, index)


@cache
def _known(xp: Any, index: int) -> Device:
    return _describe(xp, index)


def _describe(xp: Any, index: int) -> Device:
    device = xp.cuda.Device(index)
    attributes: dict[str, int] = device.attributes
    name = xp.cuda.runtime.getDeviceProperties(index)["name"]
    name = name.decode() if isinstance(name, bytes) else str(name)
    described = Device(
        name,
        compute_capability=divmod(int(device.compute_capability), 10),  # CuPy: "90", "120"
        multiprocessors=attributes["MultiProcessorCount"],
        shared_per_block=attributes["MaxSharedMemoryPerBlockOptin"],
        shared_per_multiprocessor=attributes["MaxSharedMemoryPerMultiprocessor"],
        registers=attributes["MaxRegistersPerMultiprocessor"],
        threads_per_multiprocessor=attributes["MaxThreadsPerMultiProcessor"],
        l2=attributes["L2CacheSize"],
        clock=attributes["ClockRate"] * 1e3 if "ClockRate" in attributes else None,
    )
    like = BOARDS.get(name)
    rates = ("bandwidth", "l2_bandwidth", "float32", "float64", "tensor")
    return replace(described, **{rate: getattr(like, rate) for rate in rates}) if like else described
