"""What the tests of all recurrences share."""

from __future__ import annotations

import pytest

from minirnn.kernels import workers


@pytest.fixture(params=[1, 3], ids=["one group", "three groups"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Deals even the smallest problem out to this many threads."""
    monkeypatch.setattr(workers, "groups", lambda N, operations: min(N, request.param))
    return int(request.param)
