"""Captioning: a convolutional network sees a picture, an LSTM with attention says what is on it.

    F_0 = x,  F_k = relu(conv(F_{k-1}))                                       each halves the picture, until there are few places
    e_g = norm(W_e F_K[g] + p_g)                                              the feature grid: what is at place g, and where that is
    m = max_g F_K[g],  v = relu(W_v [m; the same of parts of the picture])    what there is; what there is where, roughly
    p(y_1..y_L | x) = prod_l p(y_l | y_<l, v)                                 Vinyals et al. 2015
    h_l = LSTM(y_{l-1}, h_{l-1}),  h_0, c_0 = W_h v, W_c v
    a_l = attention(h_l; e_1..e_G),  c_l = sum_g a_lg e_g                     Xu et al. 2015: where word l looks
    p(y_l | y_<l, x) = softmax(W relu(U [h_l; c_l; m]))

Xu et al. look before the LSTM's step and feed it what they see. Here, as in `Seq2Seq`, the attention comes after it, and so the LSTM runs
over the whole caption in one fused call. Without attention v and m are all that the decoder knows of the picture.

In training m alone must also say which words the caption has, in whatever order (word_weight; Fang et al. 2015):

    loss = -1/R sum ln p(y_l | y_<l, x) - word_weight 1/N sum_n 1/|Y_n| sum of ln softmax(W_m m)_w over the set Y_n of n's words

Otherwise a name is learnt only through the one step of the decoder that says it, where at first the attention looks everywhere.

N pictures of 3 x S x S, L the longest caption, R the words of all captions with their ends, C channels, F those of the last convolution,
G places of the grid, D features of each, H hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from minirnn import decoding, ops
from minirnn.autograd import no_grad
from minirnn.data.vocabulary import BOS, EOS
from minirnn.device import Array, array_module, beside
from minirnn.models.decoder_state import chosen, layers_first, rows_first
from minirnn.models.terms import Terms
from minirnn.nn import (
    LSTM,
    Attention,
    Conv2d,
    Dropout,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool2d,
    Module,
    Packed,
    Parameter,
    ReLU,
    Sequential,
    init,
    pack_sequence,
)
from minirnn.nn.utils import evaluating
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

GRID = 8  # places on a side of the feature grid, at the most
GROUP = 16  # channels that are normalised together


@dataclass(frozen=True)
class CaptionerConfig:
    """Hyper-parameters of `Captioner`.

    Args:
        vocabulary_size: pieces in the vocabulary, V.
        picture_size: rows and columns of a picture, S.
        channels: of the first convolution; the k-th one has k times as many.
        grid_features: D, what the decoder sees of each place.
        normalisation: of what each convolution gives: "none", or in groups of channels.
        embedding: E, of a word.
        hidden: H, units of the decoder.
        attention: "none", or how a decoder state is compared with the places of the grid.
        dropout: of v, of words' embeddings and before the output layer.
        label_smoothing: share of the target probability that is spread over the vocabulary.
        word_weight: weight in the loss of how well the picture's maxima tell the caption's words.
    """

    vocabulary_size: int = 0
    picture_size: int = 0
    channels: int = 32
    grid_features: int = 128
    normalisation: Literal["none", "group"] = "none"
    embedding: int = 64
    hidden: int = 256
    attention: Literal["none", "dot", "general", "additive"] = "general"
    dropout: float = 0.0
    label_smoothing: float = 0.0
    word_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("channels", "grid_features", "embedding", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not self.word_weight >= 0:
            raise ValueError(f"word_weight must not be negative, got {self.word_weight}")
        if self.attention == "dot" and self.grid_features != self.hidden:
            raise ValueError(
                f"attention=dot compares states as they are, but a place has {self.grid_features} features and the decoder {self.hidden} "
                "units; make them equal, or use attention=general"
            )


@dataclass(frozen=True)
class CaptionBatch:
    """Pictures with one caption each.

    Args:
        images: (N, 3, S, S) uint8.
        captions: N arrays (L_n,) of piece numbers; begin and end are the model's to add.
    """

    images: Array
    captions: Sequence[Array]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"CaptionBatch: {len(self.images)} pictures but {len(self.captions)} captions")

    @property
    def tokens(self) -> int:
        """R, predictions that the decoder makes: every piece and one end mark for each caption."""
        return sum(map(len, self.captions)) + len(self.captions)


class DecoderState(NamedTuple):
    """What the decoder carries from step to step, for B rows."""

    h: Array  # (B, 1, H)
    c: Array  # (B, 1, H)
    top: Array  # (B, F)  m, the largest of each feature
    grid: Array  # (B, G, D)
    projected: Array | None  # (B, G, A)  what additive attention makes of the grid, once for all steps
    attention: Array | None  # (B, G)  where the last step looked


class Encoder(Module):
    """From pictures (N, 3, S, S) to the feature grid (N, G, D), the vector v (N, H), and the largest features m (N, F)."""

    def __init__(self, config: CaptionerConfig, rng: np.random.Generator) -> None:
        C, D = config.channels, config.grid_features
        layers, side, stage = _convolution(3, C, 5, 2, config, rng), _halved(config.picture_size), 1
        while side > GRID:
            layers += _convolution(stage * C, (stage + 1) * C, 3, 2, config, rng)
            side, stage = _halved(side), stage + 1
        layers += _convolution(stage * C, (stage + 1) * C, 3, 1, config, rng)
        self.side, self.features = side, (stage + 1) * C
        self.stack = Sequential(*layers)
        self.feature = Linear(self.features, D, rng=rng)
        self.place = init.normal_(Parameter(np.empty((side * side, D), np.float32)), std=0.3, rng=rng)
        self.norm = LayerNorm(D)
        window, stride = max(1, side // 2), max(1, side // 4)
        self.parts = MaxPool2d(window, stride)
        count = (side - window) // stride + 1
        self.vector = Linear((1 + count * count) * self.features, config.hidden, rng=rng)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.stack(x)  # (N, features, P, P)
        flat = maps.reshape((len(x), self.features, self.side * self.side)).swapaxes(1, 2)  # (N, G, features)
        parts = self.parts(maps).reshape((len(x), -1))
        top = ops.max(flat, 1)  # (N, features)
        v = ops.relu(self.vector(ops.concatenate([top, parts], axis=1)))
        return self.norm(self.feature(flat) + self.place), v, top


class Captioner(Module):
    """A convolutional encoder and an LSTM decoder with attention over the picture."""

    def __init__(self, config: CaptionerConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        E, H, D = config.embedding, config.hidden, config.grid_features
        self.encoder = Encoder(config, rng)
        self.first_h = Linear(H, H, rng=rng)
        self.first_c = Linear(H, H, rng=rng)
        self.embedding = Embedding(config.vocabulary_size, E, rng=rng)
        self.decoder = LSTM(E, H, kernel=kernel, rng=rng)
        self.attention = None if config.attention == "none" else Attention(config.attention, H, D, rng=rng)
        self.readout = Linear(H + self.encoder.features + (0 if self.attention is None else D), H, rng=rng)
        self.output = Linear(H, config.vocabulary_size, rng=rng)
        self.words = Linear(self.encoder.features, config.vocabulary_size, rng=rng)
        self.dropout = Dropout(config.dropout, rng=rng)

    def loss(self, batch: CaptionBatch) -> Tensor:
        """Mean over the words of the captions, ends included, of -ln p(y_l | y_<l, x), with the reference as y_<l (teacher forcing).

        To this comes what m does not know of the words, times word_weight.
        """
        logits, top = self._forced(batch)
        loss = ops.cross_entropy(logits, _targets(batch).rows.data, label_smoothing=self.config.label_smoothing)
        return loss + self._word_loss(top, batch.captions) * self.config.word_weight if self.config.word_weight else loss

    def _word_loss(self, top: Tensor, captions: Sequence[Array]) -> Tensor:
        wanted = np.zeros((len(captions), self.config.vocabulary_size), top.dtype)
        for row, caption in zip(wanted, captions, strict=True):
            row[caption] = 1
        wanted /= np.maximum(wanted.sum(1, keepdims=True), 1)  # (N, V)
        return -ops.sum(ops.log_softmax(self.words(top)) * wanted) / len(captions)

    def log_likelihood(self, batch: CaptionBatch) -> Array:
        """ln p(y | x) of each pair, summed over its words: (N,), without gradients. Call `eval()` before, or dropout takes part."""
        targets = _targets(batch)
        with no_grad():
            losses = ops.cross_entropy(self.logits(batch), targets.rows.data, reduction="none").numpy()  # (R,)
        return -np.bincount(targets.packing.sequence, losses, len(batch.captions))

    def logits(self, batch: CaptionBatch) -> Tensor:
        """The decoder's output under teacher forcing: (R, V), packed rows in the order of `Packing([len(y) + 1 for y in captions])`."""
        return self._forced(batch)[0]

    def _forced(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """The logits (R, V), and m (N, F)."""
        grid, top, h0, c0 = self._encode(self._pixels(batch.images))
        states, _ = self.decoder(self._shifted(batch.captions), (h0, c0))
        return self._said(states, grid, top), top

    def terms(self, image: Array, caption: Array) -> Terms:
        """-ln p(y_l | y_<l, x) of each word of one caption (L,), the end included, given one picture (3, S, S)."""
        x, y = self._pixels(image[None]).requires_grad_(), self._shifted([caption])
        grid, top, h0, c0 = self._encode(x)
        states, _ = self.decoder(y, (h0, c0))
        logits, look = self._said(states, grid, top), None
        if self.attention is not None:
            look = self.attention(states.unpack(batch_first=True), grid)[1].data[0]  # (L, G)
        losses = ops.cross_entropy(logits, np.append(caption, EOS), reduction="none")
        return Terms(losses, {"picture": x, "caption": y.rows}, logits.data.argmax(1), look)

    def _shifted(self, captions: Sequence[Array]) -> Packed:
        """What the decoder is given: each word one step late, embedded."""
        words = pack_sequence([np.concatenate(([BOS], y)) for y in captions])
        return Packed(self.dropout(self.embedding(words.rows)), words.packing)

    def _said(self, states: Packed, grid: Tensor, top: Tensor) -> Tensor:
        """The logits (R, V) of the decoder's states."""
        seen = [states.rows, ops.take_rows(top, states.packing.sequence)]  # (R, H), (R, F)
        if self.attention is not None:
            seen.append(self.attention.of_rows(states, grid))  # (R, D)
        logits: Tensor = self.output(self.dropout(ops.relu(self.readout(ops.concatenate(seen, axis=1)))))
        return logits

    def _pixels(self, images: Array) -> Tensor:
        """Pictures as the network sees them, from -1 to 1."""
        S = self.config.picture_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, S, S):
            raise ValueError(f"Captioner: images must be uint8 (N, 3, S, S) with S = picture_size = {S}, got {images.dtype} {images.shape}")
        dtype = self.output.weight.dtype
        return Tensor(beside(images, self.output.weight.data).astype(dtype) / dtype.type(127.5) - dtype.type(1))  # bytes are what moves

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The grid (N, G, D), m (N, F), and the decoder's initial states (1, N, H)."""
        grid, v, top = self.encoder(x)
        v = self.dropout(v)
        return grid, top, ops.tanh(self.first_h(v))[None], self.first_c(v)[None]

    def start(self, images: Array) -> DecoderState:
        """The state before the first step, for pictures (N, 3, S, S)."""
        with no_grad():
            grid, top, h, c = self._encode(self._pixels(images))
            projected = None if self.attention is None else self.attention.project(grid)
        blank = None if self.attention is None else array_module(grid.data).zeros(grid.shape[:2], grid.dtype)
        keys = None if projected is None else projected.data
        return DecoderState(*rows_first(h, c), top.data, grid.data, keys, blank)

    def step(self, tokens: Array, state: DecoderState) -> tuple[Array, DecoderState]:
        """The log-probabilities (B, V) of the word after `tokens` (B,), and the state after it."""
        with no_grad():
            x = self.embedding(tokens[None])  # (1, B, E)
            states, last = self.decoder(x, layers_first(state.h, state.c))
            seen, look = [states[0], Tensor(state.top)], None
            if self.attention is not None:
                projected = None if state.projected is None else Tensor(state.projected)
                context, weights = self.attention(states.swapaxes(0, 1), Tensor(state.grid), None, projected)  # (B, 1, D), (B, 1, G)
                seen, look = [*seen, context[:, 0]], weights.data[:, 0]
            log_probs = ops.log_softmax(self.output(ops.relu(self.readout(ops.concatenate(seen, axis=1)))))
        h, c = rows_first(*last)
        return log_probs.data, state._replace(h=h, c=c, attention=look)

    def select(self, state: DecoderState, rows: Array) -> DecoderState:
        """The state of `rows` (R,), in that order; a row may be taken several times."""
        return chosen(state, rows)

    def caption(
        self, images: Array, *, beam: int = 1, length_penalty: float = 1.0, max_length: int = 40, batch_size: int = 64
    ) -> list[decoding.Hypothesis]:
        """The best caption of each picture (N, 3, S, S): greedy, or by beam search where `beam` > 1. Attention is (L or L + 1, P, P)."""
        found: list[decoding.Hypothesis] = []
        options: dict[str, Any] = {"bos": BOS, "eos": EOS, "max_length": max_length}
        search: Callable[..., list[decoding.Hypothesis]] = decoding.greedy
        if beam > 1:
            search, options = decoding.beam_search, {**options, "beam": beam, "length_penalty": length_penalty}
        with evaluating(self):
            for begin in range(0, len(images), batch_size):
                batch = images[begin : begin + batch_size]
                found += search(self, self.start(batch), len(batch), **options)
        square = (-1, self.encoder.side, self.encoder.side)
        return [dataclasses.replace(h, attention=None if h.attention is None else h.attention.reshape(square)) for h in found]


def _convolution(channels: int, features: int, size: int, stride: int, config: CaptionerConfig, rng: np.random.Generator) -> list[Module]:
    """Convolution, normalisation and rectifier; the weights are He's, without which features fade from layer to layer."""
    layer = Conv2d(channels, features, size, stride=stride, padding=size // 2, rng=rng)
    init.kaiming_uniform_(layer.weight, rng=rng)
    assert layer.bias is not None
    init.zeros_(layer.bias)
    groups = features // GROUP if features % GROUP == 0 else 1
    return [layer, *([GroupNorm(groups, features)] if config.normalisation == "group" else []), ReLU()]


def _halved(side: int) -> int:
    """What a convolution of stride 2 leaves."""
    return (side + 1) // 2


def _targets(batch: CaptionBatch) -> Packed:
    """What the decoder should say: each caption and its end, as packed rows (R,)."""
    return pack_sequence([np.concatenate((y, [EOS])) for y in batch.captions])
