"""Compiled code is kept, forgotten when any of the sources that it was made from changes, and not mixed up by processes at one time."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from minirnn.kernels import compiling


def load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("compiling_elsewhere", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_change_in_any_source_changes_the_folder(tmp_path: Path) -> None:
    here = Path(compiling.__file__).parent
    there = shutil.copytree(here, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    before = load(there / "compiling.py").folder()
    assert before == load(there / "compiling.py").folder() == compiling.folder()
    with (there / "product.py").open("a") as file:
        file.write("\n")
    assert load(there / "compiling.py").folder() != before


def test_what_was_compiled_is_in_that_folder(empty: Path) -> None:
    assert compiling.compiled()(_twice)(21) == 42
    kept = [Path(folder) / name for folder, _, names in os.walk(empty) for name in names]
    assert any(path.suffix == ".nbi" for path in kept)
    assert all(path.relative_to(empty).parts[0].startswith("kernels-") for path in kept)
    assert str(empty) == numba.config.CACHE_DIR


def test_what_is_found_there_is_not_compiled_again(empty: Path) -> None:
    for _ in range(2):
        twice = compiling.compiled()(_twice)
        assert twice(np.array([1.5], np.float32)).dtype == np.float32
        assert twice(np.array([1.5])).dtype == np.float64
    assert sum(twice.stats.cache_hits.values()) == 2
    assert not twice.stats.cache_misses


def test_one_line_says_that_it_compiles_and_none_that_it_need_not(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(compiling.QUIET)
    for dtype in (np.float32, np.float64):
        compiling.compiled()(_twice)(np.ones(1, dtype))
    line = capsys.readouterr().err
    assert line.startswith("minirnn: compiling CPU kernels for this machine")
    assert line.count("\n") == 1
    assert compiling.folder() in line
    compiling._say_that_it_compiles.cache_clear()  # as in a new process
    compiling.compiled()(_twice)(np.ones(1))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(compiling.QUIET, "1")
    compiling.compiled()(_twice)(np.ones(1, np.complex128))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("cache", ["ours", "Numba's"])
def test_processes_that_keep_two_signatures_at_once_do_not_mix_them_up(empty: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    """Both have read the index before either has written it, and the first to write it is the last to write its code."""
    if cache == "Numba's":
        monkeypatch.setattr(compiling, "_Kept", compiling._caching.FunctionCache)
    files = compiling._caching.IndexDataCacheFile
    save, load = files._save_data, files._load_index

    def interrupted(self: Any, name: str, data: Any) -> None:
        monkeypatch.setattr(files, "_save_data", save)
        monkeypatch.setattr(files, "_load_index", lambda self: {})
        compiling.compiled()(_twice)(np.ones(1))  # the other process
        monkeypatch.setattr(files, "_load_index", load)
        save(self, name, data)

    monkeypatch.setattr(files, "_save_data", interrupted)
    compiling.compiled()(_twice)(np.ones(1, np.float32))
    found = [kept_for(compiling.compiled()(_twice), dtype) for dtype in (np.float32, np.float64)]
    if cache == "ours":
        assert found == ["float32", "float64"]
    elif found == ["float32", "float64"]:
        pytest.skip("this version of Numba does not mix them up itself")
    else:
        assert found[1] == "float32"  # code for other numbers than those it is called with


def kept_for(dispatcher: Any, dtype: Any) -> str | None:
    """The dtype that the code kept for arrays of `dtype` was compiled for; None where nothing is kept."""
    found = dispatcher._cache.load_overload((numba.typeof(np.ones(1, dtype)),), dispatcher.targetctx)
    return None if found is None else str(found.signature.args[0].dtype)


def test_processes_that_compile_at_the_same_time(empty: Path) -> None:
    module = empty / "thrice.py"
    module.write_text(THRICE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(empty / "cache")}
    dtypes = ["float32", "float64", "float32", "float64"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, str(module), dtype], env=environment, **pipes) for dtype in dtypes]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0].split()[:2] for process in running] == [["4.5", dtype] for dtype in dtypes]
    for dtype in dtypes[:2]:  # and what they have kept is right
        after = subprocess.run(
            [sys.executable, str(module), dtype], env=environment, input="\n", capture_output=True, text=True, check=True
        )
        assert after.stdout.split()[1:] == ["4.5", dtype, "0"]


THRICE = """
import sys
import numpy as np
from minirnn.kernels.compiling import compiled

@compiled()
def thrice(x):
    return 3 * x

x = np.full(1, 1.5, sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
y = thrice(x)
print(y[0], y.dtype, sum(thrice.stats.cache_misses.values()))
"""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which nothing is kept yet, for what is compiled in the test."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    remembered = (compiling.folder, compiling._say_that_it_compiles)
    for function in remembered:
        function.cache_clear()
    yield tmp_path
    for function in remembered:
        function.cache_clear()


def _twice(x: Any) -> Any:
    return 2 * x
