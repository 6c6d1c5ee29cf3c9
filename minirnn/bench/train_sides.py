"""The two sides of `minirnn bench train`: a training step of one case in either library, and the trace of its first updates."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from minirnn.bench.train_cases import Case
from minirnn.device import Array
from minirnn.optim import Adam
from minirnn.training.averaging import EVERY, WeightAverage

CHECKED = 3  # updates that are compared


class Trace(NamedTuple):
    """What came out of the first updates, without dropout and with given noise."""

    losses: list[float]  # before each of them
    gradients: list[dict[str, Array]]  # at the first and at the last


class Side(ABC):
    """A library at work on a case: weights as at first, an optimiser without state."""

    case: Case
    updates: int = 0

    def step(self, k: int) -> float:
        """What the trainer does for batch k; the loss before the update."""
        loss = self.backward(k, checked=False)
        self.update()
        return loss

    def trace(self) -> Trace:
        losses, gradients = [], []
        for k in range(CHECKED):
            losses.append(self.backward(k, checked=True))
            if k in (0, CHECKED - 1):
                gradients.append(self.gradients())
            self.update()
        return Trace(losses, gradients)

    @abstractmethod
    def backward(self, k: int, *, checked: bool) -> float:
        """The loss of batch k and its gradients, in place of those before. `checked`: without dropout, with the noise of `Case.noise`."""

    @abstractmethod
    def update(self) -> None:
        """Clips the gradients, updates the weights, and their average."""

    @abstractmethod
    def gradients(self) -> dict[str, Array]:
        """Copies by parameter."""


class Ours(Side):
    """minirnn, in "float32" or "float64"."""

    def __init__(self, case: Case, state: Mapping[str, Array], dtype: str) -> None:
        self.case = case
        self.model = case.model.to(np.dtype(dtype))
        self.model.load_state_dict(state)
        self.optimizer = Adam(self.model.named_parameters(), lr=case.options.lr)
        self.average = WeightAverage(self.model, case.options.average) if case.options.average else None

    def backward(self, k: int, *, checked: bool) -> float:
        self.model.train(not checked)
        self.optimizer.zero_grad()
        loss = self.case.loss(k, self.updates, drawn=checked)
        value = loss.item()
        loss.backward()
        return float(value)

    def update(self) -> None:
        self.optimizer.step(max_norm=self.case.options.clip or np.inf)
        self.updates += 1
        if self.average is not None:
            self.average.update(self.updates)

    def gradients(self) -> dict[str, Array]:
        return {name: p.grad.numpy().copy() for name, p in self.model.named_parameters() if p.grad is not None}


class Theirs(Side):
    """PyTorch, in "float32" or "float64". Batches are made tensors beforehand, as a data loader's workers would."""

    def __init__(self, case: Case, state: Mapping[str, Array], dtype: str) -> None:
        import torch

        torch.manual_seed(0)
        self.case, self.dtype = case, dtype
        self.twin = importlib.import_module(f"minirnn.bench.torch_models.{case.twin}").Twin(case.model.config).to(getattr(torch, dtype))
        self.twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        learnt = {name for name, p in case.model.named_parameters() if p.requires_grad}
        for name, p in self.twin.named_parameters():
            p.requires_grad_(name in learnt)
        self.parameters = [p for p in self.twin.parameters() if p.requires_grad]
        self.inputs = [self.twin.prepare(batch) for batch in case.batches]
        self.optimizer = torch.optim.Adam(self.parameters, lr=case.options.lr, fused=True)
        self.clip = torch.nn.utils.clip_grad_norm_
        self.average: Any = None
        if case.options.average:
            swa: Any = torch.optim.swa_utils
            self.average = swa.AveragedModel(self.twin, multi_avg_fn=swa.get_ema_multi_avg_fn(case.options.average**EVERY))

    def backward(self, k: int, *, checked: bool) -> float:
        self.twin.train(not checked)
        self.optimizer.zero_grad()
        loss = self.twin.loss(self.inputs[k], self.updates, self.case.noise(k, self.dtype) if checked else None)
        value = loss.item()
        loss.backward()
        return float(value)

    def update(self) -> None:
        if self.case.options.clip:
            self.clip(self.parameters, self.case.options.clip)
        self.optimizer.step()
        self.updates += 1
        if self.average is not None and self.updates % EVERY == 0:
            self.average.update_parameters(self.twin)

    def gradients(self) -> dict[str, Array]:
        return {name: p.grad.numpy().copy() for name, p in self.twin.named_parameters() if p.grad is not None}
