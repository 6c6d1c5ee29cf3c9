"""Verifies the GPU kernels without a GPU, tier by tier, and closes with one table.

    python -m minirnn.kernels.verification            all of it, and writes kernels/VERIFIED.md
    python -m minirnn.kernels.verification --quick    minutes: of the planted bugs every sixth, and nothing is compiled for a GPU
    python -m minirnn.kernels.verification --tier 3   one tier or several

The exit code is 1 where a case fails, a planted bug survives or a harmless change is found; 2 where a tier cannot run; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from minirnn.kernels.cuda import source
from minirnn.kernels.verification import planted, report, tiers
from minirnn.kernels.verification.mutation import Verdict
from minirnn.kernels.verification.process import Stopped, Workers

EVERY = 6  # of the planted bugs, in a quick run
DOCUMENT = source.KERNELS / "VERIFIED.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=report.COMMAND, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--tier", type=int, nargs="+", choices=range(1, 7), help="1 reference, 2 emulation, 3 sanitizers, 4 compilation, 5 planted bugs"
    )
    parser.add_argument("--quick", action="store_true", help=f"every {EVERY}th planted bug, and no compilation; writes nothing")
    parser.add_argument("--bugs", metavar="TEXT", default="", help="of the planted bugs those whose file or description has this in it")
    parser.add_argument(
        "--processes", metavar="N", type=int, default=min(os.cpu_count() or 1, 8), help="side by side (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    changes = [change for change in planted.everything() if options.bugs in f"{change.file}: {change.what}"]
    if not changes:
        parser.error(f"--bugs: no planted bug has {options.bugs!r} in its file or its description")
    changes = changes[::EVERY] if options.quick else changes
    chosen = sorted(options.tier or ([5] if options.bugs else range(1, 7)))
    console, verdicts, began = Console(stderr=True), list[Verdict](), time.perf_counter()
    try:
        with Workers() as workers, _progress(console, tiers.expected_seconds(changes, options.quick, chosen)) as step:
            runs: dict[int, Callable[[], report.Row]] = {
                1: lambda: tiers.reference(workers, step),
                2: lambda: tiers.emulation(workers, options.processes, step),
                3: lambda: tiers.sanitizers(workers, options.processes, step),
                4: lambda: tiers.compilation(workers, options.processes, options.quick, step),
                5: lambda: tiers.planted(changes, verdicts, workers, options.processes, step),
                6: tiers.device,
            }
            rows = [_told(console, runs[number]()) for number in chosen]
    except (KeyboardInterrupt, Stopped):
        console.print("stopped")
        return 130
    _print(rows, verdicts)
    if not options.tier and not options.quick and not options.bugs:
        DOCUMENT.write_text(report.markdown(rows, verdicts, tiers.versions(), time.perf_counter() - began))
        console.print(f"written to {DOCUMENT}", highlight=False)
    return exit_code(rows, options.quick)


def exit_code(rows: Sequence[report.Row], quick: bool) -> int:
    """1 where something is wrong, 2 where a tier was not run that should have been."""
    if not all(row.clean for row in rows):
        return 1
    left_out = {4, 6} if quick else {6}
    return 2 if any(row.not_run and row.number not in left_out for row in rows) else 0


def _told(console: Console, row: report.Row) -> report.Row:
    """Says what is wrong as soon as a tier is done, and on what is no terminal that it is done."""
    for fault in row.faults:
        console.print(f"FAULT {row.name}: {fault}", markup=False, highlight=False)
    if not console.is_terminal:
        console.print(" | ".join(row.cells()), markup=False, highlight=False)
    return row


@contextmanager
def _progress(console: Console, seconds: float) -> Iterator[tiers.Step]:
    """A bar with the time left, on a terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=seconds)
        yield lambda expected: progress.advance(task, expected)


def _print(rows: Sequence[report.Row], verdicts: Sequence[Verdict]) -> None:
    table = Table(*report.HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    cells = report.table(rows)
    for line in cells[:-1]:
        table.add_row(*line)
    table.add_section()
    table.add_row(*cells[-1])
    console = Console()
    console.print(table)
    for note in report.notes(rows):
        console.print(note, highlight=False)
    if verdicts:
        console.print(
            "planted bugs found by " + ", ".join(f"{by} {count}" for by, count in report.found_by(verdicts).items()), highlight=False
        )
    faults = report.total(rows).faults
    console.print(f"{len(faults)} faults" if faults else "no faults", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
