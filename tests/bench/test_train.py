"""Every model trains in PyTorch as it does here, to the last digits; and where it does not, nothing is timed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.bench import train, train_cases
from minirnn.bench.train_check import compare
from minirnn.bench.train_sides import CHECKED, Ours, Theirs, Trace
from minirnn.cli import main
from minirnn.errors import MinirnnError

CAPTIONER = {"channels": 4, "grid_features": 8, "embedding": 6, "hidden": 10, "batch_size": 3}
VAE = {"embedding": 5, "encoder_hidden": 6, "decoder_hidden": 7, "batch_size": 3}
SERIES = {"latent": 3, "hidden": 5, "encoder_hidden": 4, "combiner": 6, "emission_hidden": 7, "batch_size": 3}
TEXT = {"embedding": 5, "encoder_hidden": 3, "decoder_hidden": 7, "batch_size": 4}
TINY: dict[str, dict[str, Any]] = {
    "captioner": CAPTIONER,
    "captioner-group": {**CAPTIONER, "channels": 16, "label_smoothing": 0.1},
    "vae": {**VAE, "latent": 4, "free_bits": 0.01},
    "language-model": VAE,
    "ssm": SERIES,
    "srnn": SERIES,
    "lstm": SERIES,
    "seq2seq": TEXT,
    "seq2seq-cldr": {**TEXT, "layers": 2, "label_smoothing": 0.0},
    "kalman": {},
    "kalman-batch": {"states": 3, "observations": 2, "N": 3, "T": 7},
}


def tiny(name: str) -> train_cases.Case:
    """The case with small sizes; its data are drawn where they would be read from files."""
    return train_cases.build(name, drawn=train_cases.SPECS[name].data in train_cases.DRAWN, count=CHECKED, settings=TINY[name])


def traces(case: train_cases.Case, dtype: str) -> tuple[Trace, Trace]:
    pytest.importorskip("torch", reason="compares with PyTorch")
    first = {name: array.copy() for name, array in case.model.state_dict().items()}
    return Ours(case, first, dtype).trace(), Theirs(case, first, dtype).trace()


def test_every_model_is_there() -> None:
    assert TINY.keys() == train_cases.SPECS.keys()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pytorch_trains_the_same(name: str, dtype: str) -> None:
    if dtype == "float32" and name.startswith("kalman"):
        pytest.skip("is trained in float64")
    ours, theirs = traces(tiny(name), dtype)
    found = compare(name, dtype, ours, theirs)
    assert len(set(ours.losses)) == CHECKED  # something was learnt
    assert all(np.abs(g).max() > 0 for g in ours.gradients[-1].values())
    assert found.losses <= 100 * np.finfo(dtype).eps
    if dtype == "float64":  # tighter than what is demanded before timing: no rectifier of these few is at its corner
        assert found.gradients < 1e-11


@pytest.mark.parametrize("name", TINY)
def test_a_wrong_constant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One gradient of PyTorch's that is a thousandth too large, from the first update on or from the last one."""
    case = tiny(name)
    ours, theirs = traces(case, "float64")
    for when in (0, 1):
        for key, g in theirs.gradients[when].items():
            gradients = [dict(each) for each in theirs.gradients]
            gradients[when][key] = g * 1.001
            with pytest.raises(RuntimeError, match=rf"the gradients of {key} at the {('first', 'last')[when]} update differ by 0.001; not"):
                compare(name, "float64", ours, theirs._replace(gradients=gradients))
    for k in range(CHECKED):
        losses = [loss * (1 + 1e-9 * (k == number)) for number, loss in enumerate(theirs.losses)]
        with pytest.raises(RuntimeError, match=f"{name}, float64: the losses at update {k + 1} are .* in PyTorch; not timed"):
            compare(name, "float64", ours, theirs._replace(losses=losses))


def test_a_wrong_model_is_found() -> None:
    """A posterior that is by a millionth too wide, a forgotten gradient, and a NaN."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    case = tiny("ssm")
    ours, theirs = traces(case, "float64")
    other = Theirs(case, case.model.state_dict(), "float64")
    softplus = torch.nn.functional.softplus
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "softplus", lambda s: softplus(s) * (1 - 1e-6))
        wrong = other.trace()
    with pytest.raises(RuntimeError, match="ssm, float64: the losses at update 1 are"):
        compare("ssm", "float64", ours, wrong)
    fewer = [{key: g for key, g in each.items() if key != "initial"} for each in theirs.gradients]
    with pytest.raises(RuntimeError, match="only one library has gradients of initial; not timed"):
        compare("ssm", "float64", ours, theirs._replace(gradients=fewer))
    broken = [{key: np.full_like(g, np.nan) if key == "hint.bias" else g for key, g in each.items()} for each in theirs.gradients]
    with pytest.raises(RuntimeError, match=r"the gradients of hint\.bias at the first update differ by nan"):
        compare("ssm", "float64", ours, theirs._replace(gradients=broken))


def test_gradients_that_are_rounding_alone_do_not_count() -> None:
    """Of a parameter to which the loss is indifferent, one library may have 1e-17 and the other 2e-17."""
    ours, theirs = ([{"weight": np.ones(4), "indifferent": np.array([k * 1e-17])}] * 2 for k in (1, 2))
    assert compare("any", "float64", Trace([1.0], ours), Trace([1.0], theirs)).gradients < 1e-10
    ours = [{**each, "indifferent": np.array([1e-5])} for each in ours]
    with pytest.raises(RuntimeError, match="the gradients of indifferent at the first update differ"):
        compare("any", "float64", Trace([1.0], ours), Trace([1.0], theirs))


def test_training_goes_on_as_it_was_checked() -> None:
    """A step with dropout and noise of its own; every eighth one moves the average of the weights."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    case = tiny("ssm")
    first = case.model.state_dict()
    for kind in (Ours, Theirs):
        side = kind(case, first, case.dtype)
        losses = [side.step(k % CHECKED) for k in range(9)]
        assert np.isfinite(losses).all()
        assert side.updates == 9


def test_both_draw_the_same_data() -> None:
    for name in ("vae", "lstm", "seq2seq", "kalman-batch"):
        a, b = tiny(name), tiny(name)
        assert list(a.sizes) == list(b.sizes)
        assert all(np.array_equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True))


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    out = tmp_path / "train.json"
    assert train.run(arguments(model=["kalman"], rounds=2, out=str(out), profile=True)) == 0
    text = capsys.readouterr().out
    assert "KalmanLogLikelihood" in text
    found = json.loads(out.read_text())
    assert found["benchmark"] == "train"
    assert found["machine"]["threads"] == 1
    (row,) = found["models"]
    assert (row["model"], row["data"], row["data_missing"], row["dtype"], row["unit"]) == ("kalman", "nile", None, "float64", "steps")
    assert (row["parameters"], row["examples"], row["sizes"]) == (6, 1, [100] * train_cases.BATCHES)
    assert row["difference"].keys() == {"float64"}
    assert row["difference"]["float64"]["losses"] < 1e-13
    assert all(len(row["seconds"][library]) == 2 for library in ("minirnn", "torch"))
    assert row["summary"]["torch"].keys() == {"median", "lower", "upper", "least", "most"}
    ratios = [b / a for a, b in zip(row["seconds"]["minirnn"], row["seconds"]["torch"], strict=True)]
    assert row["torch_over_minirnn"]["rounds"] == ratios
    assert "aten::" in row["profile"]["torch"]


def test_data_that_are_missing_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str, data_dir: str | None = None) -> list[Path]:
        raise MinirnnError(f"{name} cannot be downloaded")

    monkeypatch.setattr(train_cases, "get", nowhere)
    assert train_cases.missing("vae", None) == "tatoeba cannot be downloaded"
    assert train_cases.missing("kalman-batch", None) is None
    case = tiny("vae")
    assert case.data == "drawn, like tatoeba"
    assert case.examples == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ["captioner", "transformer"]}, "--model transformer: no such model; there are captioner, "),
        ({"data_dir": "no/such/folder"}, "--data-dir: no/such/folder is not a folder"),
        ({"out": "no/such/folder/train.json"}, "cannot write no/such/folder/train.json"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(changes: dict[str, Any], words: str) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    with pytest.raises(MinirnnError, match=words):
        train.run(arguments(**changes))


def test_without_pytorch_there_is_nothing_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    with pytest.raises(MinirnnError, match="compares with PyTorch, which is not installed: pip install torch"):
        train.run(arguments())


def arguments(**changes: Any) -> argparse.Namespace:
    given = {"model": None, "rounds": 1, "threads": 1, "data_dir": None, "profile": False, "no_memory": False, "json": False, "out": None}
    return argparse.Namespace(**{**given, **changes})


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    assert main(["bench", "train", "--model", "transformer"]) == 2
    assert "--model transformer: no such model; there are captioner" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "train", "--rounds", "0"])
    assert "--rounds" in capsys.readouterr().err
