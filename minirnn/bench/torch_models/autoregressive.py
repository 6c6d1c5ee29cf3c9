"""`minirnn.models.AutoregressiveLSTM` in PyTorch, on binary frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from minirnn.bench.torch_models import state_space
from minirnn.device import Array
from minirnn.models.autoregressive import AutoregressiveConfig


class Twin(nn.Module):
    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        c = config
        if c.observation != "binary" or c.missing:
            raise ValueError("the LSTM over series in PyTorch takes binary frames without gaps")
        self.lstm = nn.LSTM(c.observed, c.hidden, c.layers, dropout=c.dropout if c.layers > 1 else 0.0)
        self.emission = state_space.Observation(c.hidden, c.observed, 0, c.dropout)

    def prepare(self, batch: list[Array]) -> state_space.Inputs:
        return state_space.prepare(batch, self.emission.output.weight)

    def loss(self, inputs: state_space.Inputs, step: int = 0, noise: Any = None) -> Tensor:
        h = self.lstm(inputs.before)[0].flatten(0, 1)[inputs.rows]  # (S, H)
        return self.emission.loss(h, inputs.frames) / len(inputs.rows)
