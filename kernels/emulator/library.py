"""A library of compiled kernels: what each of them takes, and how it is run."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minirnn.kernels.emulator.translate import EmulatorError, symbol

Array: TypeAlias = Any
_running = threading.Lock()  # one launch at a time: the runtime has one scheduler
_MOST_EVENTS = 1 << 18  # EVENTS of runtime.cpp


class Address(int):
    """A pointer that is passed as it is; 0 is null."""


class Event(NamedTuple):
    """A thread began, returned, or began to wait."""

    block: int  # counted through the grid, x first
    thread: int  # counted through the block, x first
    line: int
    waits_for: str  # "start", "block", "grid", "warp" or "end"


class _Description(ctypes.Structure):
    """emulator::Kernel of runtime.h."""

    _fields_ = (("run", ctypes.c_void_p), ("types", ctypes.c_char_p), ("elements", ctypes.c_char_p), ("bound", ctypes.c_int))


class _Options(ctypes.Structure):
    """emulator::Options of runtime.cpp."""

    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("dynamic_shared", ctypes.c_uint64),
        ("most_shared", ctypes.c_uint64),
        ("cooperative", ctypes.c_int32),
        ("flush", ctypes.c_int32),
        ("events", ctypes.c_void_p),
        ("event_count", ctypes.c_uint64),
    )


_recording: list[list[Event]] = []


@contextmanager
def recording() -> Iterator[list[Event]]:
    """What the threads of every launch inside did, in the order in which it happened."""
    events: list[Event] = []
    _recording.append(events)
    try:
        yield events
    finally:
        _recording[:] = [other for other in _recording if other is not events]


class Library(Mapping[str, "Kernel"]):
    """The kernels of one file, by name."""

    def __init__(self, path: Path, names: Sequence[str], source: str, run: Callable[..., int]) -> None:
        self.path, self._source, self._run = path, source, run
        self._loaded = ctypes.CDLL(str(path))
        self._names = [name for name in names if hasattr(self._loaded, symbol(name))]  # an #if may have left some out

    def __getitem__(self, name: str) -> Kernel:
        if name not in self._names:
            raise KeyError(name)
        return Kernel(self._run, name, _Description.in_dll(self._loaded, symbol(name)), self._source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def letter(dtype: Any) -> str:
    """The letter of a NumPy dtype, as kernel_table.h gives it to the C++ type: long is the 64-bit integer on Linux."""
    char = str(np.dtype(dtype).char)
    return {"l": "q", "L": "Q"}.get(char, char)


class Kernel:
    """One kernel. Arguments are arrays for pointers and NumPy scalars for the rest, of exactly the types that the kernel declares."""

    def __init__(self, run: Callable[..., int], name: str, description: _Description, source: str) -> None:
        self._run, self.name, self._description, self.lines = run, name, description, source.split("\n")
        self.types = description.types.decode()  # a letter for each parameter, P for a pointer
        self.elements = description.elements.decode()  # of each pointer, the letter of what it points to
        self.bound = description.bound or None  # threads to a block, from __launch_bounds__

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_memory: int = 0,
        most_shared_memory: int = 2**32,
        cooperative: bool = False,
        seed: int = 2,
        flush: bool = False,
    ) -> None:
        """Run the grid.

        shared_memory       bytes of dynamic shared memory of a block
        most_shared_memory  bytes that it may have, declared arrays included
        seed                0 takes threads in ascending order, 1 in descending order, others draw the order from the seed
        flush               treats subnormal numbers as zero
        """
        if len(args) != len(self.types):
            raise EmulatorError(f"{self.name} takes {len(self.types)} arguments, got {len(args)}")
        slots = (ctypes.c_uint64 * max(len(args), 1))(*(self._slot(i, argument) for i, argument in enumerate(args)))
        pointers = (ctypes.c_void_p * len(slots))(*(ctypes.addressof(slots) + 8 * i for i in range(len(slots))))
        sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        options = _Options(seed, shared_memory, most_shared_memory, cooperative, flush)
        events = _room_for_events(options) if _recording else None
        message = ctypes.create_string_buffer(1024)
        with _running:
            failed = self._run(ctypes.byref(self._description), pointers, sizes, ctypes.byref(options), message, len(message))
        if events is not None:
            _keep_events(events[: options.event_count])
        if failed:
            raise EmulatorError(f"{self.name}: {self._with_source(message.value.decode())}")

    def _slot(self, i: int, argument: Any) -> int:
        """The eight bytes that hold argument i."""
        expected = self.types[i]
        if expected == "P":
            return self._address(i, argument)
        if not isinstance(argument, np.generic) or letter(argument.dtype) != expected:
            raise EmulatorError(f"{self.name}: argument {i} must be a scalar of {_type(expected)}, got {_described(argument)}")
        return int.from_bytes(argument.tobytes(), "little")

    def _address(self, i: int, argument: Any) -> int:
        element = self.elements[i]
        if isinstance(argument, Address) or (isinstance(argument, np.integer) and argument.itemsize == 8 and argument == 0):
            return int(argument)
        if not isinstance(argument, np.ndarray):
            raise EmulatorError(
                f"{self.name}: argument {i} is a pointer to {_type(element)} and needs an array, got {_described(argument)}"
            )
        if element not in "vS" and letter(argument.dtype) != element:
            raise EmulatorError(f"{self.name}: argument {i} is a pointer to {_type(element)}, it cannot take an array of {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise EmulatorError(
                f"{self.name}: argument {i} must be a C-contiguous array, this one has the strides {argument.strides}; "
                "array.data passes it as it is"
            )
        return int(argument.ctypes.data)

    def _with_source(self, message: str) -> str:
        """The message, and the lines of the kernel that it speaks of."""
        numbers = dict.fromkeys(int(number) for number in re.findall(r"\.cu:(\d+)", message))
        shown = [f"{n}: {self.lines[n - 1].strip()}" for n in numbers if 0 < n <= len(self.lines)]
        return "\n    ".join([message, *shown])


def _type(code: str) -> str:
    """The name of a type by its letter."""
    special = {"v": "void", "S": "a struct", "E": "bfloat16", "P": "a pointer"}
    return special.get(code) or np.dtype(code).name


def _described(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"{type(value).__name__} {value}"


def _room_for_events(options: _Options) -> Array:
    events = np.zeros(_MOST_EVENTS, [("block", "u4"), ("thread", "u4"), ("line", "i4"), ("what", "u4")])
    options.events = events.ctypes.data
    return events


def _keep_events(events: Array) -> None:
    names = ("start", "block", "grid", "warp", "end")
    for kept in _recording:
        kept.extend(Event(int(e["block"]), int(e["thread"]), int(e["line"]), names[e["what"]]) for e in events)
