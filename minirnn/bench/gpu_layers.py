"""One recurrent layer on a GPU, in arrays alone: input product, recurrence, and in the backward pass every gradient that a framework gives.

`Ours` runs a kernel of minirnn, `CuDNN` what PyTorch runs. Both compute

    z = x w_ih^T + b      h = recurrence(z, w_hh)      and back:  dx, dw_ih, db, dw_hh, dh0 (dc0)      for the loss sum of h dh

for the same weights, so that one can be compared with the other and both with NumPy in float64.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minirnn.bench.gpu_cases import Case
from minirnn.kernels import load
from minirnn.kernels.cuda.packed import column_sum
from minirnn.kernels.cuda.plan import form

Array = Any
Arrays = dict[str, Array]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": ("h0", "c0"), "gru": ("h0",), "rnn": ("h0",)}
NONE_AFTER_DH = {"lstm": 3, "gru": 1, "rnn": 1}  # dc, dh_n, dc_n; dh_n


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Of a name; "bfloat16" is the one of the package ml_dtypes."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def draw(cell: str, batch_sizes: Sequence[int], D: int, H: int, dtype: str, seed: int = 0) -> Arrays:
    """Weights, input and the gradient of the output, rounded to a dtype: whoever computes with them starts from the same numbers."""
    rng, wide, S, N = np.random.default_rng(seed), GATES[cell] * H, sum(batch_sizes), batch_sizes[0]
    shapes = {"x": (S, D), "w_ih": (wide, D), "w_hh": (wide, H), "b": (wide,), "dh": (S, H)}
    shapes |= {"b_hn": (H,)} if cell == "gru" else {}
    shapes |= dict.fromkeys(STATES[cell], (N, H))
    scale = {"w_ih": D**-0.5, "w_hh": H**-0.5}
    wanted, drawn = numpy_dtype(dtype), np.float64 if dtype == "float64" else np.float32
    return {
        name: (drawn(scale.get(name, 1.0)) * rng.standard_normal(shape, drawn)).astype(wanted, copy=False) for name, shape in shapes.items()
    }


class Ours:
    """A layer on a kernel of minirnn. `arrays` as `draw` makes them; `xp` is CuPy, the stand-in, or NumPy for the reference."""

    def __init__(self, cell: str, kernel: str, form_: str | None, arrays: Arrays, batch_sizes: Sequence[int], xp: Any, device: str) -> None:
        self.cell, self.xp, self.form, self.batch_sizes = cell, xp, form_, np.array(batch_sizes)
        self.kernel = load(cell, kernel, device)
        self.arrays = {name: xp.asarray(array) for name, array in arrays.items()}
        self.wide = GATES[cell] * self.arrays["w_hh"].shape[1]

    def forward(self) -> Any:
        """The tape."""
        a = self.arrays
        z = self.xp.matmul(a["x"], a["w_ih"].T)  # (S, G H)
        z += a["b"]
        bias = (a["b_hn"],) if self.cell == "gru" else ()
        with self._forced():
            return self.kernel.forward(z, a["w_hh"], *bias, *(a[name] for name in STATES[self.cell]), self.batch_sizes)

    def both(self) -> Arrays:
        """Forward and backward; the output and all gradients, by name."""
        a, tape = self.arrays, self.forward()
        with self._forced():
            found = self.kernel.backward(tape, a["w_hh"], a["dh"], *[None] * NONE_AFTER_DH[self.cell])
        dz = found.dz  # (S, G H)
        db = dz.sum(axis=0) if self.xp is np else column_sum(self.xp, dz, self.wide)  # (G H,)
        gradients = {"dx": self.xp.matmul(dz, a["w_ih"]), "dw_ih": self.xp.matmul(dz.T, a["x"]), "db": db}
        return {"h": tape.h, **gradients, **{name: value for name, value in found._asdict().items() if name != "dz"}}

    def _forced(self) -> AbstractContextManager[None]:
        return form(self.form)


def reference(cell: str, arrays: Arrays, batch_sizes: Sequence[int]) -> Arrays:
    """The same by the NumPy kernel in float64."""
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    return Ours(cell, "numpy", None, exact, batch_sizes, np, "cpu").both()


class CuDNN:
    """PyTorch's layer, which runs on cuDNN where it can; for dense batches. `where` is PyTorch's name of a device.

    float32 is float32: PyTorch would let cuDNN multiply in TF32, of 11 bits, which would be no comparison.
    """

    def __init__(self, cell: str, arrays: Arrays, case: Case, dtype: str, where: str = "cuda") -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.backends.cudnn.allow_tf32 = False
        self.cell, self.case, self.where = cell, case, where
        kind = {"lstm": self.torch.nn.LSTM, "gru": self.torch.nn.GRU, "rnn": self.torch.nn.RNN}[cell]
        self.layer = kind(case.D, case.H).to(where, getattr(self.torch, dtype))
        self.x = self._array(arrays["x"]).reshape(case.T, case.N, case.D).requires_grad_()
        self.dh = self._array(arrays["dh"]).reshape(case.T, case.N, case.H)
        states = [self._array(arrays[name])[None].requires_grad_() for name in STATES[cell]]
        self.states = tuple(states) if cell == "lstm" else states[0]
        self.leaves = [self.x, self.layer.weight_ih_l0, self.layer.weight_hh_l0, self.layer.bias_ih_l0, self.layer.bias_hh_l0, *states]
        self._load(arrays)

    @staticmethod
    def why_not() -> str | None:
        """Why PyTorch cannot be compared with; None if it can."""
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed"
        torch: Any = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return f"PyTorch {torch.__version__} finds no GPU"
        return None if torch.backends.cudnn.is_available() else f"PyTorch {torch.__version__} has no cuDNN"

    def forward(self) -> Any:
        with self.torch.no_grad():
            return self.layer(self.x, self.states)[0]

    def both(self) -> Arrays:
        output = self.layer(self.x, self.states)[0]
        gradients = self.torch.autograd.grad(output, self.leaves, self.dh)
        names = ["dx", "dw_ih", "dw_hh", "db", "db_hh", *(f"d{name}" for name in STATES[self.cell])]
        found = dict(zip(names, gradients, strict=True))
        second = found.pop("db_hh")
        if self.cell == "gru":
            found["db_hn"] = second[2 * self.case.H :]
        shapes = {"h": (-1, self.case.H), "dx": (-1, self.case.D), "dh0": (self.case.N, -1), "dc0": (self.case.N, -1)}
        return {name: a.reshape(shapes[name]) if name in shapes else a for name, a in {"h": output, **found}.items()}

    def _array(self, array: np.ndarray[Any, Any]) -> Any:
        """Through float32, which holds all of 16 bits: PyTorch knows nothing of ml_dtypes."""
        carried = array.astype(np.float32) if array.dtype.itemsize == 2 else array
        return self.torch.as_tensor(carried).to(self.where, self.layer.weight_ih_l0.dtype)

    def _load(self, arrays: Arrays) -> None:
        second = np.zeros_like(arrays["b"])
        if self.cell == "gru":
            second[2 * self.case.H :] = arrays["b_hn"]
        weights = {"weight_ih_l0": arrays["w_ih"], "weight_hh_l0": arrays["w_hh"], "bias_ih_l0": arrays["b"], "bias_hh_l0": second}
        with self.torch.no_grad():
            for name, array in weights.items():
                getattr(self.layer, name).copy_(self._array(array))


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Of whichever kind, in float64."""
    if isinstance(array, np.ndarray):
        return array.astype(np.float64)
    if hasattr(array, "detach"):
        return np.asarray(array.detach().double().cpu().numpy())
    return np.asarray(array.get()).astype(np.float64)
