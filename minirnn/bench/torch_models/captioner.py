"""`minirnn.models.Captioner` in PyTorch, with general attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from minirnn.data.vocabulary import BOS, EOS
from minirnn.models.captioner import GRID, GROUP, CaptionBatch, CaptionerConfig


class Inputs(NamedTuple):
    """N pictures; L the longest caption with its end; R words of all captions with their ends; V words known."""

    images: Tensor  # (N, 3, S, S) uint8
    given: Tensor  # (L, N)
    rows: Tensor  # (R,) places of the real words in (N, L)
    wanted: Tensor  # (R,)
    words: Tensor  # (N, V) a caption's set of words, each with the same share


class Encoder(nn.Module):
    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        C, D, side = config.channels, config.grid_features, (config.picture_size + 1) // 2
        shapes = [(3, C, 5, 2)]  # channels in and out, window, stride
        while side > GRID:
            shapes.append((shapes[-1][1], shapes[-1][1] + C, 3, 2))
            side = (side + 1) // 2
        F_ = shapes[-1][1]
        shapes.append((F_, F_ + C, 3, 1))
        layers: list[nn.Module] = []
        for channels, features, size, stride in shapes:
            layers.append(nn.Conv2d(channels, features, size, stride=stride, padding=size // 2))
            if config.normalisation == "group":
                layers.append(nn.GroupNorm(features // GROUP if features % GROUP == 0 else 1, features))
            layers.append(nn.ReLU(inplace=True))
        self.features = shapes[-1][1]
        self.stack = nn.Sequential(*layers)
        for conv in (layer for layer in layers if isinstance(layer, nn.Conv2d)):  # faster than with channels first
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        self.feature = nn.Linear(self.features, D)
        self.place = nn.Parameter(torch.empty(side * side, D))
        self.norm = nn.LayerNorm(D)
        window, stride = max(1, side // 2), max(1, side // 4)
        self.parts = nn.MaxPool2d(window, stride)
        self.vector = nn.Linear((1 + ((side - window) // stride + 1) ** 2) * self.features, config.hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The grid (N, G, D), v (N, H), and m (N, features)."""
        maps = self.stack(x)  # (N, features, P, P)
        top = maps.amax((2, 3))
        v = F.relu(self.vector(torch.cat((top, self.parts(maps).flatten(1)), 1)))
        return self.norm(self.feature(maps.flatten(2).transpose(1, 2)) + self.place), v, top


class Twin(nn.Module):
    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        c = self.config = config
        if c.attention != "general":
            raise ValueError("the captioner in PyTorch has attention=general")
        H, D = c.hidden, c.grid_features
        self.encoder = Encoder(c)
        self.first_h, self.first_c = nn.Linear(H, H), nn.Linear(H, H)
        self.embedding = nn.Embedding(c.vocabulary_size, c.embedding)
        self.decoder = nn.LSTM(c.embedding, H)
        self.attention = nn.ModuleDict({"query": nn.Linear(H, D, bias=False)})
        self.readout = nn.Linear(H + self.encoder.features + D, H)
        self.output = nn.Linear(H, c.vocabulary_size)
        self.words = nn.Linear(self.encoder.features, c.vocabulary_size)
        self.dropout = nn.Dropout(c.dropout)

    def prepare(self, batch: CaptionBatch) -> Inputs:
        given = pad_sequence([torch.tensor([BOS, *y]) for y in batch.captions])
        wanted = pad_sequence([torch.tensor([*y, EOS]) for y in batch.captions], batch_first=True, padding_value=-1).flatten()
        rows = torch.nonzero(wanted >= 0)[:, 0]
        words = torch.zeros(len(batch.captions), self.config.vocabulary_size, dtype=self.output.weight.dtype)
        for row, caption in zip(words, batch.captions, strict=True):
            row[torch.from_numpy(caption)] = 1
        images = torch.from_numpy(batch.images).contiguous(memory_format=torch.channels_last)
        return Inputs(images, given, rows, wanted[rows], words / words.sum(1, keepdim=True).clamp(min=1))

    def loss(self, inputs: Inputs, step: int = 0, noise: Any = None) -> Tensor:
        c, L = self.config, len(inputs.given)
        grid, v, top = self.encoder(inputs.images.to(self.output.weight.dtype) / 127.5 - 1)
        v = self.dropout(v)
        start = torch.tanh(self.first_h(v))[None], self.first_c(v)[None]
        states = self.decoder(self.dropout(self.embedding(inputs.given)), start)[0].transpose(0, 1)  # (N, L, H)
        context = F.scaled_dot_product_attention(self.attention["query"](states), grid, grid, scale=1.0)  # (N, L, D)
        seen = torch.cat((states, top[:, None].expand(-1, L, -1), context), -1).flatten(0, 1)[inputs.rows]  # (R, H + features + D)
        logits = self.output(self.dropout(F.relu(self.readout(seen))))
        loss = F.cross_entropy(logits, inputs.wanted, label_smoothing=c.label_smoothing)
        return loss + c.word_weight * F.cross_entropy(self.words(top), inputs.words)
