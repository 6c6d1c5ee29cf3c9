"""`--device`, from the outside: a run is trained, scored, used and resumed wherever there is a device."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minirnn import serialization
from minirnn.kernels import availability
from minirnn.kernels.availability import missing

from .conftest import Call

needs_emulator = pytest.mark.skipif(missing("emulated") is not None, reason=f"the emulated device: {missing('emulated')}")
TINY = ["embedding=6", "encoder_hidden=4", "decoder_hidden=6", "dropout=0.1", "batch_size=32", "min_count=1"]
TINY += ["optimizer=sgd", "lr=0.05", "schedule=constant", "warmup=0", "clip=1"]

ROUNDING = 40 * 64 * 2.0**-23  # of some 40 operations, one after the other, on sums of some 64 numbers in float32


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory, phrases: Path) -> Path:
    """The folder of a run that was trained on the emulated GPU."""
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (pip install 'minirnn[demo]')")
    from minirnn.cli import main

    folder = tmp_path_factory.mktemp("device") / "run"
    arguments = ["train", "seq2seq", "--data", str(phrases), "--out", str(folder), "--epochs", "1", "--quiet", "--device", "emulated"]
    assert main([*arguments, "--set", *TINY]) == 0
    return folder


@needs_emulator
def test_what_is_trained_there_is_used_anywhere(call: Call, emulated: Path) -> None:
    assert json.loads((emulated / "config.json").read_text())["device"] == "emulated"
    here, there = (json.loads(call("evaluate", emulated, "--json", *where).out) for where in ((), ("--device", "emulated")))
    assert there["loss"] == pytest.approx(here["loss"], rel=ROUNDING)
    assert {name: there[name] for name in ("bleu", "chrf", "exact")} == {name: here[name] for name in ("bleu", "chrf", "exact")}
    for options in ((), ("--beam", 2)):
        here, there = (call("translate", emulated, "two and five", *options, *where) for where in ((), ("--device", "emulated")))
        assert (there.code, there.out) == (0, here.out)


@needs_emulator
def test_a_run_is_resumed_on_another_device(call: Call, phrases: Path, emulated: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(emulated, tmp_path / "copy"))
    assert call("train", "--resume", copy, "--epochs", 2, "--device", "cpu", "--quiet").code == 0
    config = json.loads((copy / "config.json").read_text())
    assert (config["device"], config["training"]["epochs"]) == ("cpu", 2)
    straight = tmp_path / "straight"
    assert call("train", "seq2seq", "--data", phrases, "--out", straight, "--epochs", 2, "--quiet", "--set", *TINY).code == 0
    parts, whole = (serialization.load(folder / "last.safetensors") for folder in (copy, straight))
    assert parts.keys() == whole.keys()
    apart = 0.05 * (1 + 1.9 + 2.71 + 3.44) * ROUNDING  # as in tests/training/test_device.py, after four updates
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, rtol=ROUNDING, atol=apart, err_msg=name)


@needs_emulator
def test_what_else_a_run_can_be_asked_for(call: Call, tmp_path: Path) -> None:
    """The same words, numbers and pictures, wherever they are computed: what is drawn comes from the host."""
    pytest.importorskip("matplotlib", reason="needs Matplotlib (pip install 'minirnn[demo]')")
    there = ("--device", "emulated")
    words = ["red", "green", "blue"]
    (tmp_path / "texts.txt").write_text("\n".join(f"{a} {b} {c}" for a in words for b in words for c in words))
    sizes = ["embedding=4", "encoder_hidden=4", "decoder_hidden=5", "latent=2", "batch_size=16", "min_count=1", "annealing_steps=1"]
    vae = tmp_path / "vae"
    made = call("train", "vae", "--data", tmp_path / "texts.txt", "--out", vae, "--epochs", 1, "--quiet", *there, "--set", *sizes)
    assert made.code == 0, made.err
    ssm = tmp_path / "ssm"
    t = np.arange(40)
    (tmp_path / "wave.csv").write_text("a\n" + "\n".join(map(str, np.sin(t / 3) + 0.1 * np.cos(5 * t))))
    sizes = ["latent=2", "hidden=4", "encoder_hidden=4", "combiner=4", "emission_hidden=4", "crop=15"]
    made = call("train", "ssm", "--data", tmp_path / "wave.csv", "--out", ssm, "--epochs", 1, "--quiet", *there, "--set", *sizes)
    assert made.code == 0, made.err
    for arguments in (
        ["sample", vae, "-n", 4],
        ["reconstruct", vae, "red green blue"],
        ["interpolate", vae, "red green blue", "blue blue", "--steps", 3],
        ["sample", ssm, "-n", 2, "--length", 4],
    ):
        here, found = call(*arguments), call(*arguments, *there)
        assert (found.code, found.out) == (0, here.out), found.err
    here, found = (json.loads(call("forecast", ssm, "--steps", 3, "--json", *where).out)["columns"] for where in ((), there))
    for name, expected in here.items():
        np.testing.assert_allclose(found[name], expected, rtol=ROUNDING, atol=ROUNDING, err_msg=name)


@needs_emulator
def test_a_demo_on_a_device(call: Call, tiny: object, tmp_path: Path) -> None:
    shown = call("demo", "tiny", "--quiet", "--out", tmp_path / "run", "--device", "emulated")
    assert shown.code == 0, shown.err
    assert "Scores" in shown.out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["device"] == "emulated"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The emulator's stand-in under CuPy's own name, with two GPUs: what is written for "cuda" runs."""
    stand_in = importlib.import_module("minirnn.kernels.emulator.stand_in")
    monkeypatch.setattr(importlib.import_module("minirnn.device"), "STAND_IN", "")
    monkeypatch.setattr(availability, "_cuda", lambda index: None if index < 2 else "there are 2 GPUs, numbered from 0")
    with stand_in.installed(), stand_in.device_properties(count=2):
        yield


@needs_emulator
@pytest.mark.usefixtures("two_gpus")
def test_the_second_of_two_gpus(call: Call, phrases: Path, emulated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["train", "seq2seq", "--data", phrases, "--out", folder, "--epochs", 1, "--quiet", "--set", *TINY]
    made = call(*arguments, "--device", "cuda:1")
    assert made.code == 0, made.err
    assert json.loads((folder / "config.json").read_text())["device"] == "cuda:1"
    found, expected = (serialization.load(run / "model.safetensors") for run in (folder, emulated))
    for name, array in expected.items():  # the same kernels
        np.testing.assert_allclose(found[name], array, rtol=ROUNDING, atol=0.05 * 2.9 * ROUNDING, err_msg=name)
    assert call("train", "--resume", folder, "--epochs", 2, "--quiet", "--device", "cuda").code == 0
    translated = [call("translate", folder, "two and five", "--beam", 2, *where).out for where in ((), ("--device", "cuda:1"))]
    assert translated[0] == translated[1]
    assert "there are 2 GPUs, numbered from 0" in call("evaluate", folder, "--device", "cuda:2").complaint


def test_a_device_that_there_is_not(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["train", "seq2seq"], ["evaluate", "run"], ["translate", "run", "one"], ["sample", "run"], ["demo"]):
        complaint = call(*command, "--device", "tpu").complaint
        assert 'argument --device: expected "cpu", "cuda", "cuda:<index>" or "emulated", got \'tpu\'' in complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["train", "tiny"], ["demo", "tiny"], ["evaluate"], ["translate"], ["sample"], ["reconstruct"]])
def test_a_device_that_cannot_be_used_here(
    call: Call, tiny: object, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Why, and what to do, in one line; and nothing was begun."""
    monkeypatch.chdir(tmp_path)
    reason = 'CuPy is not installed; pip install "minirnn[cuda12]" installs it, and device "emulated" runs the same kernels on a CPU'
    monkeypatch.setattr(availability, "_cuda", lambda index: reason)
    arguments = command if len(command) > 1 else [*command, str(trained), *(["one"] if command[0] in ("translate", "reconstruct") else [])]
    complaint = call(*arguments, "--device", "cuda:0").complaint
    assert f'device "cuda:0" cannot be used here: {reason}; minirnn doctor shows what can run here' in complaint
    assert not list(tmp_path.iterdir())


def test_a_run_from_a_machine_with_a_gpu(call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "device": "cuda", "kernel": "cupy"}))
    monkeypatch.setattr(availability, "_cuda", lambda index: "CuPy finds no GPU")
    complaint = call("train", "--resume", copy, "--epochs", 4).complaint
    assert f'{copy} was trained on device "cuda", which cannot be used here: CuPy finds no GPU; or add --device cpu' in complaint
    assert call("evaluate", copy).code == 0
    assert call("train", "--resume", copy, "--epochs", 4, "--device", "cpu", "--quiet").code == 0
    assert json.loads((copy / "config.json").read_text())["kernel"] is None  # it was that device's


def test_settings_stay_where_the_device_stays(call: Call, trained: Path) -> None:
    complaint = call("train", "--resume", trained, "--device", "cpu", "--kernel", "numpy").complaint
    assert "leave out --kernel; --minutes, --epochs and --device may change" in complaint
