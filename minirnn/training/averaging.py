"""Averages of the weights over the course of training: steadier than the last ones, and usually better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minirnn.device import Array, array_module, to_device
from minirnn.nn import Module

EVERY = 8  # updates between two looks at the weights: a pass over all of them costs about as much as an optimiser's


class WeightAverage:
    """An exponential moving average of a model's parameters (Polyak and Juditsky, 1992).

    With decay d per update, D = d^8 and w_n the weights at the n-th look, every 8 updates,

        avg_n = sum_k D^(n-k) w_k / sum_k D^(n-k)     that is     avg += (w_n - avg) (1 - D) / (1 - D^n)

    Args:
        decay: d, above 0 and below 1; the average reaches back about 1 / (1 - d) updates.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.model = model
        self.decay = decay**EVERY  # D
        self.looks = 0  # n
        self.arrays: dict[str, Array] = {name: p.data.copy() for name, p in model.named_parameters()}

    def update(self, step: int) -> None:
        """After update number `step`, counted from 1."""
        if step % EVERY:
            return
        self.looks += 1
        share = (1 - self.decay) / (1 - self.decay**self.looks)
        for name, p in self.model.named_parameters():
            self.arrays[name] += p.dtype.type(share) * (p.data - self.arrays[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights; before the first look, its own."""
        if not self.looks:
            yield
            return
        own = {name: p.data.copy() for name, p in self.model.named_parameters()}
        try:
            self._put(self.arrays)
            yield
        finally:
            self._put(own)

    def _put(self, arrays: Mapping[str, Array]) -> None:
        for name, p in self.model.named_parameters():
            p.data[...] = arrays[name]

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"looks": np.array(self.looks), **{f"of/{name}": np.array(to_device(a, "cpu")) for name, a in self.arrays.items()}}

    def load_state_dict(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.looks = int(state["looks"])
        for name, array in self.arrays.items():
            array[...] = array_module(array).asarray(state[f"of/{name}"])
