"""The GPU kernels, on a GPU: first whether they are right, then how fast they are, beside cuDNN through PyTorch where that is installed.

    minirnn bench gpu [--grid quick|flashrnn|haste|all] [--shape T,N,D,H ...] [--cell lstm gru rnn] [--kernel NAME ...] [--dtype NAME ...]
                      [--rounds 10] [--check] [--sanitize] [--device cuda|emulated] [--json] [--out FILE]

1. Every kernel and form runs on awkward shapes, ragged ones among them, and is compared with NumPy in float64; a wrong one ends the
   benchmark with 1. With --sanitize the same runs once more under each tool of compute-sanitizer.
2. The shapes of a grid (minirnn/bench/gpu_cases.py has them, with their sources) are timed: a layer with its input product, forward, and
   forward and backward with all gradients. CUDA events, after a warm-up, in rounds in which all contestants take turns; the median and
   the extremes are shown, and what part of the median a layer at the device's published peak would take. A time begins on an idle GPU, so
   the step form's includes what Python needs to launch it, as it does in use.

The device "emulated" runs the same code on tiny shapes and takes no times: what a CPU needs to emulate a GPU says nothing of the GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minirnn._version import __version__
from minirnn.bench.gpu_cases import AWKWARD, DTYPES, GRIDS, TINY, TINY_AWKWARD, Case, Grid
from minirnn.bench.gpu_check import Checked, check_all, contestants
from minirnn.bench.gpu_layers import CuDNN
from minirnn.bench.gpu_timing import WHAT, Timing, compare
from minirnn.device import module_of
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.kernels.availability import installed, missing
from minirnn.kernels.cuda.devices import here
from minirnn.kernels.cuda.plan import FORMS

WRONG = 1
# Of memcheck, what the driver refuses is left out: CuPy asks it for attributes that not every device has.
TOOLS: dict[str, tuple[str, ...]] = {"memcheck": ("--report-api-errors", "no"), "racecheck": (), "synccheck": ()}
# Without CuPy's memory pool every array is an allocation of its own, so that what lies outside of it is no other array.
WITHOUT_POOL = "import sys, cupy; cupy.cuda.set_allocator(None); from minirnn.cli import main; sys.exit(main(sys.argv[1:]))"


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for: 0, or 1 where a kernel is wrong."""
    reason = missing(arguments.device)
    if reason:
        raise MinirnnError(f"nothing to measure: {reason}")
    emulated = arguments.device == "emulated"
    if arguments.sanitize and (emulated or shutil.which("compute-sanitizer") is None):
        raise MinirnnError("--sanitize needs a GPU and compute-sanitizer, which comes with the CUDA toolkit")
    if arguments.out and not Path(arguments.out).resolve().parent.is_dir():  # better now than after an hour
        raise MinirnnError(f"cannot write {arguments.out}: there is no such folder")
    xp = module_of(arguments.device)
    report: dict[str, Any] = {"minirnn": __version__, "device": asdict(here(xp)), "versions": _versions(xp), "emulated": emulated}
    try:
        right = _all(arguments, xp, report, _silent if arguments.json else print)
    finally:  # what there is, also when it is interrupted
        if arguments.out:
            write_atomically(arguments.out, json.dumps(report, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(report))
    return 0 if right else WRONG


def _all(arguments: argparse.Namespace, xp: Any, report: dict[str, Any], say: Any) -> bool:
    """Checks, sanitizer and timings, into the report; whether everything is right."""
    say(f"{report['device']['name']}, {', '.join(f'{name} {version}' for name, version in report['versions'].items())}\n")
    checked, wrong = _check(arguments, xp, say, TINY_AWKWARD if report["emulated"] else AWKWARD)
    report["checks"] = [{**c._asdict(), "difference": _finite(c.difference), "right": c.right} for c in checked]
    if arguments.sanitize and not wrong:
        report["sanitizer"] = _sanitize(arguments, say)
        wrong = any(report["sanitizer"].values())
    if wrong or arguments.check:
        return not wrong
    report["results"] = []
    try:
        _measure(arguments, xp, say, report["results"])
    except RuntimeError as error:
        print(f"minirnn: {error}", file=sys.stderr)
        return False
    return True


def _check(arguments: argparse.Namespace, xp: Any, say: Any, shapes: Sequence[Any]) -> tuple[list[Checked], bool]:
    """Everything that was run, and whether anything of it is wrong."""
    dtypes = arguments.dtype or DTYPES
    checked = list(check_all(arguments.cell, arguments.kernel, dtypes, shapes, xp, arguments.device))
    if not checked:
        raise MinirnnError(f"no kernel of these runs on {arguments.device}: {', '.join(arguments.kernel or ['any'])}, {', '.join(dtypes)}")
    wrong = [c for c in checked if not c.right]
    say(f"{'right on this device':<34}{'shapes':>7}{'not run':>9}{'largest difference from NumPy in float64':>44}")
    for key in dict.fromkeys(c[:4] for c in checked):
        cases = [c for c in checked if c[:4] == key]
        ran = [c for c in cases if c.difference is not None]
        worst = max(ran, key=lambda c: (c.difference or 0.0) / c.allowed, default=None)
        most = f"{worst.difference:.1e} of {worst.allowed:.1e}" if worst else "-"
        verdict = "" if all(c.right for c in cases) else "  WRONG"
        say(f"{' '.join(key):<34}{len(ran):>7}{len(cases) - len(ran):>9}{most:>44}{verdict}")
    say("")
    for c in wrong:
        print(f"minirnn: {c.fault}", file=sys.stderr)
    return checked, bool(wrong)


def _measure(arguments: argparse.Namespace, xp: Any, say: Any, results: list[dict[str, Any]]) -> None:
    cudnn = None if arguments.device == "emulated" else CuDNN.why_not()
    if cudnn:
        say(f"not compared with cuDNN: {cudnn}\n")
    for grid in _grids(arguments):
        for cell in arguments.cell:
            for dtype in arguments.dtype or grid.dtypes:
                names = [name for _, name, _ in contestants([cell], arguments.kernel, [dtype], arguments.device)]
                pairs = [(name, form) for name in names for form in FORMS]
                if cudnn is None and arguments.device != "emulated":
                    pairs.append(("cudnn", ""))
                for case in grid.cases:
                    timings = compare(cell, case, dtype, pairs, arguments.rounds, xp, arguments.device)
                    results.append(
                        {"cell": cell, "dtype": dtype, "grid": grid.source, **case._asdict(), "timings": [asdict(t) for t in timings]}
                    )
                    _print(cell, case, dtype, timings, arguments.rounds, say)


def _grids(arguments: argparse.Namespace) -> list[Grid]:
    if arguments.shape:
        return [Grid("asked for", tuple(Case(*shape) for shape in arguments.shape), ("float32",))]
    if arguments.device == "emulated":
        return [TINY]
    return list(GRIDS.values()) if arguments.grid == "all" else [GRIDS[arguments.grid]]


def _print(cell: str, case: Case, dtype: str, timings: Sequence[Timing], rounds: int, say: Any) -> None:
    if not any(t.median_ms for t in timings):
        say(f"{cell}, {case}, {dtype}: not timed")
        for t in timings[:: len(WHAT)]:
            say(f"  {t.kernel:<12}{t.form:<12}{_off(t)}")
        say("")
        return
    say(f"{cell}, {case}, {dtype}, median of {rounds}")
    say(f"  {'kernel':<12}{'form':<12}{'what':<9}{'ms':>10}{'least':>10}{'most':>10}{'% of floor':>12}{'predicted, ms':>22}   difference")
    for t in timings:
        times = "".join(f"{'-' if ms is None else f'{ms:.3f}':>10}" for ms in (t.median_ms, t.least_ms, t.most_ms))
        percent = "-" if t.percent_of_floor is None else f"{t.percent_of_floor:.1f}"
        predicted = f"{t.predicted_ms[0]:.3g} to {t.predicted_ms[1]:.3g}" if t.predicted_ms else "-"
        say(f"  {t.kernel:<12}{t.form:<12}{t.what:<9}{times}{percent:>12}{predicted:>22}   {_off(t)}")
    say("")


def _off(t: Timing) -> str:
    return f"not run: {t.why_not}" if t.why_not else f"{t.difference:.1e}"


def _sanitize(arguments: argparse.Namespace, say: Any) -> dict[str, int]:
    """The exit code of each tool, which runs the checks in a process of its own; not 0 where it finds something."""
    chosen = ["--check", "--json"]
    for name, values in (("cell", arguments.cell), ("kernel", arguments.kernel), ("dtype", arguments.dtype)):
        chosen += [f"--{name}", *values] if values else []
    codes = {}
    for tool, options in TOOLS.items():
        sanitizer = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "3", *options]
        command = [*sanitizer, sys.executable, "-c", WITHOUT_POOL, "bench", "gpu", *chosen]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        codes[tool] = done.returncode
        say(f"compute-sanitizer {tool}: {'nothing found' if done.returncode == 0 else f'exit code {done.returncode}'}")
        if done.returncode:
            print(f"minirnn: {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}", file=sys.stderr)
    say("")
    return codes


def _finite(number: float | None) -> float | None:
    """JSON has no infinity."""
    return number if number is not None and math.isfinite(number) else None


def _versions(xp: Any) -> dict[str, str]:
    runtime = xp.cuda.runtime
    found = {"cupy": str(xp.__version__)}
    for name, number in (("CUDA runtime", runtime.runtimeGetVersion()), ("driver", runtime.driverGetVersion())):
        found[name] = f"{number // 1000}.{number % 1000 // 10}"
    for package in ("numba_cuda", "torch"):
        if installed(package):
            found[package] = importlib.metadata.version(package.replace("_", "-"))
    return found


def _silent(text: str) -> None:
    pass
