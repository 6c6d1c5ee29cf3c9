"""Compiled code is kept, and forgotten when any of the sources that it was made from changes."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numba
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


def test_what_was_compiled_is_in_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiling.folder.cache_clear()
    try:
        twice = compiling.compiled()(_twice)
        assert twice(21) == 42
        kept = [Path(folder) / name for folder, _, names in os.walk(tmp_path) for name in names]
    finally:
        compiling.folder.cache_clear()
    assert any(path.suffix == ".nbi" for path in kept)
    assert all(path.relative_to(tmp_path).parts[0].startswith("kernels-") for path in kept)
    assert str(tmp_path) == numba.config.CACHE_DIR


def _twice(x: int) -> int:
    return 2 * x
