"""Threads that share one call. Compiled functions release the interpreter's lock, so plain threads do.

`run` hands a compiled function to workers that are still awake from the call before, in 2 microseconds; after a tenth of a millisecond
without a call they sleep, and leave the cores to others. `share` does the same for any function of Python, in 50.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

WORTH = 1e7  # operations that pay for waking one more thread: about a tenth of a millisecond
WORTH_A_CALL = 1e6  # operations for each thread that pay for handing it a compiled function, when it is awake
WORTH_WAKING = 2e7  # operations that take longer than waking a thread
IN_CACHE = 2**19  # bytes of `w_hh` that stay in a core's second cache, and leave room for the rows
PANEL = 256  # bytes of a row of `w_hh` in one panel
MOST = 64  # threads that share one call: a bit of one number for each worker

_pool: ThreadPoolExecutor | None
_crew: _Crew
_one_call: threading.Lock


def count() -> int:
    """Threads to use: the cores that this process may run on, or fewer where OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked) if asked.isdigit() else cores, MOST))


def groups(N: int, operations: float) -> int:
    """How many groups to deal N sequences into, when the whole call takes this many operations."""
    most = min(N, int(operations / WORTH))
    return min(count(), most) if most > 1 else 1


def threads(operations: float) -> int:
    """Threads for a compiled function that takes this many operations."""
    return max(1, min(count(), int(operations / WORTH_A_CALL)))


def plan(N: int, H: int, gates: int, rows: int, dtype: Any) -> tuple[int, bool, bool]:
    """Threads for a recurrence of N sequences and H units, `rows` rows in all; whether they share the units, not the sequences; and
    whether it is worth waking them.

    Sharing units, they meet once a step, but each reads only its part of `w_hh`; sharing sequences, nobody waits, but each reads all of it.
    """
    size = np.dtype(dtype).itemsize
    operations = 2 * gates * H * H * rows
    P, worth_waking = threads(operations), operations > WORTH_WAKING
    panels = -(-H * size // PANEL)
    if panels < P or (gates * H * H * size <= IN_CACHE and N >= 4 * P):
        return min(P, N), False, worth_waking
    return P, True, worth_waking


def share(work: Callable[[int], None], groups: int) -> None:
    """Run work(0), ..., work(groups - 1), each in a thread of its own; returns when all have stopped."""
    global _pool
    if groups > 1 and _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="minirnn")
    others = [_pool.submit(work, p) for p in range(1, groups)] if _pool else []
    try:
        work(0)
    finally:
        wait(others)
    for other in others:
        other.result()


def run(function: Callable[..., None], P: int, *arguments: Any, worth_waking: bool = True) -> None:
    """Run function(p, P, *arguments) for p = 0, ..., P - 1 at the same time; returns when all have ended.

    `function` was compiled by `compiled`, and raises nothing. Its P runs may wait for each other (`handoff.meet`). One call at a time has
    the workers; that of another thread waits. A job that is over before a sleeping worker has woken (`worth_waking` is False) is done by
    the caller alone, with P = 1, unless the workers are awake; where such jobs follow each other closely, they are woken for the next.
    """
    global _last_call
    if P <= 1:
        function(0, 1, *arguments)
        return
    if P > MOST:
        raise ValueError(f"run: P must be at most {MOST}, got {P}")
    from minirnn.kernels import handoff

    with _one_call:
        launch = _launchers.get(function)
        if launch is None:
            launch = _launchers[function] = handoff.launcher(function)
        before, _last_call = _last_call, time.perf_counter()
        mailboxes = _crew.mailboxes(P - 1)
        try:
            sleepers = handoff.claim(mailboxes, P - 1)
            alone = sleepers > 0 and not worth_waking
            if sleepers and (worth_waking or _last_call - before < 1e-4):
                _crew.make_way()
                _crew.wake(sleepers)
                sleepers = 0
            if alone:
                handoff.release(mailboxes, P - 1, sleepers)
            else:
                launch(mailboxes, P, *arguments)
        except BaseException:  # an interrupt, or arguments that do not compile: whatever was claimed is to be free and awake
            handoff.release(mailboxes, P - 1, 0)
            _crew.wake(-1)
            raise
    if alone:
        function(0, 1, *arguments)


class _Crew:
    """Worker threads, started when they are first needed, each with a mailbox and a lock that it sleeps on."""

    def __init__(self) -> None:
        self.alarms: list[Any] = []  # a lock for each worker: it sleeps in `acquire`, whoever wakes it calls `release`
        self.threads: list[threading.Thread] = []
        self.boxes = np.zeros(MOST * 8 + 8, np.int64)  # mailboxes, states WAITING
        self.first = self.boxes.ctypes.data + -self.boxes.ctypes.data % 64  # on a cache line
        self.avoided: int | None = None  # the core that the workers were told to keep off

    def mailboxes(self, count: int) -> int:
        """The address of the first of `count` mailboxes or more, after making sure that they have their workers."""
        while len(self.threads) < count:
            k = len(self.threads)
            self.alarms.append(threading.Lock())
            self.alarms[k].acquire()
            self.threads.append(threading.Thread(target=self._work, args=(k,), name=f"minirnn-{k}", daemon=True))
            self.threads[k].start()
            self.avoided = None
        return self.first

    def make_way(self) -> None:
        """Keep the workers off this thread's core, as long as there is another; nothing where the system has no calls for that.

        Left to itself, Linux likes to wake a thread on the core of its waker: the two then take turns there, and it moves one of them only
        after some ten milliseconds, by which time many calls have taken three times as long.
        """
        core = _core() if _core else None
        if core == self.avoided:
            return
        self.avoided = core
        others = os.sched_getaffinity(0) - {core}
        with contextlib.suppress(OSError):  # not permitted: they run where they run
            for thread in self.threads if others else []:
                os.sched_setaffinity(thread.native_id or 0, others)

    def wake(self, sleepers: int) -> None:
        for k, alarm in enumerate(self.alarms):
            if sleepers >> k & 1 and alarm.locked():
                alarm.release()

    def _work(self, k: int) -> None:
        from minirnn.kernels import handoff

        patience = handoff.PATIENCE
        while not self.ended:
            state = handoff.serve(self.first + k * handoff.MAILBOX, patience)
            if state in (handoff.WAITING, handoff.ASLEEP):  # ASLEEP: woken for nothing
                self.alarms[k].acquire()
                patience = handoff.PATIENCE  # it may be the next job that it was woken for, after one that the caller does alone
            else:
                time.sleep(0.00002)
                patience = handoff.PATIENCE // 3  # a job is on its way; the caller may need this core to send it, or even be compiling

    ended = False

    def end(self) -> None:
        """Before the interpreter goes: no thread may be left in compiled code."""
        self.ended = True
        self.wake(-1)
        for thread in self.threads:
            thread.join()


def _forget() -> None:
    """A forked child inherits the pool and the crew without their threads."""
    global _pool, _crew, _one_call
    _pool, _crew, _one_call = None, _Crew(), threading.Lock()


_core = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
_last_call = 0.0
_launchers: dict[Callable[..., None], Callable[..., None]] = {}
_forget()
atexit.register(lambda: _crew.end())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
