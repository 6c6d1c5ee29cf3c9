"""The rest of the command line: help, data, doctor, gradcheck, bench, and how errors of every kind come out."""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirnn import cli
from minirnn.kernels import availability
from minirnn.kernels.lstm import numpy_

from .conftest import Call


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command and sub-command that does something."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from commands(child)


ALL = list(commands(cli.make_parser()))


@pytest.mark.parametrize("parser", ALL, ids=lambda parser: parser.prog)
def test_every_command_explains_itself_with_an_example_that_can_be_parsed(call: Call, parser: argparse.ArgumentParser) -> None:
    shown = call(*parser.prog.split()[1:], "--help")
    assert shown.code == 0
    assert "example" in shown.out
    assert parser.epilog is not None
    for line in parser.epilog.splitlines()[1:]:
        words = shlex.split(line.partition("<")[0])
        assert words[0] == "minirnn"
        assert callable(cli.make_parser().parse_args(words[1:]).handler)


def test_the_commands_of_this_package_are_all_there() -> None:
    names = {parser.prog.removeprefix("minirnn ") for parser in ALL}
    assert names >= {
        "demo",
        "train",
        "evaluate",
        "translate",
        "data list",
        "data get",
        "data show",
        "gradcheck",
        "doctor",
        "bench lstm",
        "bench gru",
        "bench matmul",
        "bench gpu",
    }


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numba", "matplotlib", "rich", "sacrebleu", "safetensors", "minirnn.training", "minirnn.nn")
    program = f"import sys; from minirnn.cli import make_parser; make_parser(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["learn"], "invalid choice: 'learn'"),
        (["data"], "ACTION"),
        (["data", "get", "cldrr"], "unknown data set 'cldrr'; did you mean cldr?"),
        (["data", "show", "no/such.tsv"], "no/such.tsv"),
        (["data", "show", "cldr", "-n", "0"], "expected a whole number above 0"),
        (["bench", "lstm", "--shape", "1,2,3"], "expected T,N,D,H"),
        (["bench", "lstm", "--shape", "1,2,3,0"], "expected T,N,D,H"),
        (["bench", "matmul", "--shape", "1,2"], "expected M,K,N, three whole numbers"),
        (["bench", "lstm", "--kernel", "magic"], "kernel 'magic' cannot run here"),
        (["doctor", "--colour"], "unrecognized arguments: --colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(call: Call, arguments: list[str], complaint: str) -> None:
    assert complaint in call(*arguments).complaint


def test_data_list_and_show(call: Call, phrases: Path) -> None:
    listed = call("data", "list")
    assert listed.code == 0
    assert {"cldr", "tatoeba", "multi30k"} <= {entry["name"] for entry in json.loads(call("data", "list", "--json").out)}
    shown = json.loads(call("data", "show", phrases, "-n", 1, "--json").out)
    assert sum(shown["sizes"].values()) == 64
    assert len(shown["examples"]) == 1
    assert " and " in call("data", "show", phrases, "-n", 64).out
    assert "nothing to fetch" in call("data", "get", "cldr").out


def test_doctor_knows_every_kernel_and_says_why_one_cannot_run(call: Call) -> None:
    found = json.loads(call("doctor", "--json").out)
    cpu = {(entry["cell"], entry["name"]): entry for entry in found["kernels"] if entry["device"] == "cpu"}
    assert cpu["lstm", "numpy"]["why_not"] is None
    assert sum(entry["chosen"] for (cell, _), entry in cpu.items() if cell == "lstm") == 1
    cuda = [entry for entry in found["kernels"] if entry["device"] == "cuda" and entry["name"] == "numpy"]
    assert all("the device is cuda" in entry["why_not"] for entry in cuda)
    assert found["packages"]["numpy"]
    text = call("doctor").out
    assert "BLAS" in text
    assert "chosen" in text


def test_doctor_lists_every_device_with_its_kernels_or_the_reason(call: Call) -> None:
    found, text = json.loads(call("doctor", "--json").out), call("doctor").out
    assert list(found["devices"]) == ["cpu", "cuda", "emulated"]
    for device, reason in found["devices"].items():
        assert reason == availability.missing(device)
        assert f"{device:<12}{'can be used' if reason is None else f'cannot be used: {reason}'}" in text
        if device != "cpu":
            cupy = next(e for e in found["kernels"] if (e["device"], e["cell"], e["name"]) == (device, "lstm", "cupy"))
            assert (cupy["why_not"] is None) == cupy["chosen"] == (reason is None)
    for name, gpu in found["gpus"].items():
        assert gpu["multiprocessors"] > 0
        assert f"{name}: {gpu['name']}, compute capability {gpu['compute_capability']}" in text
    if found["devices"]["emulated"] is None:
        assert found["compiler"] in text


def test_gradcheck_finds_that_all_is_right(call: Call) -> None:
    result = call("gradcheck")
    assert result.code == 0, result.out
    assert "LSTM, kernel numpy" in result.out
    assert "all gradients are the derivatives" in result.out


def test_gradcheck_finds_a_planted_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    right = numpy_.backward

    def wrong(*arguments: object, **options: object) -> object:
        grads = right(*arguments, **options)  # type: ignore[arg-type]
        return grads._replace(dw_hh=grads.dw_hh * 1.001)

    monkeypatch.setattr(numpy_, "backward", wrong)
    result = call("gradcheck", "--json")
    assert result.code == 1
    faults = {entry["what"]: entry["gradient"] for entry in map(json.loads, result.out.splitlines())}
    assert [what for what, fault in faults.items() if fault] == ["LSTM, kernel numpy"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "minirnn: interrupted\n"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "minirnn: runs: Permission denied\n"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            2,
            "minirnn: out of memory: Unable to allocate 9 TiB; make the model or the batch smaller\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "minirnn: No space left on device\n"),
    ],
    ids=["Ctrl-C", "permission", "memory", "disk"],
)
def test_what_goes_wrong_elsewhere(call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr("minirnn.doctor.examine", fails)
    result = call("doctor")
    assert (result.code, result.err) == (code, said)


def test_help_of_train_lists_the_models_and_their_settings(call: Call) -> None:
    shown = call("train", "--help").out
    for expected in ("seq2seq: an LSTM encoder and decoder", "decoder_hidden=256", "attention=general", "lr=0.002", "patience=0"):
        assert expected in shown
    assert "source_size" not in shown  # the data's to say


def test_doctor_without_a_home_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert "name one in XDG_CACHE_HOME" in json.loads(call("doctor", "--json").out)["data"]["cache"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_streams_that_were_closed_beforehand() -> None:
    for arguments, code in (("data list", 0), ("learn", 2), ("translate nowhere -", 2)):
        line = f"{shlex.quote(sys.executable)} -m minirnn {arguments} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", line], check=False).returncode == code


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-m", "minirnn", "data", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_a_terminal_without_accents_gets_question_marks() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-X",
            "utf8=0",
            "-c",
            "import sys; from minirnn.cli import main; sys.stdout.reconfigure(encoding='ascii')\n"
            "from minirnn import doctor; doctor.examine = dict; doctor.report = lambda found: 'é'; sys.exit(main(['doctor']))",
        ],
        capture_output=True,
        check=True,
    )
    assert result.stdout == b"?\n"
