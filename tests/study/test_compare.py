"""`minirnn.study.compare`: kernels that are right agree to rounding; planted errors are named where they begin, and whose they are."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import study
from minirnn.cli import main
from minirnn.errors import MinirnnError
from minirnn.kernels import load
from minirnn.kernels.availability import missing
from minirnn.study import compare

module = sys.modules["minirnn.study.compare"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_kernel.py"
LENGTHS = [6, 6, 4, 1]
SIZES = {"lengths": LENGTHS, "D": 3, "H": 8}
CELLS = ("lstm", "gru", "rnn")
EACH_CELL = pytest.mark.parametrize("cell", CELLS)


def altered(cell: str, change: Callable[[Any, Any], None]) -> Any:
    """The NumPy kernel, its results altered: `change(tape, None)` after the forward pass, `change(tape, grads)` after the backward one."""
    numpy_ = load(cell, "numpy")

    def forward(*arguments: Any, **options: Any) -> Any:
        tape = numpy_.forward(*arguments, **options)
        change(tape, None)
        return tape

    def backward(tape: Any, *arguments: Any, **options: Any) -> Any:
        grads = numpy_.backward(tape, *arguments, **options)
        change(tape, grads)
        return grads

    return SimpleNamespace(__name__="altered", taps=True, forward=forward, backward=backward)


def planted(cell: str, right: str, wrong: str) -> Any:
    """The NumPy kernel with one piece of its text replaced."""
    text = inspect.getsource(load(cell, "numpy"))
    assert text.count(right) == 1
    namespace: dict[str, Any] = {"__name__": "planted"}
    exec(compile(text.replace(right, wrong), "planted", "exec"), namespace)
    return SimpleNamespace(**namespace)


# Ulps


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_an_ulp_of_float32_is_numpys_spacing(x: float) -> None:
    assert module.ulp(np.array([x]), "float32")[0] == abs(float(np.spacing(np.float32(x))))


@given(st.floats(width=16, allow_nan=False, allow_infinity=False))
def test_an_ulp_of_float16_is_numpys_spacing(x: float) -> None:
    assert module.ulp(np.array([x]), "float16")[0] == abs(float(np.spacing(np.float16(x))))


@given(st.floats(-1e308, 1e308))
def test_an_ulp_of_float64_is_numpys_spacing(x: float) -> None:
    for wide in (np.float64, np.longdouble):
        assert module.ulp(np.array([x], wide), "float64")[0] == abs(np.spacing(x))


def test_an_ulp_of_bfloat16_is_the_distance_to_the_next_number() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16
    bits = np.arange(0x7F80, dtype=np.uint16)  # every finite number from 0 on
    numbers = bits.view(bfloat16).astype(np.float64)
    np.testing.assert_array_equal(module.ulp(numbers[:-1], bfloat16), np.diff(numbers))


# Kernels that are right


@EACH_CELL
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("other", ["numba", "unrolled"])
def test_kernels_that_are_right_differ_by_rounding(cell: str, dtype: str, other: str) -> None:
    for sizes in (SIZES, (1, 1, 1, 8), (30, 3, 5, 17)):
        found = compare("numpy", other, sizes, cell=cell, dtype=dtype)
        assert found.first is None, found.verdict
        assert found.verdict == "No difference is larger than allowed."
        for quantity in found.quantities.values():
            assert 0 <= quantity.apart.row.median.max() <= quantity.apart.row.worst.max() < quantity.threshold.max()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([5, 8, 9]), st.sampled_from(CELLS), st.integers(0, 99))
def test_whatever_the_lengths(lengths: list[int], H: int, cell: str, seed: int) -> None:
    found = compare("numpy", "unrolled", {"lengths": lengths, "H": H}, cell=cell, seed=seed)
    assert found.first is None, found.verdict
    assert all(len(q.apart.row.worst) == (max(lengths) if q.timed else 1) for q in found.quantities.values())


@EACH_CELL
def test_a_kernel_does_not_differ_from_itself(cell: str) -> None:
    found = compare("numpy", "numpy", SIZES, cell=cell)
    assert (found.a, found.b) == ("numpy (a)", "numpy (b)")
    for quantity in found.quantities.values():
        assert not quantity.apart.row.worst.any()
        assert not quantity.apart.element.worst.any()
        assert quantity.off_a.row.worst.any(), "rounding must show beside the wider reference"


def test_the_reference_is_wider_than_the_dtype() -> None:
    wide = "long double" if np.finfo(np.longdouble).nmant > 52 else "float64"
    for dtype, reference in (("float32", "float64"), ("float64", wide)):
        found = compare("numpy", "unrolled", SIZES, dtype=dtype)
        assert found.reference == reference
        if reference != dtype:  # correctly rounded results would be off by half an ulp; the sums of eight products are by little more
            assert 0.25 < found["h"].off_a.element.median.mean() < 8


def test_taps_are_compared_where_both_offer_them() -> None:
    names = ["gates", "c", "h", "h_n", "c_n", "dh_t", "dc_t", "dz", "dw_hh", "dh0", "dc0"]
    assert list(compare("numpy", "numba", SIZES).quantities) == names
    assert list(compare("numpy", str(EXAMPLE), SIZES).quantities) == [name for name in names if name not in ("dh_t", "dc_t")]
    assert list(compare("numpy", "numba", SIZES, cell="gru").quantities) == [
        "hn",
        "gates",
        "h",
        "h_n",
        "dh_t",
        "dz",
        "dw_hh",
        "db_hn",
        "dh0",
    ]
    with pytest.raises(KeyError, match="there is no quantity 'dc_t'; there are h, h_n, dh_t, dz, dw_hh, dh0"):
        compare("numpy", "numba", SIZES, cell="rnn")["dc_t"]


@pytest.mark.skipif(missing("emulated") is not None, reason="needs the emulator")
@EACH_CELL
def test_a_kernel_for_the_gpu_runs_on_the_emulated_one(cell: str) -> None:
    found = compare("cupy", "numpy", SIZES, cell=cell, device="emulated")
    assert found.first is None, found.verdict
    assert "dh_t" in found.quantities


# Errors that are planted


def row_of(step: int, sequence: int) -> int:
    return sum(sum(length > t for length in LENGTHS) for t in range(step)) + sequence


@EACH_CELL
@pytest.mark.parametrize("step", [0, 3, 5])
@pytest.mark.parametrize("quantity", ["h", "dz", "dh_t"])
def test_one_number_times_1_001_is_named_with_both_values(cell: str, step: int, quantity: str) -> None:
    row, column = row_of(step, 1), 7

    numpy_ = load(cell, "numpy")

    def backward(tape: Any, *arguments: Any, taps: Any, **options: Any) -> Any:
        grads = numpy_.backward(tape, *arguments, taps=taps, **options)
        if quantity != "h":
            {"dz": grads.dz, "dh_t": taps[0]}[quantity][row, column] *= 1.001
        return grads

    def forward(*arguments: Any, **options: Any) -> Any:
        tape = numpy_.forward(*arguments, **options)
        if quantity == "h":
            tape = tape._replace(h=tape.h.copy())
            tape.h[row, column] *= 1.001
        return tape

    wrong = SimpleNamespace(taps=True, forward=forward, backward=backward, __name__="wrong")
    found = compare("numpy", wrong, SIZES, cell=cell, dtype="float64")
    at = found.first
    assert at == found[quantity].first == found[quantity].worst
    assert (at.quantity, at.step, at.sequence, at.unit, at.column) == (quantity, step, 1, column, None)
    assert at.gate == {("lstm", "dz"): "i", ("gru", "dz"): "r"}.get((cell, quantity))
    assert at.b == pytest.approx(1.001 * at.a, rel=1e-12)
    assert at.reference == pytest.approx(at.a, rel=1e-9)
    assert at.apart == pytest.approx(at.off_b, abs=8)
    assert f"First {at.place}: numpy has " in found.verdict
    assert "It is wrong that is off" in found.verdict
    others = np.delete(found[quantity].apart.row.worst, step)
    assert not others.any()
    swapped = compare(wrong, "numpy", SIZES, cell=cell, dtype="float64")
    assert "It is wrong that is off" in swapped.verdict
    assert swapped.first.place == at.place


@pytest.mark.parametrize(
    ("cell", "right", "wrong", "quantity", "step", "gates"),
    [
        # times 1.001 from one step on, forward and backward
        ("lstm", "f * c_n[:n] + i * g", "(f * c_n[:n] + i * g) * (1.001 if start == 4 + 3 else 1)", "c", 2, None),
        ("gru", "tape.hn[rows] * r * (1 - r)", "tape.hn[rows] * r * (1 - r) * (1.001 if start <= 3 + 4 else 1)", "dz", 2, "r"),
        ("rnn", "dz[rows] @ w_hh", "1.001 * dz[rows] @ w_hh", "dh_t", 4, None),
        ("lstm", "dc_t[:n] *= f", "dc_t[:n] *= 1.001 * f", "dc_t", 4, None),
        # a step shifted
        ("lstm", "c_before[rows] * f", "tape.c[rows] * f", "dz", 5, "f"),
        ("gru", "h_before[rows] - n", "tape.h[rows] - n", "dz", 5, "u"),
        ("lstm", "dh_t[:n] += dh[rows]", "dh_t[:n] += dh[rows if start else slice(n, 2 * n)]", "dh_t", 0, None),
        ("lstm", "previous(tape.h, tape.h0, batch_sizes)", "tape.h", "dw_hh", None, "ifgo"),
        # gates exchanged
        (
            "lstm",
            "np.concatenate((i, f, g, o), axis=1)  # (n, 4H)\n        h",
            "np.concatenate((f, i, g, o), axis=1)\n        h",
            "gates",
            0,
            "if",
        ),
        ("lstm", "np.concatenate((da_i, da_f, da_g, da_o)", "np.concatenate((da_i, da_f, da_o, da_g)", "dz", 5, "go"),
        ("gru", "np.concatenate((dz_r, dz_u, dz_n), axis=1)", "np.concatenate((dz_u, dz_r, dz_n), axis=1)", "dz", 5, "ru"),
        # of the last states and of the first ones alone
        ("lstm", "LSTMTape(h, c, gates, h_n, c_n,", "LSTMTape(h, c, gates, h_n * z.dtype.type(1.001), c_n,", "h_n", None, None),
        ("rnn", "RNNGrads(dz, dw_hh, dh_t)", "RNNGrads(dz, dw_hh, dh_t * dz.dtype.type(1.001))", "dh0", None, None),
    ],
)
def test_the_first_place_is_where_the_error_begins(
    cell: str, right: str, wrong: str, quantity: str, step: int | None, gates: str | None
) -> None:
    for dtype in ("float32", "float64"):
        found = compare(planted(cell, right, wrong), "numpy", SIZES, cell=cell, dtype=dtype)
        at = found.first
        assert at is not None
        assert (at.quantity, at.step) == (quantity, step), found
        assert at.gate is None if gates is None else at.gate in gates
        assert "planted" in found.verdict.splitlines()[1]


def test_numbers_that_are_none() -> None:
    def spoil(tape: Any, grads: Any) -> None:
        if grads is not None:
            grads.dz[row_of(3, 2), 13] = np.nan

    found = compare("numpy", altered("lstm", spoil), SIZES)
    assert found.first.place == "dz at time step 3, sequence 2, gate f, unit 5"
    assert found.first.apart == np.inf
    assert "altered by inf." in found.verdict
    assert str(found)
    json.dumps(found.as_dict())


def test_zeros_and_the_smallest_numbers() -> None:
    """Equal zeros are no difference; where the reference is 0 the smallest number is an ulp; so is one of numbers just above it."""
    arrays = {"z": np.zeros((3, 8), "f"), "w_hh": np.zeros((8, 2), "f"), "batch_sizes": np.array([1, 1, 1]), "dh": np.zeros((3, 2), "f")}
    for other in ("numba", "unrolled"):
        found = compare("numpy", other, arrays)
        assert all(not q.apart.element.worst.any() for name, q in found.quantities.items() if name != "gates"), other

    def touch(tape: Any, grads: Any) -> None:
        if grads is not None:
            grads.dz[1, 5] = 3 * np.float32(1e-45)

    found = compare("numpy", altered("lstm", touch), arrays)
    assert found["dz"].worst.place == "dz at time step 1, sequence 0, gate g, unit 1"
    assert found["dz"].apart.element.worst.tolist() == found["dz"].apart.row.worst.tolist() == [0, 3, 0]
    tiny = compare("numpy", "unrolled", {**arrays, "dh": np.full((3, 2), 1e-42, "f")})
    assert tiny["dz"].apart.element.worst.max() < 16


def test_the_scales_are_the_row_and_the_element() -> None:
    """A number that is a thousandth of its row's largest is off by a thousand times as many ulps of its own, to the next power of two."""

    def shift(tape: Any, grads: Any) -> None:
        if grads is not None:
            grads.dz[2] += np.spacing(np.abs(grads.dz[2]).max())

    by_row = compare("numpy", altered("rnn", shift), (4, 1, 3, 16), cell="rnn")
    assert by_row["dz"].apart.row.worst[2] == by_row["dz"].apart.row.median[2] == 1
    by_element = compare("numpy", altered("rnn", shift), (4, 1, 3, 16), cell="rnn", scale="element", threshold=2)
    np.testing.assert_array_equal(by_row["dz"].apart.element.worst, by_element["dz"].apart.element.worst)
    at = by_element["dz"].worst
    assert at.step == 2
    assert at.apart == by_element["dz"].apart.element.worst[2] > 1
    assert by_element.first.quantity == "dz"
    assert "in ulps of the number itself" in str(by_element)
    assert "in ulps of the largest number of its row" in str(by_row)
    assert compare("numpy", altered("rnn", shift), (4, 1, 3, 16), cell="rnn", scale="element").verdict == "Nothing was judged."


# What is given


def test_a_batch_of_ones_own() -> None:
    rng = np.random.default_rng(1)
    batch_sizes = np.array([3, 2, 2])
    own = study.Batch(rng.standard_normal((7, 12)), rng.standard_normal((12, 4)) / 2, batch_sizes, dh=rng.standard_normal((7, 4)))
    given = {name: value for name, value in vars(own).items() if value is not None}
    first, second = (compare("numpy", "numba", batch, cell="gru") for batch in (own, given))
    assert str(first) == str(second)
    assert first.dtype == "float64"
    assert first.sizes == "T=3 N=3 H=4 S=7"
    assert compare("numpy", "numba", own, cell="gru", dtype="float32").dtype == "float32"


def test_the_same_seed_draws_the_same_batch() -> None:
    one, same, other = (str(compare("numpy", "numba", SIZES, seed=seed)) for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("kernel", "batch", "options", "complaint"),
    [
        ("nump", SIZES, {}, "there is no lstm kernel named nump; there are numba, numpy, cupy, numba-cuda, unrolled, and a path"),
        ("none.py", SIZES, {}, "kernel none.py: there is no such file"),
        ("numba", SIZES, {"dtype": "float16"}, "the lstm kernel numba cannot run here on float16: it takes float32 or float64"),
        (3, SIZES, {}, "a kernel must have forward and backward, as minirnn.kernels.contract says; got 3"),
        ("numpy", (3, 2), {}, "batch must be sizes (T, N, D, H), a dict or a Batch, got tuple"),
        ("numpy", {"lengths": [3, 0], "H": 2}, {}, "whole numbers above 0"),
        ("numpy", {"z": np.zeros((2, 8))}, {}, "batch has no batch_sizes and no w_hh; it has z"),
        (
            "numpy",
            {"z": np.zeros((2, 8)), "w_hh": np.zeros((8, 2)), "batch_sizes": np.array([3])},
            {},
            "LSTM: z must be (S, 4H) = (3, 8), got",
        ),
        ("numpy", SIZES, {"cell": "mlp"}, "cell must be one of lstm, gru, rnn, got 'mlp'"),
        ("numpy", SIZES, {"scale": "rows"}, 'scale must be "row" or "element", got \'rows\''),
    ],
)
def test_what_cannot_be_compared_is_said(kernel: Any, batch: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises((MinirnnError, ValueError, TypeError)) as error:
        compare("numpy", kernel, batch, **options)
    assert complaint in str(error.value)


def test_a_file_is_read_anew_and_what_it_raises_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = EXAMPLE.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    assert compare("numpy", path, SIZES).first is None
    path.write_text(text.replace("dc_t[:n] *= f", "dc_t[:n] *= 1.001 * f"), encoding="utf-8")
    found = compare("numpy", path, SIZES)
    assert (found.first.quantity, found.first.step) == ("dz", 4)  # which is the first to show dc_t
    assert "It is mine that is off" in found.verdict
    path.write_text(text.replace("    return Grads(dz, dz.T", "    return Grads(dz[1:], dz.T"), encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"kernel mine: backward: dz must be \(S, GH\) = \(17, 32\), got \(16, 32\)"):
        compare("numpy", path, SIZES)
    path.write_text(text.replace("        tanh_c = np.tanh(tape.c[rows])", "        tanh_c = np.tanh(tape.cc[rows])"), encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"backward raised AttributeError: .*, line \d+"):
        compare("numpy", path, SIZES)


# What is shown


def test_the_table_has_a_line_for_each_quantity() -> None:
    found = compare("numpy", planted("lstm", "dc_t[:n] *= f", "dc_t[:n] *= 1.001 * f"), SIZES)
    head, *rows = str(found).splitlines()[2 : 3 + len(found.quantities)]
    assert head.split() == ["median", "worst", "numpy", "off", "planted", "off", "allowed", "first", "above", "worst", "at"]
    assert [row.split()[0] for row in rows] == list(found.quantities)
    (line,) = (row for row in rows if row.split()[0] == "dc_t")
    assert "step 4" in line
    assert line.endswith(found["dc_t"].worst.place.partition(" at ")[2])


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    for cell in CELLS:
        path = compare("numpy", "numba", SIZES, cell=cell).draw(tmp_path / f"{cell}.png")
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = ["--shape", "5,3,2,8"]
    assert main(["compare", "numpy", "unrolled", *shape, "--cell", "gru", "--ragged"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("gru, T=5 N=3 H=8 S=9, float32: numpy and unrolled apart, and off numpy in float64")
    assert main(["compare", "numpy", "unrolled", *shape, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["quantities"]["dz"]["apart"]["row"]["worst"]) == 5
    assert found["first"] is None
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE.read_text(encoding="utf-8").replace("dc_t[:n] *= f", "dc_t[:n] *= 1.001 * f"), encoding="utf-8")
    assert main(["compare", "numpy", str(path), *shape]) == 1
    assert "It is mine that is off" in capsys.readouterr().out
    assert main(["compare", "numpy", "nothing", *shape]) == 2
    assert capsys.readouterr().err.startswith("minirnn: there is no lstm kernel named nothing;")
