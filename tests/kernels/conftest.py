"""What the tests of all recurrences share."""

from __future__ import annotations

import pytest

from minirnn.kernels import workers

SHARING = {"one thread": (1, False), "three threads by sequences": (3, False), "three threads by units": (3, True)}


@pytest.fixture(params=SHARING.values(), ids=list(SHARING))
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Shares even the smallest problem among threads."""
    threads, by_units = request.param
    monkeypatch.setattr(workers, "groups", lambda N, operations: min(N, threads))
    monkeypatch.setattr(workers, "plan", lambda *sizes: (threads, by_units, True))
    return int(threads)
