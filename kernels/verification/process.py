"""Workers as the tiers start them: with a sanitizer's runtime or without, watched, and their end read for what was found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

from minirnn.kernels.emulator import build
from minirnn.kernels.verification.cases import Case

PLAIN, ADDRESS, THREAD = build.SANITIZERS
CHECKS = {PLAIN: "emulation", ADDRESS: "address and undefined-behaviour sanitizer", THREAD: "thread sanitizer"}
_RUNTIMES = {PLAIN: (), ADDRESS: ("libasan.so", "libubsan.so", "libstdc++.so"), THREAD: ("libtsan.so",)}
_REPORTS = (  # what a sanitizer's report begins with; the place is the first frame in a kernel's file
    (re.compile(r"ERROR: AddressSanitizer: ([\w-]+)"), "address sanitizer"),
    (re.compile(r"runtime error: (.+)"), "undefined-behaviour sanitizer"),
    (re.compile(r"WARNING: ThreadSanitizer: ([\w ]+?) \("), "thread sanitizer"),
)
_FRAME = re.compile(r"#\d+ [^\n]*?(kernel\.cu:\d+)")


@dataclass(frozen=True)
class Finding:
    """What ended a run: which check found it, on which case, and its words."""

    by: str
    message: str
    case: Case | None

    def __str__(self) -> str:
        return f"{self.by}: {self.message}"


Ran = tuple[str, str, str]  # language, kernel, dtype


@dataclass(frozen=True)
class Outcome:
    passed: int  # cases
    finding: Finding | None
    seconds: float
    ran: frozenset[Ran]


class Stopped(Exception):
    """The run was given up."""


class Workers:
    """Starts processes, from any thread; none of them outlives the `with` block."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock, self._stopped = threading.Lock(), False
        self._scratch = tempfile.TemporaryDirectory()  # for what is compiled of changed texts: nobody will ask for it again

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._scratch.cleanup()

    def run(
        self,
        cases: Sequence[Case],
        seeds: Sequence[int],
        sanitizer: str = PLAIN,
        instead: Mapping[str, str] | None = None,
        limit: float = 900,
        passed: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """`cases` one after the other until one fails, in a process of their own.

        instead  texts in the place of files, see worker.py
        limit    seconds
        passed   called after each case
        """
        described = [asdict(case) for case in cases]
        task = json.dumps({"cases": described, "seeds": list(seeds), "thorough": not sanitizer, "instead": dict(instead or {})})
        began, lines, ran = time.perf_counter(), list[Any](), set[Ran]()

        def read(line: str) -> None:
            if line.startswith("{"):
                lines.append(json.loads(line))
                case = cases[len(lines) - 1]
                ran.update((case.language, kernel, case.dtype) for kernel in lines[-1]["launched"])
                passed()

        env = environment(sanitizer) | ({"NUMBA_CACHE_DIR": self._scratch.name} if instead else {})
        code, err = self.start([sys.executable, "-m", "minirnn.kernels.verification.worker"], env, task, limit, read)
        good = sum(line["error"] is None for line in lines)
        return Outcome(good, _finding(code, lines, err, cases, limit), time.perf_counter() - began, frozenset(ran))

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        task: str,
        limit: float,
        read: Callable[[str], None],
        folder: str | None = None,
    ) -> tuple[int | None, str]:
        """Run a program on `task` as its standard input, give each line that it writes to `read`. Its exit code, None where it took longer
        than `limit` seconds; and what it wrote to standard error."""
        pipe = subprocess.PIPE
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            with self._lock:
                if self._stopped:
                    raise Stopped
                process = subprocess.Popen(list(arguments), stdin=pipe, stdout=pipe, stderr=errors, text=True, env=dict(env), cwd=folder)
                self._running.add(process)
            late = threading.Event()
            timer = threading.Timer(limit, _end, (process, late))
            timer.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                with suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(task)
                with process.stdout:
                    for line in process.stdout:
                        read(line)
                process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
                with self._lock:
                    self._running.discard(process)
            if self._stopped:
                raise Stopped
            errors.seek(0)
            return None if late.is_set() else process.returncode, errors.read()

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def _end(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def environment(sanitizer: str) -> dict[str, str]:
    """The variables under which a process runs with a sanitizer: its runtime must be there before Python itself."""
    preload = {"LD_PRELOAD": " ".join(_library(name) for name in _RUNTIMES[sanitizer])} if sanitizer else {}
    return {
        **os.environ,
        **ONE_THREAD,
        **preload,
        "MINIRNN_SANITIZE": sanitizer,
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0",
    }


@cache
def _library(name: str) -> str:
    return subprocess.run([build.compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def lacks(sanitizer: str) -> str | None:
    """What must be installed before a sanitizer can be used; None if nothing."""
    if reason := build.missing():
        return reason
    absent = [name for name in _RUNTIMES[sanitizer] if not os.path.isabs(_library(name))]
    return f"the compiler {build.compiler()} has no {', '.join(absent)}" if absent else None


def _finding(code: int | None, lines: list[Any], err: str, cases: Sequence[Case], limit: float) -> Finding | None:
    passed = sum(line["error"] is None for line in lines)
    if code == 0 and passed == len(cases):
        return None
    case = cases[passed] if passed < len(cases) else None
    if lines and lines[-1]["error"]:
        return Finding(lines[-1]["error"]["kind"], _short(lines[-1]["error"]["message"]), case)
    for report, by in _REPORTS:
        if match := report.search(err):
            frame = _FRAME.search(err, match.end())
            return Finding(by, match[1].strip() + (f" at {frame[1]}" if frame else ""), case)
    if code is None:
        return Finding("time limit", f"not done in {limit:.0f} s", case)
    if code < 0:
        return Finding("crash", f"signal {-code}", case)
    return Finding("broken", _short(err.strip().splitlines()[-1] if err.strip() else f"exit code {code}"), case)


def _short(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip()]
    error = next((line for line in lines[1:] if "error" in line), "")
    return f"{lines[0]} {error}".strip()[:240] if lines else ""
