"""The memory that an emulated Numba-CUDA kernel sees: arrays that check every index and every pair of accesses.

Two accesses to one address by different threads, at least one of them a write, must be ordered by a barrier that both threads passed
between them. Whatever the schedule happened to be, a pair that is not so ordered is a race on a device, and an error here. For each
address that a launch touches, a record keeps its last write and who has read it since:

    a grid barrier orders everything before it and everything after it, a barrier of the block the threads of that block, syncwarp
    (of all lanes) the threads of that warp; shuffles and votes order nothing, in CUDA neither

A `Team` is a warp between two barriers, so "ordered" is a question about two teams. Of each team two readers are remembered: with two,
any third thread has one to race with. What a new reader comes after need not be remembered: whoever is ordered after the new one is ordered
after those as well. Atomic operations do not race with each other.
"""

from __future__ import annotations

from sys import _getframe
from types import CodeType, FrameType
from typing import Any

import numpy as np

from minirnn.kernels.emulator.translate import EmulatorError

SOURCES = {__file__}  # files of the engine: a line to blame is never in one of them


class RaceError(EmulatorError):
    """Two threads, one address, at least one write, no barrier between them."""


class PromotionError(EmulatorError, TypeError):
    """A float32 that Numba would turn into a float64."""


class OutOfBoundsError(EmulatorError, IndexError):
    """An index outside of its array, below zero included."""


class ReadOnlyError(EmulatorError, ValueError):
    """A write to data that may only be read."""


class Team:
    """The threads of a warp between two barriers: counts of the barriers that they have passed."""

    __slots__ = ("block", "block_barriers", "grid_barriers", "warp", "warp_barriers")

    def __init__(self, block: Any, warp: int, grid_barriers: int, block_barriers: int, warp_barriers: int):
        self.block, self.warp = block, warp
        self.grid_barriers, self.block_barriers, self.warp_barriers = grid_barriers, block_barriers, warp_barriers

    def ordered(self, other: Team) -> bool:
        """Whether a barrier stands between what the two did."""
        if self.grid_barriers != other.grid_barriers:
            return True
        if self.block is not other.block:
            return False
        if self.block_barriers != other.block_barriers:
            return True
        return self.warp == other.warp and self.warp_barriers != other.warp_barriers


class Now:
    """The thread that runs at this moment, and the records of the launch that it belongs to, by address.

    A record is [team, thread, place] of the last write, or None; {team: (thread, another or None, place)} of the reads since; the last team
    that has two of them, whose further reads tell nothing new; and the atomic operations since, like the reads.
    """

    thread: Any = None
    records: dict[int, list[Any]] = {}  # noqa: RUF012


now = Now()


def place() -> tuple[CodeType, int]:
    """Where the kernel stands: its code and the instruction, of which `line` makes a line when somebody asks."""
    frame: FrameType | None = _getframe(1)
    while frame is not None and frame.f_code.co_filename in SOURCES:
        frame = frame.f_back
    assert frame is not None
    return frame.f_code, frame.f_lasti


def line(where: tuple[CodeType, int]) -> str:
    code, instruction = where
    number = next((n for first, last, n in code.co_lines() if first <= instruction < last), code.co_firstlineno)
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{number}"


def here() -> str:
    return line(place())


def note_read(address: int, frame: FrameType) -> None:
    """Raise a RaceError unless writes and atomic operations are ordered before this read; remember it. `frame` is the kernel's."""
    thread = now.thread
    team = thread.team
    record = now.records.get(address)
    if record is None:
        now.records[address] = [None, None, None, {team: (thread, None, (frame.f_code, frame.f_lasti))}, None, {}]
        return
    wrote, writer, where, readers, read_twice, atomics = record
    if read_twice is team:
        return
    if wrote is not None and writer is not thread and not wrote.ordered(team):
        raise _race("read", writer, "write", where)
    if atomics:
        _all_ordered(atomics, "atomic operation", "read")
    seen = readers.get(team)
    if seen is None:
        if readers and next(reversed(readers)).ordered(team):
            record[3] = readers = {other: reads for other, reads in readers.items() if not other.ordered(team)}
        readers[team] = (thread, None, (frame.f_code, frame.f_lasti))
    elif seen[0] is not thread:
        readers[team] = (seen[0], thread, seen[2])
        record[4] = team


def note_write(address: int) -> None:
    """Raise a RaceError unless all accesses so far are ordered before this write; remember it."""
    thread = now.thread
    record = now.records.get(address)
    if record is not None:
        wrote, writer, where, readers, _, atomics = record
        if wrote is not None and writer is not thread and not wrote.ordered(thread.team):
            raise _race("write", writer, "write", where)
        _all_ordered(readers, "read", "write")
        _all_ordered(atomics, "atomic operation", "write")
    now.records[address] = [thread.team, thread, place(), {}, None, {}]


def note_atomic(address: int) -> None:
    """Raise a RaceError unless all reads and writes so far are ordered before this atomic operation; remember it."""
    thread = now.thread
    team = thread.team
    record = now.records.setdefault(address, [None, None, None, {}, None, {}])
    wrote, writer, where, readers, _, atomics = record
    if wrote is not None and writer is not thread and not wrote.ordered(team):
        raise _race("atomic operation", writer, "write", where)
    _all_ordered(readers, "read", "atomic operation")
    seen = atomics.get(team)
    if seen is None:
        atomics[team] = (thread, None, place())
    elif seen[0] is not thread:
        atomics[team] = (seen[0], thread, seen[2])


def _all_ordered(earlier: dict[Team, Any], what: str, now_what: str) -> None:
    thread = now.thread
    for team, (one, another, where) in earlier.items():
        if (one is not thread or another is not None) and not team.ordered(thread.team):
            raise _race(now_what, another if one is thread else one, what, where)


def _race(mine: str, thread: Any, theirs: str, where: tuple[CodeType, int]) -> RaceError:
    return RaceError(f"race: {mine} at {here()} by {now.thread}, {theirs} at {line(where)} by {thread}, and no barrier between them")


class Array:
    """What a kernel sees of an array: elements one by one, views by slices; no arithmetic.

    A float element comes out as a NumPy scalar of its own precision, an integer as a Python int, for Numba computes indices in 64 bits.
    """

    def __init__(self, data: np.ndarray[Any, Any], name: str):
        self.data, self.name = data, name
        self.base: int = data.__array_interface__["data"][0]
        self.shape, self.strides, self.ndim, self.size, self.dtype = data.shape, data.strides, data.ndim, data.size, data.dtype
        self.itemsize = data.itemsize
        self.whole = data.dtype.kind in "iub"
        self.real = data.dtype.type if data.dtype.kind == "f" else None

    def __len__(self) -> int:
        length: int = self.shape[0]
        return length

    def address(self, index: Any) -> int:
        """Of one element; -1 where `index` leaves more than one."""
        if index.__class__ is not tuple:
            index = (index,)
        if len(index) != self.ndim:
            return -1
        address = self.base
        for i, length, stride in zip(index, self.shape, self.strides, strict=True):
            if i.__class__ is slice:
                return -1
            if not 0 <= i < length:
                raise self._outside(index)
            address += i * stride
        return address

    def __getitem__(self, index: Any) -> Any:
        return self.read(index, _getframe(1))

    def read(self, index: Any, frame: FrameType) -> Any:
        """One element, or a view; `frame` is the kernel's."""
        address = self.address(index)
        if address < 0:
            return self._view(index)
        note_read(address, frame)
        return int(self.data[index]) if self.whole else self.data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        address = self.address(index)
        if address < 0:
            raise EmulatorError(f"{here()}: {self.name}[{_shown(index)}] = ... assigns more than one element")
        self.check_store(value)
        note_write(address)
        self.data[index] = value

    def check_store(self, value: Any) -> None:
        if not self.data.flags.writeable:
            raise ReadOnlyError(f"{here()}: write to {self.name}, which is read-only")
        kind = value.__class__
        if kind is not self.real and (kind is float or kind is np.float64) and self.real is np.float32:
            raise PromotionError(f"{here()}: a float64 is stored in {self.name}, which is float32: something before it was promoted")
        if value is None:
            raise EmulatorError(f"{here()}: None is stored in {self.name}")

    def _view(self, index: Any) -> Array:
        for i, length in zip(index if isinstance(index, tuple) else (index,), self.shape, strict=False):
            ends = [end for end in (i.start, i.stop) if end is not None] if isinstance(i, slice) else [i, i + 1]
            if any(not 0 <= end <= length for end in ends):
                raise self._outside(index)
        return array(self.data[index], self.name)

    def reshape(self, *shape: Any) -> Array:
        view = self.data.reshape(*shape)
        if not np.shares_memory(view, self.data) and view.size:
            raise EmulatorError(f"{here()}: reshape of {self.name} would copy it")
        return array(view, self.name)

    def _outside(self, index: Any) -> OutOfBoundsError:
        return OutOfBoundsError(f"{here()}: {self.name}[{_shown(index)}] is out of bounds, its shape is {self.shape}; {now.thread}")


class Vector(Array):
    """The same for one axis, where the inner loops spend their time."""

    def __init__(self, data: np.ndarray[Any, Any], name: str):
        super().__init__(data, name)
        self.length, self.stride = data.shape[0], data.strides[0]

    def __getitem__(self, index: Any) -> Any:
        if index.__class__ is not int:
            return self.read(index, _getframe(1))
        if not 0 <= index < self.length:
            raise self._outside(index)
        note_read(self.base + index * self.stride, _getframe(1))
        return int(self.data[index]) if self.whole else self.data[index]


class Matrix(Array):
    """The same for two axes."""

    def __init__(self, data: np.ndarray[Any, Any], name: str):
        super().__init__(data, name)
        (self.rows, self.columns), (self.row_stride, self.column_stride) = data.shape, data.strides

    def __getitem__(self, index: Any) -> Any:
        if index.__class__ is not tuple or index[0].__class__ is not int or index[1].__class__ is not int:
            return self.read(index, _getframe(1))
        i, j = index
        if not (0 <= i < self.rows and 0 <= j < self.columns):
            raise self._outside(index)
        note_read(self.base + i * self.row_stride + j * self.column_stride, _getframe(1))
        return int(self.data[index]) if self.whole else self.data[index]


def array(data: np.ndarray[Any, Any], name: str) -> Array:
    """What a kernel sees of `data`; `name` is for messages."""
    return (Vector if data.ndim == 1 else Matrix if data.ndim == 2 else Array)(data, name)


def uninitialised(shape: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Memory as it is found: NaN, and large numbers in place of integers, so that nothing works by the luck of a zero."""
    data = np.empty(shape, dtype)
    if dtype.kind in "fc":
        data.fill(np.nan)
    else:
        data.reshape(-1).view(np.uint8).fill(0xC5)
    return data


def _shown(index: Any) -> str:
    return ", ".join(
        ":".join(str(end) if end is not None else "" for end in (i.start, i.stop)) if isinstance(i, slice) else str(i)
        for i in (index if isinstance(index, tuple) else (index,))
    )
