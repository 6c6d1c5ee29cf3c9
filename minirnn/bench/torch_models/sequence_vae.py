"""`minirnn.models.SequenceVAE` in PyTorch, with z fed at input and output and embeddings tied, or without z (latent=0)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from minirnn.data.vocabulary import BOS, EOS
from minirnn.device import Array
from minirnn.models.sequence_vae import SequenceVAEConfig


class Inputs(NamedTuple):
    """N sentences, L the longest with its end, S words and ends."""

    read: Tensor  # (L, N) with the end, for the encoder
    last: Tensor  # (N,) step of each sentence's end
    given: Tensor  # (L, N) with the beginning, for the decoder
    rows: Tensor  # (S,) places of the real words in (L, N)
    wanted: Tensor  # (S,)


class Twin(nn.Module):
    def __init__(self, config: SequenceVAEConfig) -> None:
        super().__init__()
        c = self.config = config
        plain = c.feed == "both" and c.tie_embeddings and not c.bidirectional and c.free_bits_in == "dimension"
        if not plain or c.word_dropout or c.aggressive or c.layers > 1:
            raise ValueError("the sequence VAE in PyTorch has the default options alone, beside sizes, beta, annealing and free_bits")
        V, E, H, Z = c.vocabulary_size, c.embedding, c.decoder_hidden, c.latent
        self.embedding = nn.Embedding(V, E)
        self.decoder = nn.LSTM(E + Z, H)
        self.readout = nn.Linear(H + Z, E)
        self.output = nn.Linear(E, V)
        self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(c.dropout)
        if Z:
            self.encoder_embedding = nn.Embedding(V, E)
            self.encoder = nn.LSTM(E, c.encoder_hidden)
            self.posterior = nn.Linear(c.encoder_hidden, 2 * Z)
            self.first = nn.Linear(Z, 2 * H)

    def prepare(self, batch: list[Array]) -> Inputs:
        read = pad_sequence([torch.tensor([*x, EOS]) for x in batch])
        wanted = pad_sequence([torch.tensor([*x, EOS]) for x in batch], padding_value=-1).flatten()
        given = pad_sequence([torch.tensor([BOS, *x]) for x in batch])
        rows = torch.nonzero(wanted >= 0)[:, 0]
        return Inputs(read, torch.tensor([len(x) for x in batch]), given, rows, wanted[rows])

    def loss(self, inputs: Inputs, step: int = 0, noise: Array | None = None) -> Tensor:
        c, (L, N) = self.config, inputs.given.shape
        x = self.dropout(self.embedding(inputs.given))  # (L, N, E)
        if not c.latent:
            return self._reconstruction(self.decoder(x)[0].flatten(0, 1)[inputs.rows], inputs) / N
        e = self.encoder(self.encoder_embedding(inputs.read))[0]  # (L, N, .)  what comes after a sentence's end is not looked at
        mean, log_std = self.posterior(e[inputs.last, torch.arange(N)]).chunk(2, 1)  # (N, Z) each
        z = mean + log_std.exp() * (torch.randn_like(mean) if noise is None else torch.from_numpy(noise))
        h, cell = self.first(z).chunk(2, 1)  # (N, H) each
        beside = z.expand(L, N, -1)
        states, _ = self.decoder(torch.cat((x, beside), -1), (h.tanh()[None], cell[None].contiguous()))
        seen = torch.cat((states, beside), -1).flatten(0, 1)[inputs.rows]  # (S, H + Z)
        kl = ((mean * mean + (2 * log_std).exp() - 1) / 2 - log_std).mean(0)  # (Z,)
        loss: Tensor = self._reconstruction(seen, inputs) / N + c.beta_at(step) * kl.clamp(min=c.free_bits).sum()
        return loss

    def _reconstruction(self, seen: Tensor, inputs: Inputs) -> Tensor:
        """-sum_n ln p(x_n | z_n), from what the readout sees (S, .)."""
        logits = self.output(self.dropout(torch.tanh(self.readout(seen))))
        return F.cross_entropy(logits, inputs.wanted, reduction="sum")
