"""A kernel of the user's own: the example is right; planted errors are found and named; what cannot be used is refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirnn.bench.cases import CELLS
from minirnn.bench.user_kernel import MODULE, check, load
from minirnn.errors import MinirnnError
from minirnn.kernels import choose, kernels, registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_kernel.py"
Plant = Callable[..., Path]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """The registry and Python's modules are as before afterwards."""
    before, modules = dict(registry._kernels), set(sys.modules)
    yield
    registry._kernels.clear()
    registry._kernels.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith(MODULE):
            del sys.modules[name]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """`plant(right, wrong)`: the example with one piece of its text replaced."""

    def write(right: str, wrong: str) -> Path:
        text = EXAMPLE.read_text(encoding="utf-8")
        assert text.count(right) == 1
        path = tmp_path / "planted.py"
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        return path

    return write


def faults(path: Path, dtype: str = "float32") -> list[str]:
    _, module = load(str(path), "lstm")
    return check(module, "lstm", dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_example_is_right(dtype: str) -> None:
    assert faults(EXAMPLE, dtype) == []
    assert choose("lstm", dtype=dtype, kernel="my_kernel").how.startswith("the user's: ")


@pytest.mark.parametrize("cell", CELLS)
def test_the_kernels_of_the_package_are_right(cell: str) -> None:
    for kernel in kernels(cell):
        if kernel.module is not None and kernel.why_not() is None:
            assert check(registry.load(cell, kernel.name), cell, "float32") == []


PLANTED = {
    "gradient x 1.001": (
        "dz.T @ tape.before[0]",
        "1.001 * (dz.T @ tape.before[0])",
        "dw_hh differs from the float64 reference by 0.001 of its largest element",
    ),
    "shifted by one step": (
        "dz.T @ tape.before[0]",
        "dz.T @ tape.h",
        "dw_hh differs from the float64 reference",
    ),
    "no path through c": ("        dc_t[:n] *= f\n", "        dc_t[:n] *= 0\n", "dc0 differs from the float64 reference"),
    "forget gate": ("f * c_n[:n] + i * g", "(1 - i) * c_n[:n] + i * g", "h differs from the float64 reference"),
    "NaN": (
        "    return Tape(",
        "    h[len(h) // 2, 0] = np.nan\n    return Tape(",
        "h is not finite, first at time step 0, sequence 0, unit 0",
    ),
    "overwritten": ("else dh_n.copy(), zero", "else dh_n, zero", "it writes to its argument dh_n, which belongs to the caller"),
    "dtype": (
        "scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], z.dtype), H)",
        "h = h.astype(float); scale = 1.0",
        "h must be float32",
    ),
    "shape": ("return Grads(dz, dz.T", "return Grads(dz[:, 1:], dz.T", "backward: dz must be (S, GH) = (1, 4), got (1, 3)"),
    "absent": (
        "return Tape(h, c, h_n, c_n, gates, before, batch_sizes)",
        "return h, c",
        "forward returns no h, which must be (S, H) = (1, 1)",
    ),
    "None": ("(0 if dc is None else dc[rows])", "dc[rows]", "where dc, dh_n, dc_n are None raised TypeError: 'NoneType' object"),
    "exception": ("    dh_t[:n] = dz[rows] @ w_hh\n", "    raise KeyError('seven')\n", "backward raised KeyError: 'seven', line "),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found_and_named(plant: Plant, name: str) -> None:
    right, wrong, said = PLANTED[name]
    found = faults(plant(right, wrong))
    assert found
    assert found[0].startswith("at batch_sizes [")
    assert any(said in fault for fault in found), found


def test_the_place_is_the_first_one_in_the_order_of_the_pass(plant: Plant) -> None:
    late = plant("        dh_t[:n] = dz[rows] @ w_hh\n", "        dh_t[:n] = dz[rows] @ w_hh * (1.01 if len(tape.h) - end > 6 else 1)\n")
    (fault, *_) = [fault for fault in faults(late) if ": dz " in fault]
    assert "at batch_sizes [3, 3, 3, 3, 3, 3], H=5" in fault
    assert "first at time step 2, sequence 0, row of w_hh 0" in fault  # steps 5, 4 and 3 do not know yet


def test_an_error_in_ragged_batches_alone_is_found(plant: Plant) -> None:
    (fault, *_) = faults(plant("h[rows] = h_n[:n] = o * np.tanh(c_n[:n])", "h[rows] = h_n[:n] = o * np.tanh(c_n[:n]); h_n[n:] = 0"))
    assert "at batch_sizes [5, 4, 4, 2, 1, 1], H=4: h_n differs" in fault
    assert "first at sequence 1, unit 0" in fault


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def forward(): ...\n", "has no function 'backward'; minirnn.kernels.contract says"),
        ("def forward(:\n", "cannot be imported: SyntaxError"),
        ("\n\nimport numpi\n", "cannot be imported: ModuleNotFoundError: No module named 'numpi', line 3"),
    ],
)
def test_a_file_that_is_no_kernel_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MinirnnError, match=complaint):
        load(str(path), "lstm")


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numpy.py"
    path.write_bytes(EXAMPLE.read_bytes())
    with pytest.raises(MinirnnError, match="there is a kernel named 'numpy' already; name the file differently"):
        load(str(path), "gru")
    with pytest.raises(MinirnnError, match="there is no such file"):
        load(str(tmp_path / "none.py"), "lstm")
