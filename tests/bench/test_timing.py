"""Turns, rounds and statistics, on contestants that need no time and on numbers whose statistics are known."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable

import pytest

from minirnn.bench import timing
from minirnn.bench.timing import interleave, ratios, summary, turn


def test_median_quartiles_and_extremes() -> None:
    assert summary([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0, 1.0, 5.0)
    assert summary([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25, 1.0, 4.0)
    assert summary([7.0]) == (7.0,) * 5


def test_a_ratio_belongs_to_a_round() -> None:
    assert ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_contestants_take_turns_there_and_back() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[], float]:
        def seconds() -> float:
            order.append(name)
            return float(len(order))

        return seconds

    seen: list[str] = []
    times = interleave({name: contestant(name) for name in "abc"}, 2, after=seen.append)
    assert order == seen == ["c", "b", "a", "a", "b", "c", "c", "b", "a"]
    assert times == {"a": [4.0, 9.0], "b": [5.0, 8.0], "c": [6.0, 7.0]}  # the first round warms up


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what threads do")
def test_a_turn_ends_when_no_thread_spins_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            hashlib.sha256(bytes(1_000_000)).digest()  # without the interpreter's lock

    looks: list[bool] = []
    monkeypatch.setattr(timing, "LOOK", 0.02)
    monkeypatch.setattr(timing, "SETTLE", 60.0)
    original = timing._working

    def look() -> bool:
        looks.append(original())
        if len(looks) == 3:
            stop.set()
        return looks[-1]

    monkeypatch.setattr(timing, "_working", look)
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        timing.settle()
    finally:
        stop.set()
        thread.join()
    assert any(looks[:3])
    assert not looks[-1]


def test_a_short_call_is_repeated_and_a_long_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing, "settle", lambda: None)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    durations: list[float] = []

    def run() -> None:
        now[0] += durations.pop(0)

    durations[:] = [0.5]
    assert turn(run, fill=0.125, long=0.25) == 0.5
    durations[:] = [0.0625, 0.0625, 0.03125, 0.0625, 0.03125, 9.0]  # two warm up, three count, and the last one is too many
    assert turn(run, fill=0.125, long=0.25) == 0.03125
    assert durations == [9.0]
    durations[:] = [0.1875, 0.15625, 9.0]  # long enough to fill a turn, and too short to go without another one before it
    assert turn(run, fill=0.125, long=0.25) == 0.15625
