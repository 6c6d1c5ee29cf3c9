"""A small translation run, trained once for all tests, and a way to call the command line in this process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from minirnn.cli import main

NUMBERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre", "five": "cinq", "six": "six", "seven": "sept", "eight": "huit"}
SMALL = [
    "embedding=12",
    "encoder_hidden=6",
    "decoder_hidden=12",
    "dropout=0.1",
    "lr=0.02",
    "batch_size=16",
    "min_count=1",
    "schedule=constant",
]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that bad usage is worth: exit code 2, nothing on standard output, no traceback."""
        assert self.code == 2, self
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("minirnn")
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("train", "seq2seq", ...)` as from a shell."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's own way
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pairs such as `two and five`, `deux et cinq`."""
    path = tmp_path_factory.mktemp("data") / "phrases.tsv"
    lines = [f"{a} and {b}\t{NUMBERS[a]} et {NUMBERS[b]}\n" for a in NUMBERS for b in NUMBERS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phrases: Path) -> Path:
    """The folder of a finished run on `phrases`. Tests copy it before they damage it."""
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (pip install 'minirnn[demo]')")
    folder = tmp_path_factory.mktemp("runs") / "seq2seq"
    assert main(["train", "seq2seq", "--data", str(phrases), "--out", str(folder), "--epochs", "3", "--quiet", "--set", *SMALL]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The tiny task of the training tests, registered."""
    name = "tests.training.tiny"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / "training" / "tiny.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
