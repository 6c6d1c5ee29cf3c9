"""The threads that share the sequences of a call."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import pytest

from minirnn.kernels import workers


def test_every_group_runs_once_and_in_a_thread_of_its_own() -> None:
    together = threading.Barrier(3, timeout=30)  # passes only if three run at the same time
    ran: list[int] = []

    def work(p: int) -> None:
        together.wait()
        ran.append(p)

    workers.share(work, 3)
    assert sorted(ran) == [0, 1, 2]


def test_one_group_stays_in_the_calling_thread() -> None:
    threads: list[threading.Thread] = []
    workers.share(lambda p: threads.append(threading.current_thread()), 1)
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_group_reaches_the_caller_after_all_have_stopped(failing: int) -> None:
    done = threading.Event()

    def work(p: int) -> None:
        if p == failing:
            raise ZeroDivisionError
        done.set()

    with pytest.raises(ZeroDivisionError):
        workers.share(work, 2)
    assert done.is_set()


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("", None), ("1000", None), ("four", None)])
def test_omp_num_threads_is_a_limit(monkeypatch: pytest.MonkeyPatch, asked: str, expected: int | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = workers.count()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert workers.count() == (expected or cores)


def test_groups_are_no_more_than_sequences_and_worth_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "count", lambda: 8)
    assert workers.groups(3, 1e12) == 3
    assert workers.groups(100, 1e12) == 8
    assert workers.groups(100, 1.0) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the case in question")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    workers.share(lambda p: None, 2)
    child = multiprocessing.get_context("fork").Process(target=workers.share, args=(print, 2))
    child.start()
    child.join(timeout=30)
    assert child.exitcode == 0
