"""Watching a kernel: the picture of the README is what the command prints, and the picture tells the truth."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import minirnn.kernels.emulator as package
from minirnn.kernels.emulator import __main__ as command_line
from minirnn.kernels.emulator import build, watch
from minirnn.kernels.emulator.library import Event, recording

HERE = Path(package.__file__).parent
PREFIX = "    $ python -m minirnn.kernels.emulator "


def run(arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = command_line.main(shlex.split(arguments.replace("kernels/emulator/", f"{HERE}/")))
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def examples() -> dict[str, str]:
    """Each command of the README that watches, and what stands below it."""
    text = (HERE / "README.md").read_text()
    blocks = re.split(r"\n(?=\S)", text)  # at every line that is not indented
    shown = [block[block.index(PREFIX) :].split("\n", 1) for block in blocks if PREFIX + "watch" in block]
    return {command.removeprefix(PREFIX): re.sub(r"^    ", "", below, flags=re.M).strip() for command, below in shown}


def test_the_readme_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert examples()
    for arguments, text in examples().items():
        status, printed = run(arguments, capsys)
        assert status == 0
        assert printed.strip() == text


def test_nobody_returns_before_all_of_its_block_have_come() -> None:
    kernel = build.compile((HERE / "reverse.cu").read_text())["reverse"]
    x = np.arange(12, dtype=np.float32)
    for seed in range(6):
        with recording() as events:
            kernel((3,), (4,), (x, x.copy()), seed=seed)
        for block in range(3):
            kinds = [event.waits_for for event in events if event.block == block and event.waits_for != "start"]
            assert kinds == ["block"] * 4 + ["end"] * 4
    with recording() as events:
        kernel((1,), (3,), (x, x.copy()), seed=0)
    assert [(event.thread, event.waits_for) for event in events if event.waits_for == "end"] == [(0, "end"), (1, "end"), (2, "end")]


def test_a_picture_has_a_letter_for_each_line() -> None:
    events = [Event(0, 0, 0, "start"), Event(0, 0, 3, "warp"), Event(0, 1, 0, "start"), Event(0, 1, 3, "warp"), Event(0, 1, 5, "grid")]
    assert watch.picture(events) == "block 0 thread 0   A\nblock 0 thread 1    AB".replace("A\n", "A--\n")
    assert watch.legend(events, ["", "", "__syncwarp();", "", "grid.sync();"]).split("\n")[1:3] == [
        "A  exchanges with its warp, line 3: __syncwarp();",
        "B  waits for the grid, line 5: grid.sync();",
    ]


def test_a_large_picture_says_what_it_leaves_out() -> None:
    events = [Event(0, thread, line, "block") for line in (1, 2) for thread in range(100)]
    text = watch.picture(events)
    assert text.count("\n") == 65
    assert "... and 36 threads more" in text
    assert "... 90 columns more" in text


def test_an_error_of_the_kernel_stands_below_its_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    planted = tmp_path / "planted.cu"
    planted.write_text((HERE / "reverse.cu").read_text().replace("  __syncthreads();", "  if (i) __syncthreads();"))
    _, printed = run(f"watch {planted} reverse --block 4 --args arange:4 empty:4", capsys)
    assert "A  waits for its block, line 8: if (i) __syncthreads();" in printed
    assert "although 1 threads of the block have returned" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("watch kernels/emulator/reverse.cu nothing", "has no kernel 'nothing', it has reverse"),
        ("watch kernels/emulator/reverse.cu reverse --args arange:4", "reverse takes 2 arguments, got 1"),
        ("watch kernels/emulator/reverse.cu reverse --args arange:4 4", "argument 1 of reverse is a pointer: give zeros:SHAPE"),
        ("watch kernels/emulator/reverse.cu reverse --args arange:4 empty:2", "reverse wrote outside of argument 1"),
        ("watch no_such_file.cu reverse", "No such file"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = run(arguments + (" --block 4" if "empty:2" in arguments else ""), capsys)
    assert status == 2
    assert words in printed
