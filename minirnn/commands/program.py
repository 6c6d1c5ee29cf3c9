"""How to call this program again, as the user would have to type it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*arguments: object) -> str:
    """A line for the shell that calls `minirnn` with these arguments: `minirnn evaluate runs/seq2seq`, or `.venv/bin/minirnn ...`."""
    return " ".join([_program(), *(shlex.quote(str(argument)) for argument in arguments)])


def _program() -> str:
    started = Path(sys.argv[0])
    return _typed(started) if started.stem == "minirnn" else f"{_typed(Path(sys.executable))} -m minirnn"


def _typed(path: Path) -> str:
    """The name alone where the shell finds this very file by it, otherwise the path, from here if it lies below."""
    path = Path(os.path.abspath(path))
    if shutil.which(path.name) == str(path):
        return path.name
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
