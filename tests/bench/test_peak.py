"""The most memory of a process: a known array is seen, also after it has gone, and what was before is not."""

from __future__ import annotations

import numpy as np
import pytest

from minirnn.bench.peak import Peak, release, resident

pytestmark = pytest.mark.skipif(resident() is None, reason="the system does not tell")
SIZE = 64 * 2**20  # bytes: far more than what else happens
ROUGH = 4 * 2**20  # the kernel counts each core's pages apart, and adds them up now and then


def test_an_array_that_has_gone_is_seen() -> None:
    peak = Peak()
    np.ones(SIZE, np.uint8)
    rise = peak.rise()
    assert rise is not None
    assert SIZE - ROUGH <= rise < 1.5 * SIZE


def test_what_was_before_does_not_count() -> None:
    np.ones(2 * SIZE, np.uint8)
    release()
    peak = Peak()
    if (resident("VmHWM") or 0) - (peak.before or 0) > ROUGH:
        pytest.skip("the high-water mark cannot be set back here")
    rise = peak.rise()
    assert rise is not None
    assert rise < SIZE / 2
