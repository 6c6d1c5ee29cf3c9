"""Runs Numba-CUDA kernels on a CPU, thread by thread: without a GPU, without numba-cuda, from the unmodified source of their module.

    module = load("minirnn.kernels.lstm.numba_cuda")        the module as it would be on a GPU; its kernels run here
    with schedule(3):                                       the order in which threads run: one seed, one order
        module.lstm_step_forward[blocks, threads](...)      NumPy arrays, or those of the stand-in for CuPy

Each CUDA thread is a greenlet: an ordinary Python call that can be left at a barrier and taken up again. One thread runs at a time, up to
the next barrier; the seed decides which one. A debugger, `print` and a traceback work in a kernel as in any function.

    numba_engine.py     threads, blocks, barriers, launches
    numba_memory.py     what a kernel sees of memory, and what is checked there
    numba_shim.py       what a kernel's module finds in the place of `numba.cuda`
    numba_source.py     how the module is executed

Found whatever the schedule: races, barriers that not all threads reach, or at different lines, threads that wait for each other for ever,
indices out of bounds or negative, writes to read-only data, float32 that would become float64, launches that no device would accept.
Not modelled: time, caches, registers, and memory ordered by anything but barriers (flags in global memory that another block spins on).
"""

from __future__ import annotations

import gc
import importlib.util
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, prod
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from minirnn.kernels.cuda.devices import KIB, Device
from minirnn.kernels.emulator import counts
from minirnn.kernels.emulator.launch import next_seed, schedule
from minirnn.kernels.emulator.numba_memory import SOURCES, Team, array, here, line, now, place
from minirnn.kernels.emulator.numba_source import Loader
from minirnn.kernels.emulator.translate import EmulatorError

__all__ = ["BarrierError", "LaunchError", "current_device", "load", "missing", "on", "schedule"]

SOURCES.add(__file__)
WARP = 32
BLOCKS = 16  # of a multiprocessor: the fewest that any device from sm_75 on holds
DEFAULT_SHARED = 48 * KIB  # bytes of dynamic shared memory that a kernel may have without asking for more
PATIENCE = 10_000  # rounds in which threads do nothing but spin, after which nobody will free them
AT_ONCE = 4  # blocks of a kernel without a grid barrier that run side by side
Place = Any  # a code object and an instruction
Runner = TypeVar("Runner")  # Thread or Block


class BarrierError(EmulatorError):
    """A barrier that some threads of the group do not reach, or reach elsewhere; or threads that wait for each other for ever."""


class LaunchError(EmulatorError, ValueError):
    """A launch that the device would refuse."""


def missing() -> str | None:
    """What must be installed before the engine can run; None if nothing."""
    if importlib.util.find_spec("greenlet") is None:
        return "it needs the package greenlet (pip install greenlet), which is not installed"
    return None


class _Settings:
    device: Device | None = None
    loader: Loader | None = None


_settings = _Settings()


@contextmanager
def on(device: Device) -> Iterator[None]:
    """Inside the `with` block launches keep to the limits of this device, instead of the one that the stand-in for CuPy describes."""
    before, _settings.device = _settings.device, device
    try:
        yield
    finally:
        _settings.device = before


def current_device() -> Device:
    if _settings.device is not None:
        return _settings.device
    from minirnn.kernels.cuda import devices
    from minirnn.kernels.emulator import stand_in

    return devices.here(stand_in)


def load(name: str, sources: Mapping[str, str] | None = None) -> ModuleType:
    """The module of this name, executed with the engine in the place of `numba.cuda`; once per name, and not in `sys.modules`.

    `sources` holds the text of modules, by name, that are to be executed instead of what is in their files: to see what a change would do.
    """
    reason = missing()
    if reason:
        raise RuntimeError(f"the engine for Numba-CUDA kernels cannot run: {reason}")
    from minirnn.kernels.emulator.numba_shim import MODULES

    if sources is not None:
        return Loader(sources, MODULES).load(name)
    if _settings.loader is None:
        _settings.loader = Loader({}, MODULES)
    return _settings.loader.load(name)


class Index:
    """Three coordinates: threadIdx, blockIdx, blockDim, gridDim."""

    __slots__ = ("x", "y", "z")

    def __init__(self, x: int, y: int, z: int):
        self.x, self.y, self.z = x, y, z

    def __str__(self) -> str:
        return f"({self.x}, {self.y}, {self.z})"


class Thread:
    """One CUDA thread: where it is, and what it waits for."""

    __slots__ = ("answer", "block", "fiber", "index", "lane", "number", "place", "shared_arrays", "team", "value", "waits_for", "warp")

    def __init__(self, block: Block, number: int, index: Index, fiber: Any):
        self.block, self.number, self.index, self.fiber = block, number, index, fiber
        self.warp, self.lane = divmod(number, WARP)
        self.waits_for: Any = None  # "block", "grid", "pause", a mask of lanes, or None
        self.value: Any = None  # what it brings to the barrier
        self.answer: Any = None  # what it takes away: {thread number or lane: value}
        self.place: Place = None
        self.team: Any = None
        self.shared_arrays = 0  # how many it has declared

    def __str__(self) -> str:
        return f"block {self.block.index} thread {self.index}"


class Block:
    """The threads of a block, and its shared memory."""

    def __init__(self, launch: Launch, index: Index):
        self.launch, self.index = launch, index
        self.dynamic: np.ndarray[Any, Any]  # shared memory that the launch asked for
        self.shared: list[tuple[Place, Any]] = []  # the static arrays, in the order in which every thread declares them
        self.barriers = 0
        self.threads: list[Thread] = []
        self.meetings: dict[tuple[int, int], list[Thread]] = {}  # who waits already, by warp and mask
        self.paused = False  # some thread spins

    def start(self) -> None:
        from greenlet import greenlet

        launch, block = self.launch, self.launch.block
        self.dynamic = launch.keep(np.full(launch.shared, 0xFF, np.uint8))  # NaN in every precision
        for number in range(prod((block.x, block.y, block.z))):
            index = Index(number % block.x, number // block.x % block.y, number // (block.x * block.y))
            self.threads.append(Thread(self, number, index, greenlet(launch.thread_body)))
        self.new_teams()

    def new_teams(self) -> None:
        """After a barrier of the block or the grid."""
        self.barriers += 1
        for first in range(0, len(self.threads), WARP):
            team = Team(self, first // WARP, self.launch.barriers, self.barriers, 0)
            for thread in self.threads[first : first + WARP]:
                thread.team = team

    def alive(self) -> list[Thread]:
        return [thread for thread in self.threads if not thread.fiber.dead]

    def advance(self, order: Order) -> bool:
        """Run each thread until it waits for the block or the grid, or ends. False if none could do more than spin."""
        ready = order.of([thread for thread in self.threads if thread.waits_for is None and not thread.fiber.dead])
        self.paused = moved = False
        while ready:
            thread = ready.pop()
            now.thread = thread
            try:
                thread.fiber.switch()
            except Exception as error:
                error.add_note(f"in {self.launch.name}, {thread}")
                raise
            if thread.waits_for == "pause":
                thread.waits_for = None  # its turn comes again after the other blocks'
                self.paused = True
                continue
            moved = True
            if thread.waits_for.__class__ is int:
                free = order.of(self.meet_in_warp(thread))
                ready = ready + free if order.coin() else free + ready
        alive = self.alive()
        if alive and all(thread.waits_for == "block" for thread in alive):
            check_all_there("syncthreads", alive, self.threads)
            release(alive, {thread.number: thread.value for thread in alive})
            self.new_teams()
            moved = True
        return moved

    def meet_in_warp(self, thread: Thread) -> list[Thread]:
        """The lanes that a shuffle, vote or syncwarp lets go on, once all lanes of its mask are there."""
        mask, meeting = thread.waits_for, (thread.warp, thread.waits_for)
        there = self.meetings.setdefault(meeting, [])
        there.append(thread)
        if len(there) < mask.bit_count():
            return []
        del self.meetings[meeting]
        check_all_there("warp primitive", there, there)
        warp = self.threads[thread.number - thread.lane :][:WARP]
        if thread.value is SYNC and len(there) == len(warp):
            team = Team(self, thread.warp, self.launch.barriers, self.barriers, thread.team.warp_barriers + 1)
            for other in there:
                other.team = team
        release(there, {other.lane: other.value for other in there})
        return there


def check_all_there(barrier: str, there: list[Thread], group: list[Thread]) -> None:
    if len(there) < len(group):
        gone = next(thread for thread in group if thread.fiber.dead)
        raise BarrierError(
            f"{line(there[0].place)}: {len(there)} threads wait at {barrier}, {len(group) - len(there)} have returned, such as {gone}"
        )
    first = there[0]
    for other in there:
        if other.place != first.place and line(other.place) != line(first.place):
            raise BarrierError(f"{barrier} reached at different lines: {first} at {line(first.place)}, {other} at {line(other.place)}")


class Order:
    """Who runs first: the threads in ascending order (seed 0), in descending order (1), or as drawn (2 and more)."""

    def __init__(self, seed: int):
        self.seed, self.draw = seed, random.Random(seed)

    def of(self, runners: list[Runner]) -> list[Runner]:
        """The runners, the first one last: that is where `pop` takes it from."""
        if self.seed < 2:
            return runners if self.seed else runners[::-1]
        return sorted(runners, key=lambda _: self.draw.random())

    def coin(self) -> bool:
        return self.seed < 2 or self.draw.random() < 0.5


SYNC = object()  # what threads bring to syncwarp, which unlike a shuffle orders memory


def release(threads: list[Thread], answer: Any) -> None:
    for thread in threads:
        thread.waits_for, thread.answer = None, answer


def wait(what: Any, value: Any = None) -> Any:
    """Called by a thread: others run until all that it waits for are there; returns what they brought."""
    thread = now.thread
    thread.waits_for, thread.value, thread.place = what, value, place()
    thread.fiber.parent.switch()
    return thread.answer


class Launch:
    """One launch of a kernel: `kernel[grid, block, stream, shared](*arguments)`."""

    def __init__(self, function: Callable[..., None], grid: Index, block: Index, shared: int, allowed: int, arguments: tuple[Any, ...]):
        self.function, self.grid, self.block, self.shared = function, grid, block, shared
        self.name = function.__name__
        self.barriers = 0  # of the whole grid
        self.cooperative = False  # known at the first this_grid()
        self.memory: list[Any] = []  # what blocks and threads have had, kept so that no address is used twice
        self.device = current_device()
        self.arguments = [_seen(argument, name) for argument, name in zip(arguments, _names(function), strict=True)]
        self.check_geometry(allowed)
        sizes = (grid.x, grid.y, grid.z), (block.x, block.y, block.z)
        counts.launched(counts.Launch(self.name, *sizes, shared, "this_grid" in function.__code__.co_names))

    def keep(self, memory: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.memory.append(memory)
        return memory

    def thread_body(self) -> None:
        self.function(*self.arguments)

    def check_geometry(self, allowed: int) -> None:
        """`allowed`: the bytes of dynamic shared memory that the kernel has asked for."""
        grid, block = self.grid, self.block
        for what, index, limits in (("grid", grid, (2**31 - 1, 65535, 65535)), ("block", block, (1024, 1024, 64))):
            if not all(1 <= size <= limit for size, limit in zip((index.x, index.y, index.z), limits, strict=True)):
                raise LaunchError(f"{self.name}: a {what} of {index}; each size must be at least 1 and at most {limits}")
        if block.x * block.y * block.z > 1024:
            raise LaunchError(f"{self.name}: a block of {index} has {block.x * block.y * block.z} threads, and at most 1024 are allowed")
        if self.shared > self.device.shared_per_block:
            raise LaunchError(
                f"{self.name}: {self.shared} bytes of shared memory, and a block of {self.device.name} has {self.device.shared_per_block}"
            )
        if self.shared > max(allowed, DEFAULT_SHARED):
            raise LaunchError(
                f"{self.name}: {self.shared} bytes of dynamic shared memory; more than {DEFAULT_SHARED} must be asked for with "
                "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
            )

    def check_static_shared(self, block: Block) -> None:
        total = self.shared + sum(kept.data.nbytes for _, kept in block.shared)
        limit = self.device.shared_per_block if self.shared > DEFAULT_SHARED else DEFAULT_SHARED
        if total > limit:
            raise LaunchError(f"{here()}: {total} bytes of shared memory, static and dynamic, and a block has {limit}")

    def cooperate(self) -> None:
        """A grid barrier can only be passed by blocks that run all at once."""
        if self.cooperative:
            return
        self.cooperative = True
        most = blocks_at_once(self.device, self.block, self.shared)
        if self.grid.x * self.grid.y * self.grid.z > most:
            raise LaunchError(f"{self.name}: a cooperative grid of {self.grid} blocks; {self.device.name} holds {most} of them at once")

    def run(self) -> None:
        order, grid = Order(next_seed()), self.grid
        waiting = [Block(self, Index(n % grid.x, n // grid.x % grid.y, n // (grid.x * grid.y))) for n in range(grid.x * grid.y * grid.z)]
        waiting = order.of(waiting)
        blocks: list[Block] = []  # that have started, and not ended
        ended = idle = 0
        before, now.records = now.records, {}
        collects = gc.isenabled()
        gc.disable()  # it would walk over all records again and again, and there is nothing to collect
        try:
            while waiting or blocks:
                while waiting and (self.cooperative or len(blocks) < AT_ONCE):
                    blocks.append(waiting.pop())
                    blocks[-1].start()
                moved = False
                for block in reversed(order.of(blocks)):
                    moved = block.advance(order) or moved
                    if not block.alive():
                        blocks.remove(block)
                        ended += 1
                if self.cooperative and not waiting:
                    moved = self.meet_in_grid(blocks, ended) or moved
                idle = 0 if moved or (waiting and self.cooperative) else idle + 1
                if blocks and idle and (idle == PATIENCE or not any(block.paused for block in blocks)):
                    raise self.deadlock(blocks)
        finally:
            now.records, now.thread = before, None
            if collects:
                gc.enable()

    def meet_in_grid(self, blocks: list[Block], ended: int) -> bool:
        alive = [thread for block in blocks for thread in block.alive()]
        if not alive or any(thread.waits_for != "grid" for thread in alive):
            return False
        everyone = [thread for block in blocks for thread in block.threads]
        if ended:
            raise BarrierError(f"{line(alive[0].place)}: {len(blocks)} blocks wait at the grid barrier, and {ended} have returned")
        check_all_there("the grid barrier", alive, everyone)
        self.barriers += 1
        release(alive, None)
        for block in blocks:
            block.new_teams()
        return True

    def deadlock(self, blocks: list[Block]) -> BarrierError:
        waiting: dict[str, list[Thread]] = {}
        returned = sum(thread.fiber.dead for block in blocks for thread in block.threads)
        for block in blocks:
            for thread in block.alive():
                what = {"block": "syncthreads", "grid": "the grid barrier", None: "nanosleep"}.get(thread.waits_for, "a warp primitive")
                waiting.setdefault(f"{what} at {line(thread.place)}", []).append(thread)
        groups = "; ".join(f"{len(threads)} threads wait for {what}, such as {threads[0]}" for what, threads in waiting.items())
        return BarrierError(f"{self.name}: no thread can go on: {groups}; {returned} threads of these blocks have returned")


def blocks_at_once(device: Device, block: Index, shared: int) -> int:
    """How many blocks the device holds, by threads and shared memory; registers, which no emulation knows, may allow fewer."""
    threads = ceil(block.x * block.y * block.z / WARP) * WARP
    by_threads = device.threads_per_multiprocessor // threads
    by_shared = device.shared_per_multiprocessor // (shared + KIB)
    return device.multiprocessors * min(by_threads, by_shared, BLOCKS)


def _names(function: Callable[..., None]) -> tuple[str, ...]:
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def _seen(argument: Any, name: str) -> Any:
    """What a kernel sees of an argument: arrays that check, the scalars of Numba's types."""
    from minirnn.kernels.emulator.numba_shim import DeviceArray

    if isinstance(argument, DeviceArray):
        return array(argument.data, name)
    if isinstance(argument, np.ndarray):
        return array(argument, name)
    if isinstance(argument, (bool, int, np.integer, np.bool_)):
        return int(argument)
    if isinstance(argument, (float, np.floating)):
        return argument if isinstance(argument, np.float32) else np.float64(argument)
    raise TypeError(f"{name}: a kernel takes arrays and numbers, got {type(argument).__name__}")
