"""The emulated GPU itself: its properties, which can be changed, and `cupy.cuda` without a device behind it.

with stand_in.device_properties(multiprocessors=132, shared_memory=227 * 1024):
    ...                                        # a kernel that would fit on a large GPU fits here
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

from minirnn.kernels.emulator import counts


@dataclass(frozen=True)
class Properties:
    """A small GPU of compute capability 8.6. Sizes are in bytes, and for one multiprocessor where they are shared by its blocks."""

    count: int = 1  # devices
    multiprocessors: int = 16
    shared_memory: int = 99 * 1024  # the most that a block can ask for
    shared_memory_per_multiprocessor: int = 100 * 1024
    registers: int = 65_536  # of 32 bits
    threads_per_multiprocessor: int = 1536
    blocks_per_multiprocessor: int = 16
    memory: int = 8 * 2**30
    l2_cache: int = 4 * 2**20
    clock: int = 1_500_000  # kHz
    memory_clock: int = 7_000_000  # kHz
    memory_bus: int = 128  # bits
    compute_capability: str = "86"
    cooperative: bool = True


properties = Properties()
RESERVED_SHARED = 1024  # bytes of shared memory that the system takes of each block
STATIC_SHARED = 48 * 1024  # bytes that a block may use without asking for more
_current = 0


@contextmanager
def device_properties(**changed: Any) -> Iterator[Properties]:
    """The emulated devices with other properties, named as the fields of Properties are."""
    global properties
    before = properties
    if "shared_memory" in changed:
        changed.setdefault("shared_memory_per_multiprocessor", changed["shared_memory"] + RESERVED_SHARED)
    properties = replace(before, **changed)
    try:
        yield properties
    finally:
        properties = before


def current() -> int:
    """The number of the device that new arrays belong to."""
    return _current


def blocks_at_once(threads: int, shared_memory: int) -> int:
    """How many blocks of so many threads and bytes one multiprocessor holds at the same time, registers aside."""
    warps = -(-threads // 32)
    return min(
        properties.blocks_per_multiprocessor,
        properties.threads_per_multiprocessor // (32 * warps),
        properties.shared_memory_per_multiprocessor // (shared_memory + RESERVED_SHARED),
    )


class Device:
    """`cupy.cuda.Device`."""

    def __init__(self, device: int | Device | None = None) -> None:
        self.id = current() if device is None else int(device)
        if not 0 <= self.id < properties.count:
            raise RuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {self.id}, there are {properties.count}")
        self._before: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        self._before.append(current())
        return self.use()

    def __exit__(self, *_: object) -> None:
        Device(self._before.pop()).use()

    def use(self) -> Device:
        global _current
        _current = self.id
        return self

    def synchronize(self) -> None:
        counts.synchronised("Device.synchronize()")

    @property
    def compute_capability(self) -> str:
        return properties.compute_capability

    @property
    def mem_info(self) -> tuple[int, int]:
        return properties.memory, properties.memory

    @property
    def pci_bus_id(self) -> str:
        return f"0000:{self.id:02d}:00.0"

    @property
    def attributes(self) -> dict[str, int]:
        major, minor = int(properties.compute_capability[:-1]), int(properties.compute_capability[-1])
        return {
            "ClockRate": properties.clock,
            "ComputeCapabilityMajor": major,
            "ComputeCapabilityMinor": minor,
            "ConcurrentKernels": 1,
            "CooperativeLaunch": int(properties.cooperative),
            "GlobalMemoryBusWidth": properties.memory_bus,
            "L2CacheSize": properties.l2_cache,
            "MaxBlockDimX": 1024,
            "MaxBlockDimY": 1024,
            "MaxBlockDimZ": 64,
            "MaxBlocksPerMultiprocessor": properties.blocks_per_multiprocessor,
            "MaxGridDimX": 2**31 - 1,
            "MaxGridDimY": 65_535,
            "MaxGridDimZ": 65_535,
            "MaxRegistersPerBlock": properties.registers,
            "MaxRegistersPerMultiprocessor": properties.registers,
            "MaxSharedMemoryPerBlock": STATIC_SHARED,
            "MaxSharedMemoryPerBlockOptin": properties.shared_memory,
            "MaxSharedMemoryPerMultiprocessor": properties.shared_memory_per_multiprocessor,
            "MaxThreadsPerBlock": 1024,
            "MaxThreadsPerMultiProcessor": properties.threads_per_multiprocessor,
            "MemoryClockRate": properties.memory_clock,
            "MultiProcessorCount": properties.multiprocessors,
            "ReservedSharedMemoryPerBlock": RESERVED_SHARED,
            "WarpSize": 32,
        }


class Stream:
    """`cupy.cuda.Stream`. Everything runs at once here, so a stream orders nothing; what it would hide is not found."""

    null: ClassVar[Stream]
    ptds: ClassVar[Stream]

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None) -> None:
        self.ptr, self.is_non_blocking, self.priority, self.device_id = 0 if null else id(self), non_blocking, priority or 0, current()
        self.done = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        counts.synchronised("Stream.synchronize()")

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        pass


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


class Event:
    """`cupy.cuda.Event`; its time is the host's clock."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.seconds, self.done = 0.0, True

    def record(self, stream: Stream | None = None) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        counts.synchronised("Event.synchronize()")


def get_elapsed_time(start: Event, end: Event) -> float:
    """Milliseconds between two events, which must have been waited for."""
    return 1e3 * (end.seconds - start.seconds)


class MemoryPool:
    """`cupy.get_default_memory_pool()`. The host's allocator does the work, so nothing is kept for later."""

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        pass


def _get_device_properties(device: int) -> dict[str, Any]:
    attributes = Device(device).attributes
    return {
        "name": b"emulated GPU",
        "totalGlobalMem": properties.memory,
        "multiProcessorCount": attributes["MultiProcessorCount"],
        "sharedMemPerBlockOptin": attributes["MaxSharedMemoryPerBlockOptin"],
        "sharedMemPerMultiprocessor": attributes["MaxSharedMemoryPerMultiprocessor"],
        "regsPerMultiprocessor": attributes["MaxRegistersPerMultiprocessor"],
        "l2CacheSize": attributes["L2CacheSize"],
        "warpSize": 32,
        "major": attributes["ComputeCapabilityMajor"],
        "minor": attributes["ComputeCapabilityMinor"],
    }


runtime = SimpleNamespace(
    getDeviceCount=lambda: properties.count,
    getDevice=current,
    setDevice=lambda device: Device(device).use() and None,
    deviceSynchronize=lambda: counts.synchronised("runtime.deviceSynchronize()"),
    getDeviceProperties=_get_device_properties,
    memGetInfo=lambda: (properties.memory, properties.memory),
    runtimeGetVersion=lambda: 13_000,
    driverGetVersion=lambda: 13_000,
    CUDARuntimeError=RuntimeError,
    is_hip=False,
)
