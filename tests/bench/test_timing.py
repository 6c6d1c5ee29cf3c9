"""Turns, rounds and statistics, on contestants that need no time and on numbers whose statistics are known."""

from __future__ import annotations

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


def test_a_turn_ends_when_the_process_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    spinning = [2 * timing.LOOK]  # seconds of processor time that a thread still takes
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += min(seconds, spinning[0])
        spinning[0] -= min(seconds, spinning[0])

    monkeypatch.setattr(timing.time, "sleep", sleep)
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])
    timing.settle()
    assert slept == [timing.LOOK] * 3
    spinning[0] = float("inf")
    timing.settle()  # gives up
    assert sum(slept[3:]) == pytest.approx(timing.SETTLE)


def test_a_short_call_is_repeated_and_a_long_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing, "settle", lambda: None)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    durations: list[float] = []

    def run() -> None:
        now[0] += durations.pop(0)

    durations[:] = [0.5]
    assert turn(run, fill=0.125) == 0.5
    durations[:] = [0.0625, 0.03125, 0.0625, 0.03125, 9.0]  # the first warms up, the last is one too many
    assert turn(run, fill=0.125) == 0.03125
    assert durations == [9.0]
