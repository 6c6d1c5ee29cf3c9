"""Kernels for a GPU in the shape of kernels for a CPU: NumPy arrays go to the device, and what comes back is NumPy's again.

So the tests of `checks.py` run on them as they are. The device is the emulated one, or the GPU that `tests/devices.py` names.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from minirnn.kernels import load
from minirnn.kernels.cuda.plan import form
from minirnn.kernels.emulator import stand_in
from tests import devices


class Emulated:
    """One cell's kernel `name` ("cupy" or "numba-cuda") in one form, under the schedule of a seed, on a device with these properties.

    What may not be written to on the host may not on the device. Nothing may wait for the device while a kernel is at work.
    """

    def __init__(self, cell: str, name: str, form: str, seed: int = 2, **properties: Any):
        self.module, self.form, self.seed, self.properties = load(cell, name, devices.DEVICE), form, seed, properties

    def __repr__(self) -> str:
        return f"{self.module.__name__} ({self.form})"

    def forward(self, *arguments: Any, **options: Any) -> Any:
        *arrays, batch_sizes = arguments
        return self._run(self.module.forward, *map(_put, arrays), batch_sizes, **options)

    def backward(self, tape: Any, *arguments: Any, taps: tuple[Any, ...] | None = None) -> Any:
        moved = tape._replace(**{name: _put(value) for name, value in tape._asdict().items() if name != "batch_sizes"})
        if taps is None:
            return self._run(self.module.backward, moved, *map(_put, arguments))
        on_device = tuple(map(_put, taps))
        grads = self._run(self.module.backward, moved, *map(_put, arguments), taps=on_device)
        for tap, filled in zip(taps, on_device, strict=True):
            tap[...] = filled.get()
        return grads

    def _run(self, function: Any, *arguments: Any, **options: Any) -> Any:
        with ExitStack() as stack:
            if self.properties and devices.EMULATED:
                stack.enter_context(stand_in.device_properties(**self.properties))
            stack.enter_context(form(self.form))
            stack.enter_context(devices.schedule(self.seed))
            counts = stack.enter_context(devices.counting())
            result = function(*arguments, **options)
        assert not counts.synchronisations, counts.places
        there = {name: value for name, value in result._asdict().items() if isinstance(value, devices.module().ndarray)}
        return result._replace(**{name: value.get() for name, value in there.items()})


def _put(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    moved = devices.module().array(array, order="K")
    if devices.EMULATED:
        moved._array.flags.writeable = array.flags.writeable
    return moved
