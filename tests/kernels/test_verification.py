"""The verification is verified: survivors, stale texts, broken workers and wrong sums must show, and every planted text must still fit."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.cuda import source
from minirnn.kernels.emulator import build
from minirnn.kernels.verification import mutation, planted, report, suites, tiers
from minirnn.kernels.verification.__main__ import exit_code, main
from minirnn.kernels.verification.cases import Case, Mismatch, compare
from minirnn.kernels.verification.mutation import STAGES, Verdict
from minirnn.kernels.verification.planted.change import BARRIER, Change, Stale
from minirnn.kernels.verification.process import ADDRESS, THREAD, Finding, Workers, _finding
from minirnn.kernels.verification.report import Row

CHANGES = planted.everything()
PLAIN_ONLY = STAGES[:1]
runs = pytest.mark.skipif(build.missing() is not None, reason="compiles kernels for this CPU")
BUG = Change("v is the mean of g", "adam/adam.cu", "(g * g - before_v)", "(g - before_v)", "adam")
NO_BUG = Change("a comment", "adam/adam.cu", "if (j >= size) return;", "if (j >= size) return;  // nothing is wrong", "adam")


def try_out(change: Change) -> Verdict:
    with Workers() as workers:
        return mutation.try_out(change, workers, PLAIN_ONLY)


@runs
def test_a_planted_bug_is_found() -> None:
    verdict = try_out(BUG)
    assert verdict.right
    assert verdict.finding is not None
    assert verdict.finding.by == "result"
    assert "param is off by" in verdict.finding.message


@runs
def test_a_survivor_is_reported() -> None:
    verdict = try_out(NO_BUG)
    assert not verdict.right
    assert verdict.fault == "survives every check"


@runs
def test_a_harmless_change_passes_and_one_that_is_found_is_reported() -> None:
    harmless = Change(NO_BUG.what, NO_BUG.file, NO_BUG.old, NO_BUG.new, "adam", harmless=True)
    assert try_out(harmless).right
    harmful = try_out(Change(BUG.what, BUG.file, BUG.old, BUG.new, "adam", harmless=True))
    assert not harmful.right
    assert harmful.fault.startswith("harmless, but found by result")


@runs
@pytest.mark.parametrize(
    ("file", "old", "new", "by"),
    [
        ("adam/cupy_.py", "if not param.size:", "if not parameter.size:", "broken"),
        ("adam/adam.cu", "if (j >= size) return;", "if (j >= size) retrun;", "compiler"),
        ("adam/adam.cu", "no such text", "", "stale"),
    ],
)
def test_what_proves_nothing_is_not_taken_for_a_find(file: str, old: str, new: str, by: str) -> None:
    verdict = try_out(Change("a mistake of its own", file, old, new, "adam"))
    assert verdict.finding is not None
    assert verdict.finding.by == by
    assert not verdict.right


def test_a_stale_text_is_refused() -> None:
    with pytest.raises(Stale, match="2 times in place of 1"):
        Change("twice", "x.cu", "a b", "", "lstm").applied(lambda path: "a b; a\n  b;", Path())
    with pytest.raises(Stale, match="0 times in place of 2"):
        Change("gone", "x.cu", "a b", "", "lstm", of=2).applied(lambda path: "ab", Path())


def test_white_space_of_a_text_may_change_and_the_place_can_be_chosen() -> None:
    second = Change("the second", "x.cu", "a b", "c", "lstm", nth=2, of=2)
    assert second.applied(lambda path: "a  b; a\n\tb;", Path()) == "a  b; c;"


def test_every_planted_text_fits_its_file() -> None:
    """Once, or as often as it says, and what is left is another text; of Python, one that parses."""
    for change in CHANGES:
        text = change.applied(source.text, source.KERNELS)
        assert text != source.text(source.KERNELS / change.file), change
        if change.file.endswith(".py"):
            ast.parse(text)
        assert mutation.cases_of(change), change


def test_planted_bugs_are_many_and_each_has_a_name_of_its_own() -> None:
    names = [(change.file, change.what) for change in CHANGES]
    assert len(set(names)) == len(names)
    bugs = [change for change in CHANGES if not change.harmless]
    for language in ("CUDA C++", "numba-cuda"):
        for cell in ("lstm", "gru", "rnn"):
            assert sum((change.language, change.kernel) == (language, cell) for change in bugs) >= 5
        assert any(change.harmless and change.language == language for change in CHANGES)


@pytest.mark.parametrize("file", sorted({change.file for change in CHANGES if "barrier" in change.what}))
def test_every_barrier_is_left_out_once(file: str) -> None:
    """A new barrier needs a planted bug that leaves it out."""
    barriers = len(BARRIER.findall(source.text(source.KERNELS / file)))
    bugs = [change for change in CHANGES if change.file == file and not change.harmless and "sync" not in change.new]
    texts = {change.applied(source.text, source.KERNELS) for change in bugs}
    assert sum(len(BARRIER.findall(text)) == barriers - 1 for text in texts) == barriers


def test_the_thread_sanitizer_is_asked_about_every_barrier_of_cuda_cpp() -> None:
    asked = [change for change, sanitizer, _ in tiers.for_sanitizers() if sanitizer == THREAD]
    texts = {source.text((source.KERNELS / file).resolve()) for file in {change.file for change in asked}}
    assert len(asked) >= sum(len(BARRIER.findall(text)) for text in texts)


def test_every_file_with_a_barrier_has_planted_bugs() -> None:
    paths = [source.KERNELS / unit.path for unit in source.UNITS]
    paths += [path for pattern in ("cuda/*.cuh", "cuda/numba_rows.py", "*/numba_cuda.py") for path in source.KERNELS.glob(pattern)]
    with_barriers = {str(path.relative_to(source.KERNELS)) for path in paths if BARRIER.search(source.text(path))}
    assert with_barriers <= {change.file for change in CHANGES}


def outcome(err: str, code: int = 1, lines: list[Any] | None = None) -> Finding | None:
    case = Case("adam", "float32", (3,))
    return _finding(code, lines or [], err, [case], 5)


FRAME = "\n    #0 0x7f in adam_step(float*) kernel.cu:50\n    #1 0x7e in run kernel.cu:9\n"


@pytest.mark.parametrize(
    ("err", "by", "message"),
    [
        (
            "==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x6" + FRAME,
            "address sanitizer",
            "heap-buffer-overflow at kernel.cu:50",
        ),
        (
            "kernel.cu:50:3: runtime error: signed integer overflow" + FRAME,
            "undefined-behaviour sanitizer",
            "signed integer overflow at kernel.cu:50",
        ),
        ("WARNING: ThreadSanitizer: data race (pid=1)" + FRAME, "thread sanitizer", "data race at kernel.cu:50"),
        ("Traceback\nValueError: no", "broken", "ValueError: no"),
    ],
)
def test_a_sanitizers_report_is_read(err: str, by: str, message: str) -> None:
    finding = outcome(err)
    assert finding is not None
    assert (finding.by, finding.message) == (by, message)


def test_a_crash_a_hang_and_a_worker_that_says_nothing_are_told_apart() -> None:
    assert str(outcome("", -11)) == "crash: signal 11"
    assert str(_finding(None, [], "", [], 5)) == "time limit: not done in 5 s"
    assert str(outcome("", 0)) == "broken: exit code 0"
    assert outcome("", 0, [{"error": None, "launched": []}]) is None


def test_a_nan_is_a_mismatch() -> None:
    compare("x", np.array([1.0]), np.array([1.0 + 1e-13]), 1e-12)
    for wrong in (np.array([np.nan]), np.array([1.1]), np.array([[1.0]])):
        with pytest.raises(Mismatch):
            compare("x", wrong, np.array([1.0]), 1e-12)


def test_a_kernel_that_never_ran_is_named() -> None:
    ran = {("cupy", "adam_step", "float32")}
    assert tiers.never_run(ran, ran | {("numba-cuda", "column_sum", "float64")}) == ["numba-cuda column_sum float64"]


def test_the_thread_sanitizer_gets_every_kernel_and_dtype_of_the_address_sanitizer() -> None:
    def kinds(sanitizer: str) -> set[tuple[str, str, str | None]]:
        return {(case.kernel, case.dtype, case.form) for group in suites.sanitized(sanitizer).values() for case in group}

    assert kinds(THREAD) == kinds(ADDRESS)


ROWS = [
    Row(1, "first", 3, 40, (4, 4), 10.2),
    Row(2, "second", 8, 1200, None, 5.3, ("a case fails",)),
    Row(5, "third", 8, 60, (57, 58), 100.0),
    Row(6, "fourth", not_run="there is none here"),
]


def test_the_table_adds_up() -> None:
    table = report.table(ROWS)
    assert table[-1] == ("all that ran", "-", "1,300", "61 of 62", "116")
    assert table[3] == ("6 fourth", "-", "-", "-", "not run")
    assert [row.clean for row in ROWS] == [True, False, False, True]
    assert report.total(ROWS).faults == ("a case fails",)


def test_the_document_says_what_was_found_by_what_and_what_was_not_run() -> None:
    verdicts = [
        Verdict(BUG, Finding("result", "param is off | by much", None), 1),
        Verdict(NO_BUG, None, 1),
        Verdict(Change("a barrier more", "x.cu", "", "", "adam", harmless=True), None, 1),
    ]
    text = report.markdown(ROWS, verdicts, {"g++": "12.2"}, 130)
    assert "| **" not in text
    assert "Tier 6 was not run: there is none here." in text
    assert "**1 faults:**" in text
    assert "| `adam/adam.cu` | v is the mean of g | result: param is off \\| by much |" in text
    assert "| `adam/adam.cu` | a comment | survives every check |" in text
    assert "- `x.cu`: a barrier more\n" in text
    assert report.found_by(verdicts) == {"result": 1}


def test_the_exit_code_tells_a_fault_from_a_tier_that_could_not_run() -> None:
    assert exit_code([ROWS[0], ROWS[3]], quick=False) == 0
    assert exit_code(ROWS, quick=False) == 1
    not_compiled = Row(4, "compilation", not_run="there is no CuPy")
    assert exit_code([not_compiled], quick=False) == 2
    assert exit_code([not_compiled], quick=True) == 0


def test_a_name_that_no_planted_bug_has_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--bugs", "no such bug"])
    assert "no planted bug has 'no such bug' in its file or its description" in capsys.readouterr().err


@runs
def test_ctrl_c_stops_it_cleanly() -> None:
    command = [sys.executable, "-m", "minirnn.kernels.verification", "--tier", "2", "--processes", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == "stopped"
    assert not out
