"""Sequence to sequence: an LSTM reads x_1..x_T, another writes y_1..y_L.

    v = enc(x_1, ..., x_T)                                                    the encoder's last states
    p(y_1..y_L | x) = prod_l p(y_l | y_<l, v)                                 Sutskever et al. 2014
    h_l = LSTM(y_{l-1}, h_{l-1}),  h_0 = bridge(v)
    a_l = attention(h_l; e_1..e_T),  c_l = sum_t a_lt e_t                     Luong et al. 2015, e_t the encoder's outputs
    p(y_l | y_<l, x) = softmax(W tanh(U [h_l; c_l]))

In training the decoder is given the reference y_<l (teacher forcing). Because the attention comes after the LSTM, the LSTM then runs over
the whole target in one fused call, and attention and output layer are one batched product each. At test it is given its own predictions.

N sentences, T and L the longest source and target, S and R the real source and target tokens, E embedding, H decoder, D encoder features.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from minirnn import decoding, ops
from minirnn.autograd import no_grad
from minirnn.data.batches import TranslationBatch
from minirnn.data.vocabulary import BOS, EOS, UNK
from minirnn.device import Array, array_module, beside
from minirnn.models.chunks import Chunk, Reader
from minirnn.models.decoder_state import chosen, layers_first, rows_first
from minirnn.models.terms import Terms
from minirnn.nn import LSTM, Attention, Dropout, Embedding, Linear, Module, Packed, Packing, init, pack_sequence
from minirnn.nn.utils import evaluating
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Hyper-parameters of `Seq2Seq`.

    Args:
        source_size, target_size: pieces in the two vocabularies.
        embedding: E, of both languages.
        encoder_hidden: units of the encoder, per direction.
        decoder_hidden: H, units of the decoder.
        layers: of encoder and decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: "none", or how a decoder state is compared with the encoder's outputs.
        dropout: of embeddings, between layers, and before the output layer.
        word_dropout: the probability that an input word, of the source or of the target given to the decoder, is replaced by <unk>.
        label_smoothing: share of the target probability that is spread over the vocabulary.
        tie_embeddings: use the target embedding as the output layer's weight.
    """

    source_size: int = 0
    target_size: int = 0
    embedding: int = 256
    encoder_hidden: int = 128
    decoder_hidden: int = 256
    layers: int = 1
    bidirectional: bool = True
    attention: Literal["none", "dot", "general", "additive"] = "general"
    dropout: float = 0.3
    word_dropout: float = 0.0
    label_smoothing: float = 0.0
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding", "encoder_hidden", "decoder_hidden", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "word_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.attention == "dot" and self.encoder_features != self.decoder_hidden:
            raise ValueError(
                f"attention=dot compares states as they are, but the encoder has {self.encoder_features} features and the decoder "
                f"{self.decoder_hidden}; make them equal, or use attention=general"
            )

    @property
    def encoder_features(self) -> int:
        """D"""
        return self.encoder_hidden * (2 if self.bidirectional else 1)


class DecoderState(NamedTuple):
    """What the decoder carries from step to step, for B rows."""

    h: Array  # (B, K, H)
    c: Array  # (B, K, H)
    memory: Array  # (B, T, D)  the encoder's outputs
    mask: Array  # (B, T)  true at real source tokens
    projected: Array | None  # (B, T, A)  what additive attention makes of the memory, once for all steps
    attention: Array | None  # (B, T)  where the last step looked


class Seq2Seq(Module):
    """An LSTM encoder and an LSTM decoder with attention."""

    def __init__(self, config: Seq2SeqConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        K, E, H, D = config.layers, config.embedding, config.decoder_hidden, config.encoder_features
        between = config.dropout if K > 1 else 0.0
        self.source_embedding = Embedding(config.source_size, E, rng=rng)
        self.encoder = LSTM(E, config.encoder_hidden, K, bidirectional=config.bidirectional, dropout=between, kernel=kernel, rng=rng)
        self.bridge_h = Linear(D, H, rng=rng)
        self.bridge_c = Linear(D, H, rng=rng)
        self.target_embedding = Embedding(config.target_size, E, rng=rng)
        self.decoder = LSTM(E, H, K, dropout=between, kernel=kernel, rng=rng)
        self.attention = None if config.attention == "none" else Attention(config.attention, H, D, rng=rng)
        readout = E if config.tie_embeddings else H
        self.readout = Linear(H if self.attention is None else H + D, readout, rng=rng)
        self.output = Linear(readout, config.target_size, rng=rng)
        if config.tie_embeddings:
            self.output.weight = init.normal_(self.target_embedding.weight, std=1 / math.sqrt(E), rng=rng)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.words = rng  # decides which words are dropped

    def loss(self, batch: TranslationBatch) -> Tensor:
        """Mean over the target tokens, ends included, of -ln p(y_l | y_<l, x), with the reference as y_<l."""
        return ops.cross_entropy(self.logits(batch), _targets(batch), label_smoothing=self.config.label_smoothing)

    def reader(self, batch: TranslationBatch) -> Reader:
        """The targets of a batch in chunks of steps: the same loss, see `minirnn.models.chunks`.

        The encoder reads its sources anew for every chunk that looks at them: for all where there is attention, else for the first.
        """
        return _Reader(self, batch)

    def log_likelihood(self, batch: TranslationBatch) -> Array:
        """ln p(y | x) of each pair, summed over its tokens: (N,), without gradients. Call `eval()` before, or dropout takes part."""
        with no_grad():
            losses = ops.cross_entropy(self.logits(batch), _targets(batch), reduction="none").numpy()  # (R,)
        return -np.bincount(_target_packing(batch).sequence, losses, batch.size)

    def logits(self, batch: TranslationBatch) -> Tensor:
        """The decoder's output under teacher forcing: (R, V), packed rows in the order of `Packing([len(y) + 1 for y in targets])`."""
        memory, mask, h0, c0 = self._encode(self._read(batch.source))
        states, _ = self.decoder(self._shifted(batch.target), (h0, c0))
        return self._said(states, memory, mask)

    def terms(self, source: Array, target: Array) -> Terms:
        """-ln p(y_l | y_<l, x) of each word of one target (L,), the end included, given one source (T,)."""
        x, y = self._read([source]), self._shifted([target])
        memory, mask, h0, c0 = self._encode(x)
        states, _ = self.decoder(y, (h0, c0))
        logits, look = self._said(states, memory, mask), None
        if self.attention is not None:
            look = self.attention(states.unpack(batch_first=True), memory, mask)[1].data[0]  # (L, T)
        losses = ops.cross_entropy(logits, np.append(target, EOS), reduction="none")
        return Terms(losses, {"source": x.rows, "target": y.rows}, logits.data.argmax(1), look)

    def _read(self, sources: Sequence[Array]) -> Packed:
        """The source words, embedded."""
        return self._embed(self.source_embedding, pack_sequence(sources))

    def _shifted(self, targets: Sequence[Array]) -> Packed:
        """What the decoder is given: each target word one step late, embedded."""
        return self._embed(self.target_embedding, _late(targets))

    def _said(self, states: Packed, memory: Tensor, mask: Array) -> Tensor:
        """The logits (R, V) of the decoder's states. Without attention nobody looks at the memory."""
        logits: Tensor = self.output(self.dropout(self._attended(states, memory, mask)))
        return logits

    def _encode(self, source: Packed) -> tuple[Tensor, Array, Tensor, Tensor]:
        """Memory (N, T, D), its mask (N, T), and the decoder's initial states (K, N, H)."""
        outputs, (h, c) = self.encoder(source)
        return (
            outputs.unpack(batch_first=True),
            outputs.packing.mask(),
            self.bridge_h(self._joined(h)).tanh(),
            self.bridge_c(self._joined(c)),
        )

    def _joined(self, state: Tensor) -> Tensor:
        """The two directions of a state (2K, N, D/2) side by side: (K, N, D)."""
        K, N, D = self.config.layers, state.shape[1], self.config.encoder_features
        return state.reshape(K, -1, N, self.config.encoder_hidden).transpose(0, 2, 1, 3).reshape(K, N, D)

    def _embed(self, embedding: Embedding, tokens: Packed) -> Packed:
        return Packed(self._given(embedding, tokens.rows.data), tokens.packing)

    def _given(self, embedding: Embedding, ids: Array) -> Tensor:
        """Words (S,), some of them withheld in training, embedded: (S, E)."""
        if self.training and self.config.word_dropout:
            dropped = self.words.random(ids.shape) < self.config.word_dropout
            ids = np.where(dropped & (ids > UNK), UNK, ids)  # words, and not the mark that begins a sentence
        embedded: Tensor = self.dropout(embedding(ids))
        return embedded

    def _attended(self, states: Packed, memory: Tensor, mask: Array) -> Tensor:
        """tanh(U [h; c]) for every target row: (R, readout)."""
        features = states.rows  # (R, H)
        if self.attention is not None:
            features = ops.concatenate([features, self.attention.of_rows(states, memory, mask)], axis=1)
        return ops.tanh(self.readout(features))

    def start(self, sources: Sequence[Array]) -> DecoderState:
        """The state before the first step, for source sentences (T_n,) of piece numbers."""
        with no_grad():
            memory, mask, h, c = self._encode(self._read(sources))
            mask = beside(mask, memory.data)
            projected = None if self.attention is None else self.attention.project(memory, mask)
        blank = None if self.attention is None else array_module(mask).zeros(mask.shape, memory.dtype)
        keys = None if projected is None else projected.data
        return DecoderState(*rows_first(h, c), memory.data, mask, keys, blank)

    def step(self, tokens: Array, state: DecoderState) -> tuple[Array, DecoderState]:
        """The log-probabilities (B, V) of the token after `tokens` (B,), and the state after it."""
        with no_grad():
            x = self.target_embedding(tokens[None])  # (1, B, E)
            states, last = self.decoder(x, layers_first(state.h, state.c))
            attended, look = states[0], None
            if self.attention is not None:
                projected = None if state.projected is None else Tensor(state.projected)
                queries = states.swapaxes(0, 1)  # (B, 1, H)
                context, weights = self.attention(queries, Tensor(state.memory), state.mask, projected)  # (B, 1, D), (B, 1, T)
                attended, look = ops.concatenate([attended, context[:, 0]], axis=1), weights.data[:, 0]
            log_probs = ops.log_softmax(self.output(self.readout(attended).tanh()))
        h, c = rows_first(*last)
        return log_probs.data, state._replace(h=h, c=c, attention=look)

    def select(self, state: DecoderState, rows: Array) -> DecoderState:
        """The state of `rows` (R,), in that order; a row may be taken several times."""
        return chosen(state, rows)

    def translate(
        self, sources: Sequence[Array], *, beam: int = 1, length_penalty: float = 1.0, coverage_penalty: float = 0.0, batch_size: int = 64
    ) -> list[decoding.Hypothesis]:
        """The best translation of each source sentence (T_n,) of piece numbers: greedy, or by beam search where `beam` > 1.

        Sentences go through in batches of similar length and come back in their own order; at most 2 T_n + 10 tokens each.
        """
        order = np.argsort([-len(s) for s in sources], kind="stable")
        found: dict[int, decoding.Hypothesis] = {}
        with evaluating(self):
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size].tolist()
                batch = [sources[k] for k in chosen]
                options: dict[str, Any] = {"bos": BOS, "eos": EOS, "max_length": np.array([2 * len(s) + 10 for s in batch])}
                search: Callable[..., list[decoding.Hypothesis]] = decoding.greedy
                if beam > 1:
                    search = decoding.beam_search
                    options.update(beam=beam, length_penalty=length_penalty, coverage_penalty=coverage_penalty)
                for k, best in zip(chosen, search(self, self.start(batch), len(batch), **options), strict=True):
                    own = len(sources[k])  # the batch is as wide as its longest source
                    found[k] = dataclasses.replace(best, attention=None if best.attention is None else best.attention[:, :own])
        return [found[k] for k in range(len(sources))]


def _target_packing(batch: TranslationBatch) -> Packing:
    return Packing([len(y) + 1 for y in batch.target])


def _targets(batch: TranslationBatch) -> Array:
    """What the decoder should say: each target and its end, as packed rows (R,)."""
    return pack_sequence([np.concatenate((y, [EOS])) for y in batch.target]).rows.data


class _Reader(Reader):
    """The pairs stand in the order of the decoder's rows: longest target first."""

    memory: Tensor
    mask: Array

    def __init__(self, model: Seq2Seq, batch: TranslationBatch) -> None:
        order = np.argsort([-len(y) for y in batch.target], kind="stable").tolist()
        batch = TranslationBatch([batch.source[k] for k in order], [batch.target[k] for k in order])
        words = _late(batch.target)
        super().__init__(model.decoder, words.packing)
        self.model, self.source, self.ids, self.targets = model, batch.source, words.rows.data, _targets(batch)

    def start(self, chunk: Chunk) -> tuple[Tensor, ...] | None:
        if self.model.attention is None and chunk.begin:
            return None
        self.memory, self.mask, h0, c0 = self.model._encode(self.model._read(self.source))
        return h0, c0

    def inputs(self, rows: slice) -> Tensor:
        return self.model._given(self.model.target_embedding, self.ids[rows])

    def cost(self, states: Packed, rows: slice) -> Tensor:
        model, N = self.model, states.packing.N
        looked_at = (self.memory[:N], self.mask[:N]) if model.attention is not None else (states.rows, None)
        smoothing = model.config.label_smoothing
        return ops.cross_entropy(model._said(states, *looked_at), self.targets[rows], reduction="sum", label_smoothing=smoothing)


def _late(targets: Sequence[Array]) -> Packed:
    """Each target word one step late."""
    return pack_sequence([np.concatenate(([BOS], y)) for y in targets])
