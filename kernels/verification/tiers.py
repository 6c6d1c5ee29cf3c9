"""The tiers of the proof, each a function that runs it and returns its row of the table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unittest.mock import patch

from minirnn.kernels.availability import missing
from minirnn.kernels.cuda import compiled, source, without_driver
from minirnn.kernels.emulator import build, numba_engine
from minirnn.kernels.verification import mutation, suites
from minirnn.kernels.verification.cases import Case
from minirnn.kernels.verification.planted import everything
from minirnn.kernels.verification.planted.change import Change
from minirnn.kernels.verification.process import ADDRESS, CHECKS, ONE_THREAD, PLAIN, THREAD, Outcome, Ran, Workers, lacks
from minirnn.kernels.verification.report import Row

CHECKOUT = source.KERNELS.resolve().parent
Step = Callable[[float], None]  # told after each piece of work how many seconds it was expected to take

EMULATION_SEEDS = (2, 0, 1, 3, 4)  # of the schedule; 0 and 1 are the ascending and the descending order
SANITIZER_SEEDS = (2, 3, 4)
ARCHITECTURES = len(compiled.ARCHITECTURES)
ALL = ("--architecture", *map(str, compiled.ARCHITECTURES))  # named, so that the table is not written
# Seconds of one core that a piece of work is expected to take: for the progress bar alone.
COSTS = {"reference": 25.0, PLAIN: 0.12, "numba-cuda": 0.8, ADDRESS: 0.3, THREAD: 0.6, "compile": 70.0, "bug": 3.0, "harmless": 15.0}

REFERENCE_TESTS = (
    *(f"tests/kernels/test_{name}.py" for name in ("lstm", "gru", "rnn", "cross_entropy", "embedding", "adam", "dropout", "layer_norm")),
    "tests/ops/test_recurrence.py",
)
AGAINST_MATHEMATICS = (
    "reference_against or differences or complex_step or unrolled or second_order or summed_exactly or published or one_hot or exact_sums"
)
PLANTED_IN_TESTS = ("the_checks_catch", "would_be_noticed")

# What the address sanitizers themselves are tested with; the thread sanitizer must find every barrier that is left out.
FOR_ADDRESS = (
    ("lstm/lstm.cu", "a whole tile of rows is read where it is ragged", "address sanitizer"),
    ("adam/adam.cu", "an integer overflows", "undefined-behaviour sanitizer"),
)


# And the compile table: what no result shows, each with a word of the fault that must be found.
_BOUNDS = "__launch_bounds__(THREADS, 1)"
_INDEXED = "{ Real many[64]; for (int k = 0; k < 64; ++k) many[k] = from[(j * k) % H]; before[at(row, H) + j] = many[row % 64]; }"
FOR_THE_COMPILER = (
    (
        Change("a literal is a float64", "adam/adam.cu", "new_m * (g - before_m)", "new_m * 0.3 * (g - before_m)", "adam", "float32"),
        "float64",
    ),
    (
        Change("an array is indexed by a variable", "cuda/packed.cu", "before[at(row, H) + j] = from[j];", _INDEXED, "lstm", "float32"),
        "local",
    ),
    (Change("registers for too many blocks", "lstm/lstm.cu", _BOUNDS, "__launch_bounds__(THREADS, 8)", "lstm", "float32", of=2), "spills"),
)


def reference(workers: Workers, step: Step) -> Row:
    """Tier 1, by the tests that compare NumPy's kernels with finite differences, complex steps, exact arithmetic and the unrolled graph."""
    name, began = "reference", time.perf_counter()
    absent = [path for path in REFERENCE_TESTS if not (CHECKOUT / path).exists()]
    if absent:
        return Row(1, name, not_run=f"{absent[0]} is not here; run it from a checkout")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        expression = " or ".join((AGAINST_MATHEMATICS, *PLANTED_IN_TESTS))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junit-xml={results}",
            "-k",
            expression,
            *REFERENCE_TESTS,
        ]
        code, err = workers.start(command, {**os.environ, **ONE_THREAD}, "", 900, lambda line: None, str(CHECKOUT))
        if not results.exists():
            return Row(1, name, seconds=time.perf_counter() - began, faults=(f"pytest wrote no results (exit code {code}): {err[-300:]}",))
        cases = list(ElementTree.parse(results).iter("testcase"))
    step(COSTS["reference"])
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    planted = [case for case in cases if any(word in (case.get("name") or "") for word in PLANTED_IN_TESTS)]
    of = [case for case in planted if case not in skipped]
    found = [case for case in of if case not in failed]
    faults = tuple(f"{case.get('classname')}: {case.get('name')} failed" for case in failed)
    ran = len(cases) - len(skipped)
    kernels = len({(case.get("classname") or "").rpartition(".")[2] for case in cases} - {"test_recurrence"})
    return Row(1, name, kernels, ran, (len(found), len(of)), time.perf_counter() - began, faults)


def emulation(workers: Workers, processes: int, step: Step) -> Row:
    """Tier 2: all kernels in both languages, on every shape, under several schedules."""
    name = "emulation"
    if reason := build.missing() or numba_engine.missing():
        return Row(2, name, not_run=reason)
    tasks = [(PLAIN, group) for group in suites.emulated().values()]
    passed, faults, ran, seconds = _run(tasks, EMULATION_SEEDS, workers, processes, step)
    faults += [f"never run: {kernel}" for kernel in never_run(ran, every_kernel())]
    remark = f"ran each case under {len(EMULATION_SEEDS)} schedules of the threads"
    return Row(2, name, _count(ran), passed, None, seconds, tuple(faults), remark=remark)


def sanitizers(workers: Workers, processes: int, step: Step) -> Row:
    """Tier 3: the kernels in CUDA C++ again, under both sets of sanitizers, side by side."""
    name = "sanitizers"
    if reason := lacks(ADDRESS) or lacks(THREAD):
        return Row(3, name, not_run=reason)
    tasks = [(which, group) for which in (THREAD, ADDRESS) for group in suites.sanitized(which).values()]
    passed, faults, ran, seconds = _run(tasks, SANITIZER_SEEDS, workers, processes, step)
    faults += [f"never run: {kernel}" for kernel in never_run(ran, {kernel for kernel in every_kernel() if kernel[0] == "cupy"})]
    began, found, bugs = time.perf_counter(), 0, for_sanitizers()
    for verdict, sanitizer, by in mutation.in_parallel(lambda planted: _under(planted, workers), bugs, workers, processes):
        step(COSTS["bug"])
        if verdict.finding and verdict.finding.by == by:
            found += 1
        else:
            faults.append(f"{CHECKS[sanitizer]}: {verdict.change.what}: found by {verdict.finding or 'nothing'}")
    remark = f"ran each case under {len(SANITIZER_SEEDS)} schedules"
    return Row(3, name, _count(ran), passed, (found, len(bugs)), seconds + time.perf_counter() - began, tuple(faults), remark=remark)


def for_sanitizers() -> list[tuple[Change, str, str]]:
    """Planted bugs, each with a sanitizer that must find it by itself, and the name under which it reports."""
    named = {(change.file, change.what): change for change in everything()}
    found = [(named[file, what], ADDRESS, by) for file, what, by in FOR_ADDRESS]
    barriers = [change for change in named.values() if change.leaves_out_a_barrier and change.language != "numba-cuda"]
    return found + [(change, THREAD, "thread sanitizer") for change in barriers]


def _under(planted: tuple[Change, str, str], workers: Workers) -> tuple[mutation.Verdict, str, str]:
    change, sanitizer, by = planted
    return mutation.try_out(change, workers, ((sanitizer, SANITIZER_SEEDS[:1]),)), sanitizer, by


def compilation(workers: Workers, processes: int, quick: bool, step: Step) -> Row:
    """Tier 4: every kernel for every architecture, a file at a time; where `quick`, only whether the table of it is complete."""
    name, began = "compilation", time.perf_counter()
    _, outdated = _compiled(workers, ["--check"])
    faults = outdated.strip().splitlines()
    if quick:
        return Row(4, name, faults=tuple(faults), not_run="" if faults else f"{compiled.TABLE.name} lists every kernel")
    if reason := without_driver.why_not_cupy() or without_driver.why_not_numba():
        return Row(4, name, not_run=reason)
    listed = compiled.listed_in_sources()
    files = sorted({file for file, _, _ in listed})
    cost = COSTS["compile"] * ARCHITECTURES / len(files)
    cases = 0
    for file, code, said in mutation.in_parallel(lambda file: (file, *_compiled(workers, [file, *ALL])), files, workers, processes):
        step(cost)
        lines = said.strip().splitlines() or [""]
        count = int(lines[-1].split()[0]) if lines[-1][:1].isdigit() else 0
        cases += count
        faults += [line for line in lines if " sm_" in line or "does not compile" in line]
        if code not in (0, 1) or not count:
            faults.append(f"{file}: exit code {code}: {lines[-1]}")
    found = [change for change, word in FOR_THE_COMPILER if word in " ".join(_faults_of(change))]
    faults += [f"{change.file}: {change.what}: not found" for change, _ in FOR_THE_COMPILER if change not in found]
    planted = len(found), len(FOR_THE_COMPILER)
    kernels, seconds = len({(file, kernel) for file, kernel, _ in listed}), time.perf_counter() - began
    remark = f"compiled for {ARCHITECTURES} architectures; each kernel, dtype and architecture is a case"
    return Row(4, name, kernels, cases, planted, seconds, tuple(faults), remark=remark)


def _compiled(workers: Workers, arguments: Sequence[str]) -> tuple[int | None, str]:
    """The exit code of the command, and what it says beside its table."""
    command = [sys.executable, "-m", "minirnn.kernels.cuda.compiled", *arguments]
    return workers.start(command, {**os.environ, **ONE_THREAD}, "", 3600, lambda line: None)


def _faults_of(change: Change) -> list[str]:
    """What is wrong with a changed file, compiled for one architecture."""
    path = (source.KERNELS / change.file).resolve()
    text = change.applied(source.text, source.KERNELS)
    source.read.cache_clear()
    try:
        with patch.object(source, "text", lambda other: text if other.resolve() == path else other.read_text()):
            return [fault for kernel in compiled.compile_unit(change.file, change.dtype, [90]) for fault in kernel.faults()]
    finally:
        source.read.cache_clear()


def planted(changes: Sequence[Change], verdicts: list[mutation.Verdict], workers: Workers, processes: int, step: Step) -> Row:
    """Tier 5. The verdicts are added to `verdicts` as they come."""
    name, began = "planted bugs", time.perf_counter()
    if reason := build.missing() or numba_engine.missing() or lacks(ADDRESS) or lacks(THREAD):
        return Row(5, name, not_run=reason)
    for verdict in mutation.try_all(changes, workers, processes):
        verdicts.append(verdict)
        step(COSTS["harmless" if verdict.change.harmless else "bug"])
    bugs = [verdict for verdict in verdicts if not verdict.change.harmless]
    faults = tuple(f"{v.change.file}: {v.change.what}: {v.fault}" for v in verdicts if not v.right)
    kernels = len({(v.change.language, v.change.kernel) for v in bugs})
    found = sum(verdict.right for verdict in bugs)
    harmless = [verdict.right for verdict in verdicts if verdict.change.harmless]
    remark = f"let {sum(harmless)} of {len(harmless)} harmless changes pass"
    return Row(5, name, kernels, len(verdicts), (found, len(bugs)), time.perf_counter() - began, faults, remark=remark)


def device() -> Row:
    """Tier 6 is another command, for a machine that has what it needs."""
    return Row(6, "on a GPU", not_run="there is none here" if missing("cuda") else "minirnn bench gpu runs it")


def _run(
    tasks: Sequence[tuple[str, Sequence[Case]]], seeds: Sequence[int], workers: Workers, processes: int, step: Step
) -> tuple[int, list[str], set[Ran], float]:
    """Cases that passed, faults, what ran, and seconds."""
    began, passed, faults, ran = time.perf_counter(), 0, list[str](), set[Ran]()

    def one(task: tuple[str, Sequence[Case]]) -> tuple[str, Outcome]:
        sanitizer, cases = task
        cost = COSTS["numba-cuda" if cases[0].language == "numba-cuda" else sanitizer]
        return sanitizer, workers.run(cases, seeds, sanitizer, passed=lambda: step(cost))

    for sanitizer, outcome in mutation.in_parallel(one, tasks, workers, processes):
        passed += outcome.passed
        ran |= outcome.ran
        if outcome.finding:
            faults.append(f"{CHECKS[sanitizer]}: {outcome.finding.case}: {outcome.finding}")
    return passed, faults, ran, time.perf_counter() - began


def _count(ran: Iterable[Ran]) -> int:
    return len({(language, kernel) for language, kernel, _ in ran})


def every_kernel() -> set[Ran]:
    """What the sources list."""
    return {("numba-cuda" if file.endswith(".py") else "cupy", kernel, dtype) for file, kernel, dtype in compiled.listed_in_sources()}


def never_run(ran: set[Ran], expected: set[Ran]) -> list[str]:
    return [" ".join(kernel) for kernel in sorted(expected - ran)]


def expected_seconds(changes: Sequence[Change], quick: bool, chosen: Sequence[int]) -> float:
    """What the steps of these tiers add up to."""
    emulated = [case for group in suites.emulated().values() for case in group]
    seconds = {
        1: COSTS["reference"],
        2: sum(COSTS["numba-cuda" if case.language == "numba-cuda" else PLAIN] for case in emulated),
        3: sum(COSTS[which] * sum(map(len, suites.sanitized(which).values())) for which in (ADDRESS, THREAD))
        + COSTS["bug"] * len(for_sanitizers()),
        4: 0 if quick else COSTS["compile"] * ARCHITECTURES,
        5: sum(COSTS["harmless" if change.harmless else "bug"] for change in changes),
    }
    return sum(seconds.get(number, 0) for number in chosen)


def versions() -> dict[str, str]:
    """Of all that the numbers depend on."""
    says = subprocess.run([build.compiler(), "-dumpfullversion"], capture_output=True, text=True)
    found = {"Python": platform.python_version(), build.compiler(): says.stdout.strip()}
    return {**found, "numpy": importlib.metadata.version("numpy"), **without_driver.versions()}
