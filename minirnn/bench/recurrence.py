"""Recurrent layers on every kernel, on kernels of the user's own, and in other libraries: right first, then how fast.

    minirnn bench lstm|gru|rnn [--grid quick|targets] [--shape T,N,D,H ...] [--ragged no|yes|both] [--layers K] [--bidirectional]
                               [--pass forward|both] [--kernel NAME|FILE.py ...] [--against torch flax] [--dtype float32|float64]
                               [--threads K] [--rounds R] [--no-memory] [--json] [--out FILE] [--picture FILE]

1. Each library runs in a process of its own, with the same number of threads, weights and data. Output, last states and all gradients of
   every implementation are compared with those of the NumPy kernel in float64 (`minirnn.bench.reference`); what is wrong is said, and
   not timed.
2. All of them take turns (`minirnn.bench.timing`), so that whatever else the machine does meets all of them. The median and the quartiles
   are shown. The floor is the time that NumPy needs for the same matrix products with nothing between them, and takes turns with the rest.
3. Peak memory and allocations per time step are measured in fresh processes.

A layer's time is that of a call as a user makes it: forward without gradients, or forward and backward with the gradients of the input and
of all weights. Other work on the machine, of which the load average tells, spoils all of these numbers, and those of several threads most.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.bench import recurrence_report as told
from minirnn.bench.cases import GRIDS, Arrays, Case, draw
from minirnn.bench.libraries.layer import PRODUCTS
from minirnn.bench.progress import Progress
from minirnn.bench.recurrence_worker import STEPS
from minirnn.bench.reference import forward_alone, reference
from minirnn.bench.report import check_can_write, heading, load_average, load_warning, machine, to_json, write_json
from minirnn.bench.timing import interleave
from minirnn.bench.worker import Worker, WorkerError
from minirnn.errors import MinirnnError
from minirnn.kernels import workers

WRONG = 1
ROUNDS = {"quick": 5, "targets": 9}
SHOWN = 3  # faults of one implementation; what is computed from a wrong number is wrong as well
OURS = "minirnn_"
OTHERS = {"torch": "torch_", "flax": "flax_"}
WORKER = "minirnn.bench.recurrence_worker"
# For guesses at how long it all takes: operations a second, seconds of a turn of something small, and of a fresh process.
GUESS, TURN, FRESH = 5e10, 0.08, 1.0


class Library:
    """A process with a library in it, and which of its implementations run a case."""

    def __init__(self, module: str, dtype: str, threads: int, kernel_files: Sequence[str] = ()) -> None:
        self.module, self.dtype, self.threads, self.kernel_files = module, dtype, threads, list(kernel_files)
        self.its: Any = importlib.import_module(f"minirnn.bench.libraries.{module}")  # itself imports no library but ours
        self.title: str = self.its.TITLE
        self.worker: Worker | None = None

    def start(self) -> Worker:
        """A new process; `use` loads the library there."""
        return Worker(WORKER, self.threads, self.its.environment(self.dtype))

    def use(self, worker: Worker, cell: str) -> list[dict[str, Any]]:
        """Load the library and the user's kernels; for each of these what is wrong with it."""
        added: list[dict[str, Any]] = worker.call("use", library=self.module, cell=cell, dtype=self.dtype, kernel_files=self.kernel_files)
        return added

    def call(self, function: str, **arguments: Any) -> Any:
        assert self.worker is not None
        return self.worker.call(function, **arguments)


class Benchmark:
    """What the command line asks for, and what has been found so far."""

    def __init__(self, cell: str, arguments: argparse.Namespace) -> None:
        self.cell, self.arguments = cell, arguments
        self.cases = cases(cell, arguments)
        self.threads: int = arguments.threads or workers.count()
        self.say = _silent if arguments.json else print
        self.right = True
        self.rounds: int = arguments.rounds or ROUNDS[arguments.grid]
        named = arguments.kernel or []
        self.kernels = [name for name in named if not name.endswith(".py")]
        self.users: list[str] = []  # kernels of the user's, by name
        self.ours = Library(OURS, arguments.dtype, self.threads, [name for name in named if name.endswith(".py")])
        others = [Library(OTHERS[name], arguments.dtype, self.threads) for name in arguments.against or []]
        self.missing = {library.title: reason for library in others if (reason := library.its.why_not()) is not None}
        self.libraries = [self.ours, *(library for library in others if library.title not in self.missing)]
        able = self.ours.its.names(replace(self.cases[0], stepwise=False))
        for name in self.kernels:
            if name not in able:
                raise MinirnnError(f"the {cell} kernel {name!r} cannot run here; can run: {', '.join(able)}")

    def run(self) -> dict[str, Any]:
        """The report. `right` says afterwards whether everything was."""
        load = load_average()
        described = machine(self.threads, load)
        settings = {"rounds": self.rounds, "dtype": self.arguments.dtype, "not_compared_with": self.missing}
        found: list[dict[str, Any]] = []
        report = {"benchmark": self.cell, "machine": described, "settings": settings, "cases": found}
        if (warning := load_warning(load)) is not None:
            print(warning, file=sys.stderr)
        self.say(heading(described, self.arguments.against or []))
        for title, reason in self.missing.items():
            self.say(f"not compared with {title}: {reason}")
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="minirnn-bench-") as folder:
            for library in self.libraries:
                library.worker = stack.enter_context(library.start())
                for kernel in library.use(library.worker, self.cell):
                    self.users.append(kernel["name"])
                    for fault in kernel["faults"][:SHOWN]:
                        self._wrong(f"kernel {kernel['name']} ({kernel['path']}): {fault}")
            if not self.right:
                return report
            bar = stack.enter_context(Progress(f"bench {self.cell}", sum(map(self._cost, self.cases))))
            for case in self.cases:
                found.append(self._case(case, Path(folder), bar))
                bar.hide()
                self.say("\n" + told.table_of(found[-1], self.rounds))
        self.say("\n" + told.legend(report))
        return report

    def _wrong(self, fault: str) -> None:
        self.right = False
        print(f"minirnn: {fault}", file=sys.stderr)

    def _names(self, library: Library, case: Case) -> list[str]:
        """Of the implementations that take part."""
        able: list[str] = library.its.names(case)
        if library is not self.ours or case.stepwise:
            return able
        return (self.kernels or (able[:1] if self.arguments.grid == "targets" else able)) + self.users

    def _passes(self, case: Case) -> list[str]:
        return [p for p in case.passes if self.arguments.pass_ in (None, p)] or list(case.passes)

    def _cost(self, case: Case) -> float:
        """A guess at the seconds that a case takes."""
        turns: float = sum(_turn_cost(case, p) for p in self._passes(case)) * (self.rounds + 1)
        running: list[int] = [len(self._names(library, case)) for library in self.libraries]
        return turns * (sum(running) + len(running)) + sum(running) * (0 if self.arguments.no_memory else FRESH)

    def _case(self, case: Case, folder: Path, bar: Progress) -> dict[str, Any]:
        """Validated, timed and measured."""
        expected = _expected(case, folder)
        entries = []
        for library in self.libraries:
            library.call("drop")
            entries += [self._validated(library, name, case, expected) for name in self._names(library, case)]
            library.call("prepare", library=library.module, name=PRODUCTS, case=case.as_json())
        right = [entry for entry in entries if entry["right"]]
        times = self._times(case, right, bar)
        if not self.arguments.no_memory:
            self._measure(case, right, bar)
        return told.gather(case, self._passes(case), entries, times)

    def _validated(self, library: Library, name: str, case: Case, expected: dict[str, str | None]) -> dict[str, Any]:
        entry: dict[str, Any] = {"library": library.title, "implementation": name, "right": True, "why_not": "", "differences": []}
        try:
            library.call("prepare", library=library.module, name=name, case=case.as_json())
            entry["differences"] = library.call("validate", library=library.module, name=name, case=case.as_json(), **expected)
        except WorkerError as error:
            entry |= {"right": False, "why_not": str(error)}
        faults = [entry["why_not"]] if entry["why_not"] else [d["fault"] for d in entry["differences"] if not d["right"]]
        for fault in faults[:SHOWN]:
            self._wrong(f"{told.label(entry, case)} at {case}: {fault}; not timed")
        if len(faults) > SHOWN:
            self._wrong(f"{told.label(entry, case)} at {case}: and so on, {len(faults)} quantities in all")
        return {**entry, "right": not faults}

    def _times(self, case: Case, right: Sequence[dict[str, Any]], bar: Progress) -> dict[str, list[float]]:
        """Seconds of every entry and pass, and of the products of each library, in each round; by `told.key`."""
        turns: dict[str, Callable[[], float]] = {}
        costs = {}
        for pass_ in self._passes(case):
            for library in self.libraries:
                for name in [PRODUCTS, *(entry["implementation"] for entry in right if entry["library"] == library.title)]:
                    key = told.key(library.title, name, pass_)
                    turns[key] = partial(library.call, "time", name=name, pass_=pass_)
                    costs[key] = _turn_cost(case, pass_)
        return interleave(turns, self.rounds, after=lambda key: bar.advance(costs[key], str(case)))

    def _measure(self, case: Case, right: Sequence[dict[str, Any]], bar: Progress) -> None:
        """Memory, of the last pass alone, each implementation in a process of its own. They start together: nothing is timed."""
        pass_ = self._passes(case)[-1]
        by_title = {library.title: library for library in self.libraries}
        with ExitStack() as stack:
            started = [stack.enter_context(by_title[entry["library"]].start()) for entry in right]
            for entry, worker in zip(right, started, strict=True):
                library = by_title[entry["library"]]
                library.use(worker, self.cell)
                asked = {"library": library.module, "name": entry["implementation"], "case": case.as_json(), "pass_": pass_}
                entry["resources"] = {pass_: worker.call("resources", **asked)}
                bar.advance(FRESH, f"{case}: memory")


def _expected(case: Case, folder: Path) -> dict[str, str | None]:
    """Files with what the reference gives: of the case, and on few steps with first states."""
    expected, with_states = str(folder / "expected.npz"), str(folder / "states.npz")
    if case.stepwise:
        _save(expected, forward_alone(case, draw(case)))
        return {"expected": expected, "expected_states": None}
    few = case.few_steps(STEPS)
    _save(expected, reference(case, draw(case), states=False))
    _save(with_states, reference(few, draw(few), states=True))
    return {"expected": expected, "expected_states": with_states}


def _save(path: str, arrays: Arrays) -> None:
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _turn_cost(case: Case, pass_: str) -> float:
    return TURN + case.flops(pass_) / GUESS


def cases(cell: str, arguments: argparse.Namespace) -> list[Case]:
    """Those of the grid, or of the shapes that are asked for, with the options applied."""
    if arguments.shape:
        found = [Case(cell, T, N, D, H, dtype=arguments.dtype) for T, N, D, H in arguments.shape]
    else:
        found = GRIDS[arguments.grid](cell, arguments.dtype)
    if arguments.ragged:
        kinds = {"no": (False,), "yes": (True,), "both": (False, True)}[arguments.ragged]
        found = [replace(case, ragged=ragged) for case in found for ragged in kinds if not case.stepwise]
    if arguments.layers or arguments.bidirectional:
        found = [replace(case, layers=arguments.layers or 1, bidirectional=arguments.bidirectional) for case in found if not case.stepwise]
    return list(dict.fromkeys(found))


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for: 0, or 1 where an implementation is wrong."""
    for path in (arguments.out, arguments.picture):
        check_can_write(path)
    if arguments.picture:
        from minirnn.training.pictures import figure

        figure(1, 1)  # raises NoMatplotlib now, and not after minutes
    benchmark = Benchmark(arguments.cell, arguments)
    report = benchmark.run()
    if arguments.out:
        write_json(report, arguments.out)
    if arguments.picture:
        told.picture(report, Path(arguments.picture))
    if arguments.json:
        print(to_json(report))
    return 0 if benchmark.right else WRONG


def _silent(text: str) -> None:
    pass
