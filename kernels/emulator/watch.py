"""Watch a CUDA kernel run: when each thread came to which barrier, drawn as lines of text.

    kernel = build.compile(source)["reverse"]
    print(watch(kernel, (2,), (4,), (x, y)))

One thread of all runs at a time. A column of the picture is the time in which one thread ran, until it came to a barrier or returned, and
the letter says which. Between two letters a thread waits, or could run and is not yet chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minirnn.kernels.emulator.library import Event, Kernel, recording
from minirnn.kernels.emulator.translate import EmulatorError

MOST_THREADS = 64
MOST_COLUMNS = 110
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WHAT = {"block": "waits for its block", "grid": "waits for the grid", "warp": "exchanges with its warp"}


def watch(kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], **options: Any) -> str:
    """Run a kernel and draw what its threads did. `options` are those of Kernel.__call__; an error stands below the picture."""
    error = ""
    with recording() as events:
        try:
            kernel(grid, block, args, **options)
        except EmulatorError as raised:
            error = f"\n{raised}\n"
    return f"{picture(events)}\n{legend(events, kernel.lines)}{error}"


def picture(events: Sequence[Event]) -> str:
    """A row for each thread, a column for each time that one ran."""
    letters = _letters(events)
    moments = [event for event in events if event.waits_for != "start"]
    shown, threads = moments[:MOST_COLUMNS], sorted({(event.block, event.thread) for event in events})
    rows = [f"block {block} thread {thread:<3} {_row(shown, block, thread, letters)}" for block, thread in threads[:MOST_THREADS]]
    if len(threads) > MOST_THREADS:
        rows.append(f"... and {len(threads) - MOST_THREADS} threads more")
    if len(moments) > MOST_COLUMNS:
        rows.append(f"... {len(moments) - MOST_COLUMNS} columns more")
    return "\n".join(rows)


def legend(events: Sequence[Event], lines: Sequence[str]) -> str:
    """What the letters stand for, with the lines of the kernel."""
    entries = [
        f"{letter}  {_WHAT[waits_for]}, line {line}: {lines[line - 1].strip()}" for (line, waits_for), letter in _letters(events).items()
    ]
    return "\n".join(["", *entries, ".  returns", ""])


def _letters(events: Sequence[Event]) -> dict[tuple[int, str], str]:
    """A letter for each line at which threads wait, in the order in which they first do."""
    places = dict.fromkeys((event.line, event.waits_for) for event in events if event.waits_for in _WHAT)
    return {place: _LETTERS[i % len(_LETTERS)] for i, place in enumerate(places)}


def _row(moments: Sequence[Event], block: int, thread: int, letters: dict[tuple[int, str], str]) -> str:
    cells, begun = [], False
    mine = [i for i, event in enumerate(moments) if (event.block, event.thread) == (block, thread)]
    for i, event in enumerate(moments):
        if i in mine:
            begun = event.waits_for != "end"
            cells.append(letters[event.line, event.waits_for] if begun else ".")
        else:
            cells.append("-" if begun else " ")
    return "".join(cells).rstrip()
