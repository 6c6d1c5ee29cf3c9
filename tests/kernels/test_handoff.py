"""Compiled functions shared out to threads that are awake: every share runs, all at once, whoever calls and whatever was before."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the workers run functions that Numba compiled")

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.handoff import meet

Array = np.ndarray[Any, Any]


@compiled(error_model="numpy")
def count_up(p: int, P: int, counts: Array, shares: Array, amount: float) -> None:
    counts[p] += amount
    shares[p] = P


@compiled(error_model="numpy")
def relay(p: int, P: int, counter: Array, rounds: int, total: Array) -> None:
    """Each in turn adds 1: wrong, or stuck, unless all P run at the same time."""
    for k in range(rounds):
        if k % P == p:
            total[0] += 1
        meet(counter, (k + 1) * P)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("P", [1, 2, 5])
def test_every_share_runs_once(P: int, dtype: Any) -> None:
    counts, shares = np.zeros(8, dtype), np.zeros(8, np.int64)
    for _ in range(100):
        workers.run(count_up, P, counts, shares, 1.0)
    np.testing.assert_array_equal(counts, [100] * P + [0] * (8 - P))
    np.testing.assert_array_equal(shares, [P] * P + [0] * (8 - P))


@pytest.mark.parametrize("P", [1, 2, 3])
def test_shares_meet_on_fewer_cores_than_threads_too(P: int) -> None:
    counter, total = np.zeros(1, np.int64), np.zeros(1, np.int64)
    workers.run(relay, P, counter, 30, total)
    assert (counter[0], total[0]) == (30 * P, 30)


def test_workers_that_sleep_are_woken() -> None:
    counts, shares = np.zeros(2), np.zeros(2, np.int64)
    for _ in range(20):
        workers.run(count_up, 2, counts, shares, 1.0)
        time.sleep(0.003)
    np.testing.assert_array_equal(counts, [20, 20])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not say where a thread may run")
def test_workers_keep_off_the_core_of_whoever_wakes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    for core in [*sorted(allowed), min(allowed)]:
        monkeypatch.setattr(workers, "_core", lambda core=core: core)
        time.sleep(0.003)
        counts = np.zeros(2)
        workers.run(count_up, 2, counts, np.zeros(2, np.int64), 1.0)
        workers._crew.make_way()  # as if the worker had been asleep, should it not have been
        np.testing.assert_array_equal(counts, [1, 1])
        assert os.sched_getaffinity(workers._crew.threads[0].native_id or 0) == (allowed - {core} or allowed)
    assert os.sched_getaffinity(0) == allowed, "the caller's own set is left alone"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not say where a thread may run")
@pytest.mark.parametrize("why", ["one core", "not permitted", "no such call"])
def test_workers_run_where_they_run_when_they_cannot_be_moved(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError

    if why == "one core":
        monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {workers._core()} if workers._core else set())
    monkeypatch.setattr(os, "sched_setaffinity", refuse)  # with one core, too: nothing is asked for
    if why == "no such call":
        monkeypatch.setattr(workers, "_core", None)
    for _ in range(3):
        workers._crew.avoided = None
        time.sleep(0.003)
        counts = np.zeros(2)
        workers.run(count_up, 2, counts, np.zeros(2, np.int64), 1.0)
        np.testing.assert_array_equal(counts, [1, 1])
    workers._crew.avoided = None


def test_callers_in_several_threads_get_their_turns() -> None:
    counts = np.zeros((4, 2))

    def call(k: int) -> None:
        for _ in range(200):
            workers.run(count_up, 2, counts[k], np.zeros(2, np.int64), 1.0)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (counts == 200).all()


def test_an_error_before_the_call_leaves_the_workers_as_they_were() -> None:
    counts, shares = np.zeros(2), np.zeros(2, np.int64)
    with pytest.raises(Exception, match=r"(?s)cannot be represented|No implementation|resolve|Cannot"):
        workers.run(count_up, 2, "not an array", shares, 1.0)
    workers.run(count_up, 2, counts, shares, 1.0)
    np.testing.assert_array_equal(counts, [1, 1])


@pytest.mark.parametrize("where", ["wake", "launch"])
def test_an_interrupt_loses_no_worker(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    counts, shares = np.zeros(2), np.zeros(2, np.int64)
    workers.run(count_up, 2, counts, shares, 1.0)
    for pause in (0, 0.003):
        time.sleep(pause)
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            if where == "wake":
                patch.setattr(workers._crew, "wake", lambda sleepers: interrupt() if sleepers > 0 else None)
            else:
                patch.setitem(workers._launchers, count_up, interrupt)
            workers.run(count_up, 2, np.zeros(2), shares, 1.0)
        workers._crew.wake(-1)  # what the handler does; here it was patched away
        for _ in range(3):
            time.sleep(pause)
            workers.run(count_up, 2, counts, shares, 1.0)
    np.testing.assert_array_equal(counts, [7, 7])


def in_a_child(results: Any) -> None:
    counts = np.zeros(2)
    workers.run(count_up, 2, counts, np.zeros(2, np.int64), 1.0)
    results.put(counts.tolist())


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the case in question")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_has_workers_of_its_own() -> None:
    workers.run(count_up, 2, np.zeros(2), np.zeros(2, np.int64), 1.0)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=in_a_child, args=(results,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert results.get() == [1, 1]


PROGRAM = """
import sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from kernels.test_handoff import count_up
from minirnn.kernels import workers
counts = np.zeros(2)
workers.run(count_up, 2, counts, np.zeros(2, np.int64), 1.0)
assert (counts == 1).all()
"""


@pytest.mark.parametrize("last", ["pass", "time.sleep(0.01)", "raise SystemExit(0)"])
def test_the_interpreter_ends_with_workers_awake_or_asleep(last: str) -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parents[1])) + last
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_a_small_job_is_done_by_the_caller_while_the_workers_sleep() -> None:
    counts, shares = np.zeros(2), np.zeros(2, np.int64)
    for pause in (0.003, 0.003, 0, 0, 0):
        time.sleep(pause)
        before = counts.sum()
        workers.run(count_up, 2, counts, shares, 1.0, worth_waking=False)
        assert counts.sum() == before + shares[0], "one share by the caller, or two at the same time"
    workers.run(count_up, 2, counts, shares, 1.0)
    assert shares.tolist() == [2, 2]
