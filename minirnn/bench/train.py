"""Training steps of every model against an equivalent PyTorch model: forward, loss, backward, clipping, update.

    minirnn bench train [--model NAME ...] [--rounds R] [--threads K] [--data-dir DIR] [--profile] [--no-memory] [--json] [--out FILE]

1. Each library runs in a process of its own, with the same number of threads, the same weights under the same names, and the same batches.
   Without dropout, and with given noise where a model draws, losses and gradients must agree over the first three updates, in float64 and
   in the dtype in which the model is trained (`minirnn.bench.train_check` says how closely); otherwise nothing is timed.
2. Then both train as `minirnn train` does: dropout, noise, clipping, Adam, and the average of the weights where that is the default. The
   libraries take turns, each time a pass over eight batches; the median and the quartiles are shown, and the ratio is that of two turns of
   one round.

The models have their default sizes for the data named. PyTorch's are in `minirnn/bench/torch_models`, as its users write them. Its batches
are padded and made tensors before the clock starts, as a data loader's workers would; ours are packed in the step. EM has no equal there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.bench import report, timing, train_cases
from minirnn.bench.progress import Progress
from minirnn.bench.train_check import compare
from minirnn.bench.train_sides import Trace
from minirnn.bench.train_worker import PROFILED
from minirnn.bench.worker import Worker
from minirnn.errors import MinirnnError
from minirnn.kernels import workers

WORKER = "minirnn.bench.train_worker"
LIBRARIES = ("minirnn", "torch")
STEPS = 4  # of the progress before the turns: prepared and checked, in each library


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    names = arguments.model or list(train_cases.SPECS)
    if unknown := [name for name in names if name not in train_cases.SPECS]:
        raise MinirnnError(f"--model {' '.join(unknown)}: no such model; there are {', '.join(train_cases.SPECS)}")
    if find_spec("torch") is None:
        raise MinirnnError("bench train compares with PyTorch, which is not installed: pip install torch")
    if arguments.data_dir is not None and not Path(arguments.data_dir).is_dir():
        raise MinirnnError(f"--data-dir: {arguments.data_dir} is not a folder")
    report.check_can_write(arguments.out)
    load, threads = report.load_average(), arguments.threads or workers.count()
    found: dict[str, Any] = {
        "benchmark": "train",
        "machine": report.machine(threads, load),
        "settings": {"rounds": arguments.rounds, "batches": train_cases.BATCHES},
        "models": [],
    }
    if not arguments.json:
        print(report.heading(found["machine"], ["torch"]))
        if warning := report.load_warning(load):
            print(warning)
    with Progress("bench train", len(names) * (STEPS + 2 * (1 + arguments.rounds)), quiet=arguments.json) as progress:
        for name in names:
            row = measure(name, arguments, threads, progress)
            found["models"].append(row)
            if arguments.profile and not arguments.json:
                progress.hide()
                _print_profiles(row)
    if arguments.out:
        report.write_json(found, arguments.out)
    print(report.to_json(found) if arguments.json else shown(found))
    return 0


def measure(
    name: str, arguments: argparse.Namespace, threads: int, progress: Progress, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One model, ready for JSON. Raises RuntimeError where the libraries do not agree.

    Args:
        name: one of `train_cases.SPECS`.
        arguments: of the command line; rounds, data_dir, profile and no_memory count here.
        threads: of each library.
        progress: is told.
        settings: of the model, beside its defaults.
    """
    why = train_cases.missing(name, arguments.data_dir)
    with Worker(WORKER, threads) as ours, Worker(WORKER, threads) as theirs:
        both = dict(zip(LIBRARIES, (ours, theirs), strict=True))
        described: list[dict[str, Any]] = []
        for library, worker in both.items():
            asked = {"library": library, "name": name, "data_dir": arguments.data_dir, "drawn": why is not None, "settings": settings}
            described.append(worker.call("prepare", **asked))
            progress.advance(1, name)
        if described[0] != described[1]:
            raise RuntimeError(f"{name}: the libraries were given different data, {described[0]} and {described[1]}")
        memory = {library: None if arguments.no_memory else _memory(worker) for library, worker in both.items()}
        difference = check(name, both, described[0]["dtype"], progress)
        for worker in both.values():
            worker.call("start")
        turns = {library: (lambda worker=worker: worker.call("turn")) for library, worker in both.items()}
        seconds = timing.interleave(turns, arguments.rounds, after=lambda library: progress.advance(1, f"{name}, {library}"))
        profiles = {library: worker.call("profile") for library, worker in both.items()} if arguments.profile else None
    ratios = timing.ratios(seconds["torch"], seconds["minirnn"])
    return {
        "model": name,
        **described[0],
        "data_missing": why,
        "difference": difference,
        "seconds": seconds,
        "summary": {library: timing.summary(taken) for library, taken in seconds.items()},
        "torch_over_minirnn": {"rounds": ratios, "summary": timing.summary(ratios)},
        "memory": memory,
        **({"profile": profiles} if profiles else {}),
    }


def check(name: str, both: Mapping[str, Worker], trained: str, progress: Progress) -> dict[str, Any]:
    """The differences between the libraries by dtype: float64, and the one in which the model is trained."""
    found = {}
    dtypes = sorted({"float64", trained}, reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in dtypes:
            traces = []
            for library, worker in both.items():
                path = str(Path(folder) / f"{library}.npz")
                losses = worker.call("trace", dtype=dtype, path=path)
                traces.append(Trace(losses, _gradients(path)))
                progress.advance(1 / len(dtypes), f"{name}, checked in {dtype}")
            found[dtype] = compare(name, dtype, *traces)._asdict()
    return found


def shown(found: Mapping[str, Any]) -> str:
    """The table, and what it does not say."""
    head = [
        "model",
        "data",
        "parameters",
        "batch",
        "size",
        "minirnn, ms a step",
        "PyTorch, ms a step",
        "PyTorch / minirnn",
        "agree to",
        "MB",
    ]
    rows = []
    for row in found["models"]:
        sizes, memory = row["sizes"], [row["memory"][library] for library in LIBRARIES]
        rows.append(
            [
                row["model"],
                row["data"],
                f"{row['parameters']:,}",
                f"{row['examples']}",
                f"{sum(sizes) / len(sizes):,.0f} {row['unit']}",
                *(report.spread(row["summary"][library], 1e3) for library in LIBRARIES),
                report.spread(row["torch_over_minirnn"]["summary"]),
                f"{row['difference'][row['dtype']]['losses']:.0e}",
                " / ".join("-" if used is None else f"{used / 2**20:,.0f}" for used in memory),
            ]
        )
    lines = [report.table(head, rows, left=2), ""]
    lines.append(
        "medians and quartiles; agree to: the largest relative difference of the losses of three updates; MB: resident in a pass, in all"
    )
    lines += [f"{row['model']}: {row['data']}, since {row['data_missing']}" for row in found["models"] if row["data_missing"]]
    return "\n".join(lines)


def _memory(worker: Worker) -> int | None:
    """Bytes, while nothing else has been done in the process."""
    worker.call("start")
    worker.call("turn")
    used: int | None = worker.call("memory")
    return used


def _gradients(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}, {}]
    with np.load(path) as arrays:
        for key in arrays.files:
            k, _, name = key.partition("/")
            found[int(k)][name] = arrays[key]
    return found


def _print_profiles(row: Mapping[str, Any]) -> None:
    for library, text in row["profile"].items():
        print(f"\n{row['model']}, {library}, {PROFILED} steps\n{text}")
    print()
