"""minirnn: recurrent networks from scratch, in NumPy and CuPy, to be read, run and measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minirnn.tensor import Tensor, tensor  # first: it brings in the tape and the operations, which need it

# isort: split
from minirnn._version import __version__
from minirnn.autograd import enable_grad, grad, no_grad
from minirnn.checkpointing import checkpoint
from minirnn.device import device
from minirnn.diagnostics import detect_anomaly, profile
from minirnn.errors import MinirnnError
from minirnn.kernels import kernel
from minirnn.random import manual_seed
from minirnn.serialization import load, save

if TYPE_CHECKING:
    from minirnn import data, decoding, kernels, models, nn, ops, optim, study

__all__ = [
    "MinirnnError",
    "Tensor",
    "__version__",
    "checkpoint",
    "data",
    "decoding",
    "detect_anomaly",
    "device",
    "enable_grad",
    "grad",
    "kernel",
    "kernels",
    "load",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "profile",
    "save",
    "study",
    "tensor",
]


def __getattr__(name: str) -> Any:
    """Sub-packages load when they are first asked for."""
    if name in __all__:
        return importlib.import_module(f"minirnn.{name}")
    raise AttributeError(f"module 'minirnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
