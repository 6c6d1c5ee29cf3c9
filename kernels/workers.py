"""Threads that share the sequences of one call: each takes a group of them through all its time steps, so nobody waits between steps.

Compiled functions release the interpreter's lock, so plain threads do. Between calls they sleep, and leave the cores to the matrix product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

WORTH = 1e7  # operations that pay for waking one more thread: about a tenth of a millisecond

_pool: ThreadPoolExecutor | None = None


def count() -> int:
    """Threads to use: the cores that this process may run on, or fewer where OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores


def groups(N: int, operations: float) -> int:
    """How many groups to deal N sequences into, when the whole call takes this many operations."""
    return max(1, min(count(), N, int(operations / WORTH)))


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


def run(function: Callable[..., None], P: int, *arguments: object) -> None:
    """Run function(p, P, *arguments) for p = 0, ..., P - 1, each in a thread of its own; returns when all have ended.

    `function` is compiled, releases the interpreter's lock, and must not wait for one of its fellows: they may run one after another.
    """
    share(lambda p: function(p, P, *arguments), P)


def _forget() -> None:
    """A forked child inherits the pool without its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
