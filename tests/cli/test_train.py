"""`minirnn train`, `evaluate`, `translate` and `demo`, from the outside."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minirnn import serialization
from minirnn.cli import make_parser
from minirnn.files import lock_folder

from .conftest import SMALL, Call

FILES = {"config.json", "vocab.json", "model.safetensors", "last.safetensors", "metrics.jsonl"}


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own to damage."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_a_run_s_folder_holds_all_there_is_to_know(trained: Path) -> None:
    assert not FILES - {path.name for path in trained.iterdir()}
    config = json.loads((trained / "config.json").read_text())
    assert config["model"] == "seq2seq"
    assert config["config"]["source_size"] == 4 + 9  # eight numbers, `and`, four special marks
    assert config["training"]["epochs"] == 3
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "valid" in row] == [1.0, 2.0, 3.0]
    assert rows[-2]["loss"] < rows[0]["loss"]


def test_the_curve_is_a_picture(trained: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib (pip install 'minirnn[demo]')")
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_bits(call: Call, phrases: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ["train", "seq2seq", "--data", phrases, "--epochs", 3, "--quiet", "--set", *SMALL]
    assert call(*arguments, "--out", tmp_path / "again").code == 0
    assert call(*arguments, "--out", tmp_path / "other", "--seed", 1).code == 0
    first, again, other = (serialization.load(folder / "model.safetensors") for folder in (trained, tmp_path / "again", tmp_path / "other"))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_evaluate_prints_scores_and_one_json_object(call: Call, trained: Path) -> None:
    shown = call("evaluate", trained)
    assert shown.code == 0
    assert "bleu" in shown.out
    scores = json.loads(call("evaluate", trained, "--split", "valid", "--beam", 2, "--json").out)
    assert scores["split"] == "valid"
    assert scores["beam"] == 2
    assert json.loads(call("evaluate", trained, "--no-copy-unknown", "--json").out)["copy_unknown"] is False
    assert 0 <= scores["exact"] <= 100


def test_translate_from_arguments_and_from_standard_input_agree(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_arguments = call("translate", trained, "two and five", "one and six")
    assert by_arguments.code == 0
    assert len(by_arguments.out.splitlines()) == 2
    _feed(monkeypatch, b"two and five\none and six\n")
    assert call("translate", trained, "-").out == by_arguments.out
    found = json.loads(call("translate", trained, "two and five", "--json", "--beam", 3).out)
    assert found["source"] == "two and five"
    assert isinstance(found["score"], float)


def test_translate_draws_what_was_looked_at(call: Call, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib (pip install 'minirnn[demo]')")
    assert call("translate", trained, "two and five", "six and one", "--show-attention", tmp_path / "a.png").code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a-2.png").exists()
    assert "ends with .png" in call("translate", trained, "--show-attention", "two and five", "--beam", 1, "one").complaint


@pytest.mark.parametrize("text", ["", "   ", "\t"])
def test_an_empty_text_is_refused(call: Call, trained: Path, text: str) -> None:
    assert "text 2 is empty: there is nothing to work on" in call("translate", trained, "one", text).err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "standard input is empty"),
        (b"\n", "standard input, line 1 is empty"),
        (b"\xff\xfe\n", "standard input, line 1: not UTF-8 (byte 0xff at position 1)"),
        (b"caf\xe9\n", "standard input, line 1: not UTF-8 (byte 0xe9 at position 4)"),
    ],
)
def test_standard_input_that_cannot_be_translated(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, complaint: str
) -> None:
    _feed(monkeypatch, content)
    assert complaint in call("translate", trained, "-").complaint


def test_what_was_translated_before_a_bad_line_is_printed(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _feed(monkeypatch, b"two and five\ncaf\xe9\n")
    result = call("translate", trained, "-")
    assert result.code == 2
    assert len(result.out.splitlines()) == 1
    assert "line 2" in result.err


def _feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


COMPLAINTS = [
    (["train"], "name a model"),
    (["train", "seq2sec"], "unknown model 'seq2sec'; did you mean seq2seq?"),
    (["train", "seq2seq", "--data", "multi3k"], "unknown data set 'multi3k'; did you mean multi30k?"),
    (["train", "seq2seq", "--data", "no/such.tsv"], "no/such.tsv"),
    (["train", "seq2seq", "--set", "hiden=3"], "--set hiden: no such setting; did you mean"),
    (["train", "seq2seq", "--set", "lr=fast"], "--set lr=fast: expected a number, got 'fast'"),
    (["train", "seq2seq", "--set", "lr=-1"], "lr must be above 0"),
    (["train", "seq2seq", "--set", "layers=1.5"], "expected an integer"),
    (["train", "seq2seq", "--set", "attention=bahdanau"], "expected one of none, dot, general, additive"),
    (["train", "seq2seq", "--set", "dropout=2"], "dropout must lie in [0, 1)"),
    (["train", "seq2seq", "--set", "lr"], "expected key=value"),
    (["train", "seq2seq", "--set", "lr=1", "lr=2"], "given twice"),
    (["train", "seq2seq", "--bptt", "20,10"], "bptt must be two numbers of steps K1,K2 with 1 <= K1 <= K2, as in 20,40, or one for both"),
    (
        ["train", "kalman", "--bptt", "20"],
        "kalman filters whole series and cannot be trained in chunks; what can: ssm with --set",
    ),
    (["train", "ssm", "--bptt", "20"], "ssm with model=ssm draws latent states over whole sequences and cannot be trained in chunks"),
    (["train", "seq2seq", "--kernel", "magic"], "there is no kernel named 'magic'"),
    (["train", "seq2seq", "--device", "cuda"], "cuda"),
    (["train", "seq2seq", "--minutes", "0"], "expected a number above 0"),
    (["train", "seq2seq", "--epochs", "1", "--minutes", "1"], "not allowed with argument"),
    (["train", "seq2seq", "--seed", "-1"], "expected a whole number, 0 or above"),
    (["train", "--resume", "nowhere"], "nowhere does not exist"),
    (["evaluate", "nowhere"], "nowhere does not exist"),
    (["evaluate", "."], "is not the folder of a run: it has no config.json"),
    (["translate", ".", "hello"], "is not the folder of a run"),
    (["train", "seq2seq", "--data-dir", "nowhere", "--data", "multi30k"], "nowhere is not a folder"),
    (["evaluate", ".", "--length-penalty", "nan"], "--length-penalty: expected a number from 0 to 10, got 'nan'"),
    (["translate", ".", "one", "--coverage-penalty", "-1"], "--coverage-penalty: expected a number from 0 to 10, got '-1'"),
    (["demo", "juggler"], "unknown model 'juggler'"),
    (["demo", "all", "--out", "x"], "leave out --out"),
]


@pytest.mark.parametrize(("arguments", "complaint"), COMPLAINTS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_usage_gets_one_clear_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert complaint in call(*arguments).complaint
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"one\tun\ntwo deux\n", "line 2: expected source, tab, target"),
        (b"one\tun\n\tdeux\n", "line 2"),
        (b"one\tun\nchat\tcaf\xe9\n", "line 2: not UTF-8 (byte 0xe9"),
        (b"", "empty"),
    ],
)
def test_bad_lines_of_data_are_named(call: Call, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "bad.tsv").write_bytes(content)
    assert complaint in call("train", "seq2seq", "--data", tmp_path / "bad.tsv", "--out", tmp_path / "run").complaint
    assert not (tmp_path / "run").exists()


def test_a_truncated_data_file_is_named(call: Call, tmp_path: Path, phrases: Path) -> None:
    import gzip

    whole = gzip.compress(phrases.read_bytes())
    (tmp_path / "cut.tsv.gz").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in call("train", "seq2seq", "--data", tmp_path / "cut.tsv.gz").complaint


def test_an_older_run_is_not_overwritten(call: Call, phrases: Path, copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert "holds a run already" in call("train", "seq2seq", "--data", phrases, "--out", copy).complaint
    assert before == {path.name: path.read_bytes() for path in copy.iterdir()}


def test_other_people_s_files_are_not_mixed_with_a_run(call: Call, phrases: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert "is not empty" in call("train", "seq2seq", "--data", phrases, "--out", tmp_path).complaint


def test_a_second_process_that_writes_the_same_run_is_refused(call: Call, copy: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        complaint = call("train", "--resume", copy, "--epochs", 4).complaint
        assert f"is being written by process {holder.pid}" in complaint
    finally:
        holder.communicate("\n")


_HOLD = "import sys; from minirnn.files import lock_folder\nwith lock_folder(sys.argv[1]): print('held', flush=True); sys.stdin.readline()"


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors"])
def test_a_checkpoint_that_is_cut_short(call: Call, copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    arguments = ["evaluate", copy] if name.startswith("model") else ["train", "--resume", copy, "--epochs", "4"]
    assert f"{name} is cut short or damaged" in call(*arguments).complaint


def test_a_checkpoint_of_another_model(call: Call, phrases: Path, copy: Path, tmp_path: Path) -> None:
    small = [text.replace("decoder_hidden=12", "decoder_hidden=10") for text in SMALL]
    assert call("train", "seq2seq", "--data", phrases, "--out", tmp_path / "b", "--epochs", 1, "--quiet", "--set", *small).code == 0
    for name in ("model.safetensors", "last.safetensors"):
        shutil.copy(tmp_path / "b" / name, copy / name)
    for arguments in (["translate", copy, "one"], ["train", "--resume", copy, "--epochs", 4]):
        complaint = call(*arguments).complaint
        assert "belongs to another model" in complaint
        assert ", expected (" in complaint  # a shape


@pytest.mark.parametrize("name", ["vocab.json", "model.safetensors", "config.json"])
def test_a_missing_file_of_a_run(call: Call, copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in call("translate", copy, "one and two").complaint


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99, "model": "seq2seq"}', b"\xff"])
def test_a_damaged_description_of_a_run(call: Call, copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    assert "config.json" in call("evaluate", copy).complaint


def test_a_description_with_a_wrong_value(call: Call, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["config"]["attention"] = "everywhere"
    (copy / "config.json").write_text(json.dumps(config))
    assert "expected one of none, dot, general, additive" in call("evaluate", copy).complaint


def test_more_epochs_grant_new_patience(call: Call, tiny: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert call("train", "tiny", "--out", folder, "--quiet", "--set", "lr=1e-9", "patience=2", "epochs=50", "average=0.5").code == 0
    first = _steps(folder)
    assert first < 50 * 6  # patience ended it
    again = call("train", "--resume", folder)
    assert "nothing was left to do: the validations brought no improvement any more; --epochs" in again.err
    assert _steps(folder) == first
    more = call("train", "--resume", folder, "--epochs", 60)
    assert (more.code, more.err.count("nothing was left")) == (0, 0)
    assert _steps(folder) > first


def _steps(folder: Path) -> int:
    return int(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def test_a_run_that_cannot_be_resumed_keeps_its_description(call: Call, copy: Path) -> None:
    before = (copy / "config.json").read_bytes()
    (copy / "metrics.jsonl").write_text("{")
    assert "not a line of metrics" in call("train", "--resume", copy, "--epochs", 4).complaint
    assert (copy / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9.tsv"])
def test_data_are_found_again_from_another_folder(
    call: Call, phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    """Also a name without dot or slash, and one that is not UTF-8."""
    monkeypatch.chdir(tmp_path)
    try:
        Path(os.fsdecode(name)).write_bytes(phrases.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    assert call("train", "seq2seq", "--data", os.fsdecode(name), "--out", "run", "--epochs", 1, "--quiet", "--set", *SMALL).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("evaluate", "../run").code == 0


def test_truncated_bptt_is_a_setting_of_the_run(call: Call, phrases: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (pip install 'minirnn[demo]')")
    run = tmp_path / "run"
    ended = call("train", "seq2seq", "--data", phrases, "--out", run, "--epochs", 1, "--bptt", "2,3", "--quiet", "--set", *SMALL)
    assert ended.code == 0, ended.err
    assert json.loads((run / "config.json").read_text())["training"]["bptt"] == "2,3"
    state = json.loads(serialization.load_metadata(run / "last.safetensors")["state"])
    assert state["step"] == 2 * state["batches"]  # targets of 3 words and an end: 2 chunks each
    assert "leave out --bptt" in call("train", "--resume", run, "--bptt", "4").complaint
    assert call("train", "--resume", run, "--epochs", 2, "--quiet").code == 0


def test_resume_keeps_the_settings_and_takes_more_epochs(call: Call, phrases: Path, copy: Path, tmp_path: Path) -> None:
    assert "leave out --seed, --set" in call("train", "--resume", copy, "--seed", 3, "--set", "lr=1").complaint
    assert "is a run of seq2seq, not of tiny" in call("train", "tiny", "--resume", copy).complaint
    again = call("train", "--resume", copy)
    assert again.code == 0
    assert "nothing was left to do" in again.err
    assert call("train", "--resume", copy, "--epochs", 5, "--quiet").code == 0
    straight = tmp_path / "straight"
    assert call("train", "seq2seq", "--data", phrases, "--out", straight, "--epochs", 5, "--quiet", "--set", *SMALL).code == 0
    parts, whole = (serialization.load(folder / "last.safetensors") for folder in (copy, straight))
    assert all(np.array_equal(parts[name], whole[name]) for name in whole)
    assert json.loads((copy / "config.json").read_text())["training"]["epochs"] == 5


@pytest.mark.parametrize("file", ["metrics.jsonl", "last.safetensors", "model.safetensors"])
def test_a_full_disk_stops_training_and_keeps_what_was_there(call: Call, copy: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """The disk is full when this file is written for the first time."""
    before = {path.name: path.read_bytes() for path in copy.iterdir() if path.name in FILES}
    sync, failed = os.fsync, []

    def full(descriptor: int) -> None:
        if list(copy.glob(f".{file}.*.tmp")):
            failed.append(file)
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert f"{file}: the disk is full" in call("train", "--resume", copy, "--epochs", 4, "--quiet").complaint
    assert failed
    after = {path.name: path.read_bytes() for path in copy.iterdir() if path.name in FILES}
    assert after[file] == before[file]
    assert not list(copy.glob("*.tmp"))
    monkeypatch.undo()
    assert call("train", "--resume", copy, "--epochs", 4, "--quiet").code == 0


def test_an_error_before_the_first_checkpoint_leaves_the_folder_free(call: Call, tiny: ModuleType, tmp_path: Path) -> None:
    def attempt(*settings: str) -> Any:
        return call("train", "tiny", "--out", tmp_path / "run", "--quiet", "--set", *settings)

    assert "training would never end" in attempt("epochs=0").complaint
    assert not (tmp_path / "run").exists()
    assert "training stopped at update 1" in attempt("poison=0").complaint
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}
    assert attempt("epochs=1").code == 0


def test_numbers_that_break_stop_training(call: Call, tiny: ModuleType, tmp_path: Path) -> None:
    complaint = call("train", "tiny", "--out", tmp_path / "run", "--quiet", "--set", "poison=8").complaint
    assert "training stopped at update 9" in complaint
    assert "Mul forward" in complaint
    assert call("evaluate", tmp_path / "run").code == 0  # the checkpoint before


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, phrases: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "minirnn", "train", "seq2seq", "--data", str(phrases), "--out", str(folder), "--epochs", "100000"]
    process = subprocess.Popen([*command, "--set", *SMALL], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ)
    deadline = time.monotonic() + 60
    while not (folder / "model.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert f"minirnn train --resume {folder}" in error
    assert "Traceback" not in error
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows


def test_the_commands_to_type_next_can_be_typed(call: Call, phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a virtual environment that the shell does not look into, in folders with awkward names."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / ".venv" / "bin" / "minirnn"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    arguments = ["train", "seq2seq", "--data", phrases, "--epochs", 1, "--set", *SMALL]
    for path, expected in ((os.defpath, ".venv/bin/minirnn"), (f"{program.parent}{os.pathsep}{os.defpath}", "minirnn")):
        monkeypatch.setenv("PATH", path)
        shown = call(*arguments, "--out", f"a run of {len(path)}")
        lines = [line for line in shown.out.splitlines() if line.startswith("  ")]
        assert len(lines) == 4
        for line, what in zip(lines, ("evaluate", "translate", "translate", "study"), strict=True):
            assert shlex.split(line)[:3] == [expected, what, f"a run of {len(path)}"]
            assert callable(make_parser().parse_args(shlex.split(line)[1:]).handler)


def test_demo_trains_shows_and_says_what_to_type_next(
    call: Call, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = call("demo", "tiny", "--quiet")
    assert shown.code == 0, shown.err
    for expected in ("An LSTM learns to add.", "runs/demo-tiny", "found", "Scores", "minirnn evaluate runs/demo-tiny"):
        assert expected in shown.out
    assert "runs/demo-tiny-2" in call("demo", "tiny", "--quiet").out  # the first one is left alone
    assert (tmp_path / "runs" / "demo-tiny" / "model.safetensors").exists()


def test_a_run_of_another_model_does_not_translate(call: Call, tiny: ModuleType, tmp_path: Path) -> None:
    assert call("train", "tiny", "--out", tmp_path / "run", "--quiet").code == 0
    assert "which does not translate" in call("translate", tmp_path / "run", "one").complaint
    assert "which has no --beam" in call("evaluate", tmp_path / "run", "--beam", 2).complaint


def test_the_lock_is_free_afterwards(trained: Path) -> None:
    with lock_folder(trained):
        pass


def test_without_matplotlib_training_goes_on_and_says_so(
    call: Call, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: dict[str, Any] = {"matplotlib": None, "matplotlib.figure": None}
    for name, module in hidden.items():
        monkeypatch.setitem(sys.modules, name, module)
    result = call("train", "tiny", "--out", tmp_path / "run")
    assert result.code == 0
    assert result.err.count("Matplotlib") == 1
