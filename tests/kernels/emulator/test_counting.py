"""Every wait of the host and every copy is counted, the hidden ones too; and nothing else is."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import stand_in as xp


def arrays() -> tuple[Any, Any, Any, Any]:
    return xp.arange(6.0).reshape(2, 3), xp.asarray([0, 1]), xp.asarray([True, False]), xp.asarray(2.0)


WAITS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "get": lambda x, i, m, s: x.get(),
    "asnumpy": lambda x, i, m, s: xp.asnumpy(x),
    "float": lambda x, i, m, s: float(s),
    "int": lambda x, i, m, s: int(i[1]),
    "bool": lambda x, i, m, s: bool(s > 0),
    "if": lambda x, i, m, s: 1 if (x > 0).all() else 0,
    "complex": lambda x, i, m, s: complex(s),
    "item": lambda x, i, m, s: s.item(),
    "tolist": lambda x, i, m, s: x.tolist(),
    "tobytes": lambda x, i, m, s: x.tobytes(),
    "repr": lambda x, i, m, s: repr(x),
    "str": lambda x, i, m, s: str(x),
    "format": lambda x, i, m, s: f"{s:.2f}",
    "pickle": lambda x, i, m, s: pickle.dumps(x),
    "in": lambda x, i, m, s: 0 in i,
    "mask": lambda x, i, m, s: x[m],
    "mask of the host": lambda x, i, m, s: x[np.array([True, False])],
    "assignment by a mask": lambda x, i, m, s: x.__setitem__(m, x[:1]),
    "nonzero": lambda x, i, m, s: x.nonzero(),
    "flatnonzero": lambda x, i, m, s: xp.flatnonzero(x),
    "argwhere": lambda x, i, m, s: xp.argwhere(x),
    "where": lambda x, i, m, s: xp.where(x > 0),
    "unique": lambda x, i, m, s: xp.unique(x),
    "bincount": lambda x, i, m, s: xp.bincount(i),
    "repeat": lambda x, i, m, s: xp.repeat(x, i, axis=0),
    "extract": lambda x, i, m, s: xp.extract(x > 0, x),
    "compress": lambda x, i, m, s: x.compress(m, axis=0),
    "device": lambda x, i, m, s: xp.cuda.Device().synchronize(),
    "stream": lambda x, i, m, s: xp.cuda.get_current_stream().synchronize(),
    "event": lambda x, i, m, s: xp.cuda.Event().synchronize(),
    "runtime": lambda x, i, m, s: xp.cuda.runtime.deviceSynchronize(),
}

NO_WAIT: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "operators": lambda x, i, m, s: -((x + 1) * s / x**2 @ x.T),
    "reductions": lambda x, i, m, s: (x.sum(), x.max(axis=0), xp.linalg.norm(x), xp.argmax(x), xp.allclose(x, x), xp.array_equal(x, x)),
    "indices": lambda x, i, m, s: (x[i], x[0], x[:, 1:], x.take(i, axis=1), x[0, 0]),
    "assignments": lambda x, i, m, s: (x.__setitem__(i, 1), x.__setitem__(m, 0.0), x.__setitem__(0, x[1]), x.fill(3)),
    "choices": lambda x, i, m, s: (xp.where(m[:, None], x, 0), xp.clip(x, 0, 1), xp.maximum(x, s)),
    "shapes": lambda x, i, m, s: (len(x), x.shape, x.T, x.reshape(-1), xp.concatenate([x, x]), list(x), xp.repeat(x, 2)),
    "creation": lambda x, i, m, s: (
        xp.zeros((2, 2)),
        xp.empty_like(x),
        xp.full(3, s),
        xp.arange(3),
        xp.eye(3),
        x.copy(),
        x.astype(np.float32),
    ),
    "asarray of arrays": lambda x, i, m, s: (xp.asarray(x), xp.asarray([x, x]), xp.ascontiguousarray(x.T)),
    "solving": lambda x, i, m, s: xp.linalg.solve(xp.eye(2), x),
    "events": lambda x, i, m, s: (xp.cuda.Stream.null.record(), xp.cuda.Event().record()),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_counted_and_its_place_named(name: str) -> None:
    given = arrays()
    with xp.counting() as counts:
        WAITS[name](*given)
    assert counts.synchronisations >= 1
    assert all(f"{__file__}:" in place for place in counts.places)


@pytest.mark.parametrize("name", NO_WAIT)
def test_what_stays_on_the_device_waits_for_nothing(name: str) -> None:
    given = arrays()
    with xp.counting() as counts:
        NO_WAIT[name](*given)
    assert (counts.synchronisations, counts.to_host, counts.to_device, counts.places) == (0, 0, 0, [])


@pytest.mark.parametrize(
    ("copy", "nbytes"),
    [
        (lambda x: xp.asarray(np.zeros((2, 3))), 48),
        (lambda x: xp.array([1, 2, 3], dtype=np.float32), 12),
        (lambda x: xp.ascontiguousarray(np.zeros(3, np.float16)), 6),
        (lambda x: x.set(np.zeros((2, 3))), 48),
        (lambda x: x[np.array([0, 1])], 16),
        (lambda x: x[[1, 0]], 16),
        (lambda x: x.take([1, 0], axis=0), 16),
        (lambda x: x.__setitem__(xp.arange(2), np.zeros((2, 3))), 48),
    ],
)
def test_copies_to_the_device_are_counted_in_bytes(copy: Callable[[Any], Any], nbytes: int) -> None:
    x = xp.zeros((2, 3))
    with xp.counting() as counts:
        copy(x)
    assert (counts.to_device, counts.to_device_bytes, counts.synchronisations) == (1, nbytes, 0)


def test_copies_to_the_host_are_counted_in_bytes() -> None:
    x = xp.zeros((2, 3), np.float32)
    with xp.counting() as counts:
        x.get()
        float(x[0, 0])
    assert (counts.to_host, counts.to_host_bytes) == (2, 28)


def test_counters_nest_and_end() -> None:
    x = xp.zeros(3)
    with xp.counting() as outer:
        float(x[0])
        with xp.counting() as inner:
            float(x[0])
        float(x[0])
    float(x[0])
    assert (outer.synchronisations, inner.synchronisations) == (3, 1)


def test_operations_and_atomics() -> None:
    x, i = xp.zeros((2, 3)), xp.asarray([0, 0])
    with xp.counting() as counts:
        y = x + 1
        y.T.reshape(-1)[1:]  # views are no work
    assert (counts.operations, counts.atomics) == (1, 0)
    with xp.counting() as counts:
        xp.add.at(x, i, 1.0)
        x.scatter_add(i, 1.0)
        xp.add.at(xp.zeros(2, np.int64), i, 1)  # sums of integers do not depend on the order
        xp.maximum.at(x, i, 0.0)
    assert counts.atomics == 2


def test_importing_it_neither_compiles_nor_pretends_to_be_cupy() -> None:
    script = (
        "import sys; from minirnn.kernels.emulator import stand_in, build; "
        "assert 'cupy' not in sys.modules and 'numba' not in sys.modules; assert not build._runtime.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_can_stand_where_cupy_would() -> None:
    before = sys.modules.get("cupy")
    with xp.installed():
        import cupy

        assert cupy.arange(3).sum() == 3
        assert cupy is xp
    assert sys.modules.get("cupy") is before
