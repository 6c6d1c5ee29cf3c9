"""How the time of an LSTM layer, forward and backward, grows with T, N, H and the number of threads.

    minirnn bench scaling [--axis T N H threads] [--shape T,N,D,H] [--against torch] [--dtype float32] [--threads K] [--rounds 3]
                          [--json] [--out FILE] [--picture FILE]

Each is varied alone from one base shape, in powers of two: T from 16 to 16,384, N from 1 to 1,024, H from 16 to 1,024. The exponent is the
slope of a straight line through the logarithms of the medians, with its standard error: over all points, and over the larger half of them,
where what a call costs in any case no longer counts. Operations grow like T, N, and H (D + H): exponents of 1, 1, and between 1 and 2 are
what the arithmetic alone would give ("operations"). Below that, larger problems are done more efficiently; above, they fall out of a cache.
Threads are varied at a larger shape, 64 sequences and 256 units at the least: a small problem is not shared.

Before a point is timed, the gradients of every library must be those of minirnn's `numpy` kernel. All libraries take turns; milliseconds
are medians of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.bench import curves, fits, report
from minirnn.bench.memory import MODULES, agreement, others
from minirnn.bench.memory_case import Case
from minirnn.bench.progress import Progress
from minirnn.bench.timing import interleave, summary
from minirnn.bench.worker import Worker
from minirnn.kernels import workers

AXES = {"T": [2**k for k in range(4, 15)], "N": [2**k for k in range(11)], "H": [2**k for k in range(4, 11)]}
BASE = (128, 8, 64, 64)
SHARED = {"N": 64, "H": 256}  # at least, where threads are varied
LABELS = {"minirnn": "minirnn", "torch": "PyTorch"}


def points(axis: str, base: Case, threads: int) -> list[tuple[int, Case, int]]:
    """What is timed along an axis: its value, the case, and the number of threads."""
    if axis == "threads":
        shared = replace(base, **{name: max(least, getattr(base, name)) for name, least in SHARED.items()})
        return [(count, shared, count) for count in range(1, threads + 1)]
    return [(value, replace(base, **{axis: value}), threads) for value in AXES[axis]]


def operations(case: Case) -> float:
    """Of the matrix products, forward and backward."""
    return 3 * 2 * case.T * case.N * 4 * case.H * (case.D + case.H)


def measure(
    found: Sequence[tuple[int, Case, int]], axis: str, libraries: Sequence[str], rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    """Seconds at every point of an axis, for every library."""
    results = []
    with ExitStack() as stack:
        processes: dict[tuple[str, int], Worker] = {}
        for value, case, threads in found:
            for library in libraries:
                if (library, threads) not in processes:
                    processes[library, threads] = stack.enter_context(Worker(MODULES[library], threads))
            here = {library: processes[library, threads] for library in libraries}
            differences = _check(case, here)
            for process in here.values():
                process.call("prepare", case=asdict(case), way="store")
            times = _times(here, rounds, partial(progress.advance, cost(case), f"{axis} = {value}"))
            for library, taken in times.items():
                shape = {name: getattr(case, name) for name in "TNDH"}
                results.append(
                    {
                        "axis": axis,
                        "value": value,
                        "library": library,
                        "shape": shape,
                        "threads": threads,
                        "difference": differences[library],
                        "seconds": taken,
                        "summary": summary(taken),
                        "gflops": operations(case) / 1e9 / summary(taken).median,
                    }
                )
    return results


def cost(case: Case) -> float:
    """About how long a turn takes, in arbitrary units: the operations, and what a step and a call cost in any case."""
    return operations(case) + 2e5 * case.T + 5e9


def _times(processes: Mapping[str, Worker], rounds: int, tell: Callable[[], None]) -> dict[str, list[float]]:
    turns = {library: partial(process.call, "seconds", way="store") for library, process in processes.items()}
    return interleave(turns, rounds, after=lambda library: tell())


def _check(case: Case, processes: Mapping[str, Worker]) -> dict[str, float]:
    """The largest relative difference of each library's gradients from those of minirnn's `numpy` kernel. MinirnnError if too large."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for library, process, way in [("numpy", processes["minirnn"], "numpy"), *((name, p, "store") for name, p in processes.items())]:
            file = str(Path(folder, f"{library}.npz"))
            process.call("gradients", case=asdict(case), way=way, file=file)
            with np.load(file) as arrays:
                found[library] = dict(arrays)
    reference = found.pop("numpy")
    return {library: agreement(f"bench scaling: {library}", case, gradients, reference) for library, gradients in found.items()}


def exponents(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each axis and library, and for the operations of its shapes: the fits over the larger half and over all points."""
    found = []
    for axis, library in dict.fromkeys((r["axis"], r["library"]) for r in results):
        rows = [r for r in results if (r["axis"], r["library"]) == (axis, library)]
        x, y = [r["value"] for r in rows], [r["summary"].median for r in rows]
        half = fits.larger_half(x)
        needed = [_case(r).T * _case(r).N * _case(r).H * (_case(r).D + _case(r).H) for r in rows]
        entry: dict[str, Any] = {"axis": axis, "library": library, "from": min(x[k] for k in half)}
        entry["half"] = fits.power([x[k] for k in half], [y[k] for k in half])
        entry["all"] = fits.power(x, y)
        entry["operations"] = None
        if axis != "threads" and (power := fits.power([x[k] for k in half], [needed[k] for k in half])):
            entry["operations"] = power.exponent
        found.append(entry)
    return found


def _case(r: Mapping[str, Any]) -> Case:
    return Case(**r["shape"], dtype="float32", segment=1, chunk=1)


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    for path in (arguments.out, arguments.picture):
        report.check_can_write(path)
    if arguments.picture:
        from minirnn.training import pictures

        pictures.figure(1, 1)  # says at once that Matplotlib is missing
    against, missing = others(arguments.against or ())
    libraries = ["minirnn", *against]
    load, threads = report.load_average(), arguments.threads or workers.count()
    T, N, D, H = arguments.shape or BASE
    base = Case(T, N, D, H, arguments.dtype, 1, 1)
    axes = {axis: points(axis, base, threads) for axis in arguments.axis or [*AXES, "threads"]}
    result: dict[str, Any] = {
        "benchmark": "scaling",
        "machine": report.machine(threads, load),
        "base": {name: getattr(base, name) for name in "TNDH"},
        "dtype": arguments.dtype,
        "not_compared_with": missing,
        "rounds": arguments.rounds,
        "results": [],
    }
    say = (lambda *text: None) if arguments.json else print
    say(f"LSTM, forward and backward, from T={T}, N={N}, D={D}, H={H}, {arguments.dtype}; {report.heading(result['machine'], ['torch'])}")
    if warning := report.load_warning(load):
        print(warning, file=sys.stderr)
    for library, reason in missing.items():
        say(f"not compared with {library}: {reason}")
    turns = len(libraries) * (arguments.rounds + 1)
    with Progress("bench scaling", turns * sum(cost(case) for found in axes.values() for _, case, _ in found)) as progress:
        for axis, found in axes.items():
            results = measure(found, axis, libraries, arguments.rounds, progress)
            result["results"] += results
            progress.hide()
            say("\n" + _table(axis, results, libraries))
    result["exponents"] = exponents(result["results"])
    say("\n" + _exponents(result["exponents"]))
    if arguments.out:
        report.write_json(result, arguments.out)
    if arguments.picture:
        draw(result, Path(arguments.picture))
    if arguments.json:
        print(report.to_json(result))
    return 0


def _table(axis: str, results: Sequence[Mapping[str, Any]], libraries: Sequence[str]) -> str:
    head = [axis]
    for library in libraries:
        head += [f"{LABELS[library]} ms", "GFLOP/s"]
    rows = []
    for value in dict.fromkeys(r["value"] for r in results):
        row = [f"{value:,}"]
        here = {r["library"]: r for r in results if r["value"] == value}
        for library in libraries:
            row += [report.spread(here[library]["summary"], 1e3), f"{here[library]['gflops']:.1f}"]
        if len(libraries) > 1:
            row.append(f"{here['torch']['summary'].median / here['minirnn']['summary'].median:.2f}")
        rows.append(row)
    return report.table([*head, *(["PyTorch / ours"] if len(libraries) > 1 else [])], rows)


def _exponents(found: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in found:
        operations = "-" if entry["operations"] is None else f"{entry['operations']:.2f}"
        rows.append(
            (entry["axis"], LABELS[entry["library"]], _power(entry["half"]), f"{entry['from']:,}", _power(entry["all"]), operations)
        )
    return report.table(("exponent of", "", "larger half", "from", "all", "operations"), rows, left=2)


def _power(power: fits.Power | None) -> str:
    if power is None:
        return "-"
    return f"{power.exponent:.2f}" if power.error is None else f"{power.exponent:.2f} ± {power.error:.2f}"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Milliseconds along each axis, all logarithmic, with the fitted line of the larger half."""
    from minirnn.training import pictures

    colors = {"minirnn": "tab:blue", "torch": "tab:orange"}
    axes_names = list(dict.fromkeys(r["axis"] for r in result["results"]))
    picture = pictures.figure(3.6 * len(axes_names) + 0.4, 3.8)
    for axes, axis in zip(np.ravel(picture.subplots(1, len(axes_names))), axes_names, strict=True):
        ends = []
        for entry in (e for e in result["exponents"] if e["axis"] == axis):
            rows = [r for r in result["results"] if (r["axis"], r["library"]) == (axis, entry["library"])]
            x, y = [r["value"] for r in rows], [1e3 * r["summary"].median for r in rows]
            axes.plot(x, y, "o", markersize=3, color=colors[entry["library"]])
            if entry["half"] is not None:
                half = [value for value in x if value >= entry["from"]]
                axes.plot(half, [1e3 * entry["half"].factor * v ** entry["half"].exponent for v in half], color=colors[entry["library"]])
            exponent = "" if entry["half"] is None else f" {entry['half'].exponent:.2f}"
            ends.append((x[-1], y[-1], LABELS[entry["library"]] + exponent, colors[entry["library"]]))
        axes.set(xscale="log", yscale="log", xlabel=axis, title=f"time over {axis}")
        if axis == "threads":
            shape = rows[0]["shape"]
            axes.set_title(f"over threads, N={shape['N']}, H={shape['H']}")
            axes.set_xticks(x, labels=map(str, x))
            axes.minorticks_off()
            axes.set_ylim(min(min(line.get_ydata()) for line in axes.lines) / 2, max(max(line.get_ydata()) for line in axes.lines) * 2)
            axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        curves.label_ends(axes, ends)
    picture.axes[0].set_ylabel("ms, forward and backward")
    base = result["base"]
    picture.suptitle(
        f"LSTM layer from T={base['T']}, N={base['N']}, D={base['D']}, H={base['H']}, {result['dtype']}; exponents at the ends"
    )
    pictures.save(picture, path)
