"""`minirnn.models.Seq2Seq` in PyTorch: one layer or more, general attention, and none of the options that are off by default."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from minirnn.data import TranslationBatch
from minirnn.data.vocabulary import BOS, EOS
from minirnn.models.seq2seq import Seq2SeqConfig


class Inputs(NamedTuple):
    """N sentence pairs; T and L the longest source and target, its end or beginning included; R real target tokens."""

    source: Tensor  # (T, N)
    lengths: Tensor  # (N,)
    mask: Tensor  # (N, 1, T) true at real source tokens
    given: Tensor  # (L, N)
    rows: Tensor  # (R,) places of the real target tokens in (N, L)
    wanted: Tensor  # (R,)


class Twin(nn.Module):
    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        c = self.config = config
        if c.attention != "general" or c.tie_embeddings or c.word_dropout:
            raise ValueError("seq2seq in PyTorch has attention=general, and neither tie_embeddings nor word_dropout")
        between = c.dropout if c.layers > 1 else 0.0
        D, H = c.encoder_features, c.decoder_hidden
        self.source_embedding = nn.Embedding(c.source_size, c.embedding)
        self.encoder = nn.LSTM(c.embedding, c.encoder_hidden, c.layers, bidirectional=c.bidirectional, dropout=between)
        self.bridge_h, self.bridge_c = nn.Linear(D, H), nn.Linear(D, H)
        self.target_embedding = nn.Embedding(c.target_size, c.embedding)
        self.decoder = nn.LSTM(c.embedding, H, c.layers, dropout=between)
        self.attention = nn.ModuleDict({"query": nn.Linear(H, D, bias=False)})
        self.readout = nn.Linear(H + D, H)
        self.output = nn.Linear(H, c.target_size)
        self.dropout = nn.Dropout(c.dropout)

    def prepare(self, batch: TranslationBatch) -> Inputs:
        lengths = torch.tensor([len(x) for x in batch.source])
        source = pad_sequence([torch.from_numpy(x) for x in batch.source])
        given = pad_sequence([torch.tensor([BOS, *y]) for y in batch.target])
        wanted = pad_sequence([torch.tensor([*y, EOS]) for y in batch.target], batch_first=True, padding_value=-1).flatten()
        rows = torch.nonzero(wanted >= 0)[:, 0]
        mask = (torch.arange(len(source)) < lengths[:, None])[:, None]
        return Inputs(source, lengths, mask, given, rows, wanted[rows])

    def loss(self, inputs: Inputs, step: int = 0, noise: Any = None) -> Tensor:
        memory, start = self._encoded(inputs)
        states = self.decoder(self.dropout(self.target_embedding(inputs.given)), start)[0].transpose(0, 1)  # (N, L, H)
        context = F.scaled_dot_product_attention(self.attention["query"](states), memory, memory, attn_mask=inputs.mask, scale=1.0)
        seen = torch.cat((states, context), -1).flatten(0, 1)[inputs.rows]  # (R, H + D)
        logits = self.output(self.dropout(torch.tanh(self.readout(seen))))
        return F.cross_entropy(logits, inputs.wanted, label_smoothing=self.config.label_smoothing)

    def _encoded(self, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Memory (N, T, D), and the decoder's first states (K, N, H)."""
        c, N = self.config, len(inputs.lengths)
        packed = pack_padded_sequence(self.dropout(self.source_embedding(inputs.source)), inputs.lengths, enforce_sorted=False)
        outputs, last = self.encoder(packed)
        memory = pad_packed_sequence(outputs)[0].transpose(0, 1)
        h, cell = (s.reshape(c.layers, -1, N, c.encoder_hidden).transpose(1, 2).reshape(c.layers, N, -1) for s in last)
        return memory, (torch.tanh(self.bridge_h(h)), self.bridge_c(cell))
