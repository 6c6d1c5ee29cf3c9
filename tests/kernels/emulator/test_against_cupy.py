"""The stand-in against the real CuPy, where that can be imported: what CuPy refuses, the stand-in refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minirnn.kernels.emulator import freeze, names
from minirnn.kernels.emulator import stand_in as xp

if importlib.util.find_spec("cupy") is None:
    pytest.skip("needs CuPy: pip install 'minirnn[cuda13]'", allow_module_level=True)

# n is an array of the host (2, 3), x the same on the device, i an index and m a mask of two on the device.
REFUSED = """
np.asarray(x)
np.array(x)
xp.float32(x)
bool(x)
x.item()
range(i[0])
hash(x)
x @ n
n @ x
xp.matmul(x, n)
xp.dot(x, n)
x.dot(n)
xp.dot(x, x)
xp.tensordot(x, n, 1)
xp.stack([x, n])
xp.column_stack([x, n])
xp.broadcast_to(n, (2, 2, 3))
xp.cumsum(n)
xp.nonzero(n)
xp.sum([1, 2])
xp.argmax(n, dtype=None)
xp.may_share_memory(x, n)
xp.linalg.det(n)
xp.linalg.slogdet(n)
xp.add.at(n, i, 1)
xp.maximum.reduce(x)
xp.maximum.accumulate(x)
xp.logaddexp.reduce(x)
xp.subtract.at(x, i, x)
xp.add(x, x, subok=True)
xp.add(x, x, order='C')
xp.exp(x, sig=1)
xp.add(x)
xp.max(x, initial=0)
xp.min(x, where=m)
x.max(initial=0)
x.max(where=m)
x.sum(where=m)
x.sum(initial=0)
x.mean(where=m)
x.var(mean=0)
xp.sum(x, initial=0)
xp.sum(x, where=True)
xp.prod(x, initial=1)
xp.std(x, correction=1)
xp.clip(x, min=0, max=1)
xp.cumsum(x, include_initial=True)
x.take(i, axis=0, mode='clip')
xp.take(x, i, axis=0, mode='clip')
x.repeat(np.array([1, 2]), axis=0)
xp.repeat(x, i)
xp.sort(x, stable=True)
xp.split(x, i)
xp.trace(x, foo=1)
x[5]
x['a']
x[0, 0, 0]
x.__setitem__(0, n[0])
x.__setitem__(0, [1, 2, 3])
x.__setitem__(slice(None), n)
x.fill(n)
x.fill(x)
x.set(x)
x.set(n.astype('f'))
x.set(n[0])
x.astype(str)
xp.array(None)
xp.zeros(3, dtype=object)
xp.empty(3, 'S4')
xp.longdouble
xp.errstate
xp.float128
xp.geomspace
xp.nansum(x, where=m)
xp.lib.nothing
x.ctypes
x.tostring()
x.resize(3)
x.newbyteorder()
x.setflags(write=False)
x.argsort(stable=True)
xp.random.Generator.normal
xp.random.Generator.permutation
xp.random.Generator.shuffle
xp.random.Generator.choice
xp.cuda.nothing
xp.cuda.Stream.null.nothing
xp.cuda.Device.nothing
""".strip().split("\n")

ACCEPTED = """
x + x
2 * x
np.float32(2) * x
np.tanh(x)
np.sum(x)
x.sum(0, keepdims=True)
x[0, 0]
x[..., None]
x[[0, 1]]
x[np.array([0, 1])]
x[i]
x[m]
x.__setitem__(i, n)
x.__setitem__(m, 1)
x.__setitem__(0, 1)
x.__setitem__(0, x[1])
x.take(i, axis=0)
xp.take(x, np.array([0, 1]), axis=0)
xp.where(x > 0, x, 0)
xp.add(x, x, out=x)
xp.add(x, x, where=x > 0)
xp.add(x, x, dtype='f')
xp.concatenate([x, x], axis=1)
xp.einsum('ij,kj->ik', x, x)
xp.tensordot(x, x, 2)
xp.full((2,), x[0, 0])
xp.asarray([x, x])
xp.asarray(n)
xp.ascontiguousarray(x.T)
xp.zeros_like(n)
xp.asnumpy(n)
xp.linalg.norm(x)
xp.argmax(x, axis=1)
xp.add.at(x, i, 1.0)
x.scatter_add(i, 1.0)
x.fill(np.array(1.0))
x.get()
x.copy()
xp.shape(x)
xp.result_type(x, np.float32)
xp.can_cast(np.float32, np.float64)
xp.random.default_rng(0)
xp.random.default_rng(0).standard_normal((2,), dtype=np.float32)
""".strip().split("\n")


@cache
def real() -> dict[str, str]:
    script = Path(__file__).with_name("real_cupy.py")
    asked = json.dumps([*REFUSED, *ACCEPTED])
    answer = subprocess.run([sys.executable, str(script)], input=asked, capture_output=True, text=True, check=True)
    answers: dict[str, str] = json.loads(answer.stdout)
    return answers


def stand_in(expression: str) -> str:
    n = np.arange(6.0).reshape(2, 3)
    known = {"xp": xp, "np": np, "n": n, "x": xp.asarray(n), "i": xp.asarray([0, 1]), "m": xp.asarray([True, False])}
    try:
        eval(expression, known)
    except Exception as error:
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize("expression", REFUSED)
def test_what_cupy_refuses_is_refused(expression: str) -> None:
    """With the same kind of error, or with another that says more; NotImplementedError is no refusal."""
    assert real()[expression] != "accepted"
    assert stand_in(expression) not in ("accepted", "NotImplementedError") or real()[expression] == "NotImplementedError"


@pytest.mark.parametrize("expression", ACCEPTED)
def test_what_cupy_takes_is_taken(expression: str) -> None:
    assert real()[expression] == "accepted"
    assert stand_in(expression) == "accepted"


def test_the_frozen_names_are_those_of_the_installed_version(tmp_path: Path) -> None:
    """Where another version is installed, the difference of the two files is what to look at."""
    path = tmp_path / "names.json"
    script = f"from minirnn.kernels.emulator import freeze; import pathlib; freeze.PATH = pathlib.Path({str(path)!r}); freeze.main()"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    fresh = json.loads(path.read_text())
    if fresh["version"] != names.frozen()["version"]:
        pytest.skip(f"CuPy {fresh['version']} is installed, the names are those of {names.frozen()['version']}")
    assert fresh == names.frozen()
    assert freeze.as_text(fresh) == names.PATH.read_text()
