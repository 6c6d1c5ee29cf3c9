"""The sequence VAE: a language model whose sentences come from a point z of a continuous space (Bowman et al. 2016).

    p(z) = N(0, I),   p(x | z) = prod_t p(x_t | x_<t, z)                      x_1..x_T a sentence, its end included
    q(z | x) = N(mu(x), diag sigma(x)^2)                                      from the last state of an LSTM that reads x
    z = mu + sigma eps,  eps ~ N(0, I)                                        Kingma and Welling 2014
    ln p(x) >= ELBO(x) = E_q ln p(x | z) - KL(q(z | x) || p(z))

    h_0, c_0 = W z,   h_t = LSTM([x_{t-1}; z], h_{t-1}),   p(x_t | x_<t, z) = softmax(W tanh(U [h_t; z]))

A strong decoder learns to do without z, and the KL vanishes: posterior collapse. What helps, each an option of the loss

    L(step) = mean_n [ -ln p(x_n | z_n) ] + beta(step) C(KL)                  nats per sentence

is a beta that grows (Bowman et al. 2016; cyclical: Fu et al. 2019), free bits, C(KL) = sum_d max(lambda, mean_n KL_nd) (Kingma et al.
2016), words withheld from the decoder (Bowman et al. 2016), and an encoder trained ahead of the decoder (He et al. 2019, see `aggressive`).

With latent=0 there is no z and no encoder: the plain LSTM language model with the same decoder, the one to compare with.

N sentences, T words, S words in the batch, V vocabulary, E embedding, H hidden units, K layers, Z dimensions of z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from minirnn import decoding, ops
from minirnn.autograd import no_grad
from minirnn.data.vocabulary import BOS, EOS, UNK
from minirnn.device import Array, array_module, beside, is_array, on_host
from minirnn.distributions import Gaussian, standard_normal_kl
from minirnn.models import vae_bounds
from minirnn.models.aggressive import Aggressive, Phase
from minirnn.models.chunks import Reader
from minirnn.models.decoder_state import chosen, layers_first, rows_first
from minirnn.models.terms import Terms
from minirnn.nn import LSTM, Dropout, Embedding, Linear, Module, Packed, Packing, init, pack_sequence
from minirnn.nn.utils import evaluating
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Feed = Literal["input", "output", "both", "none"]
Annealing = Literal["none", "linear", "logistic", "cyclical"]
Kinds = Literal["dimension", "total"]
CHOICES = {"feed": get_args(Feed), "annealing": get_args(Annealing), "free_bits_in": get_args(Kinds)}


@dataclass(frozen=True)
class SequenceVAEConfig:
    """Hyper-parameters of `SequenceVAE`.

    Args:
        vocabulary_size: V.
        embedding: E, of the encoder's words and of the decoder's.
        encoder_hidden: units of the encoder, per direction.
        decoder_hidden: H, units of the decoder.
        layers: of the decoder.
        latent: Z; 0 is the language model without z.
        bidirectional: whether the encoder reads in both directions.
        feed: where the decoder meets z at every step, beside its first state: with its input word, before its output layer, or both.
        tie_embeddings: use the decoder's embedding as the output layer's weight.
        dropout: of the decoder's words, between its layers, and before its output layer.
        word_dropout: the probability that the decoder is given <unk> for a word.
        beta: the weight of the KL once the annealing is over.
        annealing: how beta gets there, see `beta_at`.
        annealing_steps: updates that it takes.
        cycles: times that a cyclical beta rises from 0.
        ramp: the share of a cycle in which beta rises.
        free_bits: lambda, nats of KL that cost nothing: in each dimension, or in total.
        free_bits_in: "dimension" or "total"; either way on the mean over the batch.
        aggressive: whether the encoder is trained ahead of the decoder until its mutual information stops rising.
    """

    vocabulary_size: int = 0
    embedding: int = 256
    encoder_hidden: int = 192
    decoder_hidden: int = 384
    layers: int = 1
    latent: int = 32
    bidirectional: bool = False
    feed: Feed = "both"
    tie_embeddings: bool = True
    dropout: float = 0.3
    word_dropout: float = 0.0
    beta: float = 1.0
    annealing: Annealing = "linear"
    annealing_steps: int = 1500
    cycles: int = 4
    ramp: float = 0.5
    free_bits: float = 0.2
    free_bits_in: Kinds = "dimension"
    aggressive: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding", "encoder_hidden", "decoder_hidden", "layers", "annealing_steps", "cycles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("latent", "beta", "free_bits"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp must lie in (0, 1], got {self.ramp}")

    def beta_at(self, step: int) -> float:
        """beta at update number `step`, counted from 0; s = step / annealing_steps.

        none      beta
        linear    beta min(s, 1)
        logistic  beta sigmoid(12 s - 6): half at the middle, 0.25 % off at both ends
        cyclical  beta min(tau / ramp, 1), tau the part of a cycle that is over; beta once all cycles are (Fu et al. 2019, equation 6)
        """
        s = step / self.annealing_steps
        if self.annealing == "linear":
            return self.beta * min(s, 1.0)
        if self.annealing == "logistic":
            return self.beta / (1 + math.exp(6 - 12 * min(s, 1.0))) if s < 1 else self.beta
        if self.annealing == "cyclical":
            return self.beta * min(s * self.cycles % 1 / self.ramp, 1.0) if s < 1 else self.beta
        return self.beta


class Elbo(NamedTuple):
    """The parts of ELBO(x) = reconstruction - KL of N sentences, in nats."""

    reconstruction: Array  # (N,)  ln p(x | z) at one draw of z
    kl: Array  # (N, Z)  KL(q(z | x) || p(z)), by dimension

    @property
    def bound(self) -> Array:
        """(N,)"""
        return self.reconstruction - self.kl.sum(1)


class DecoderState(NamedTuple):
    """What the decoder carries from step to step, for B rows."""

    h: Array  # (B, K, H)
    c: Array  # (B, K, H)
    z: Array  # (B, Z)


class SequenceVAE(Module):
    """An LSTM encoder to z and an LSTM decoder from z. A batch is a sequence of sentences (T_n,) of word numbers, ends not included."""

    def __init__(self, config: SequenceVAEConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        V, E, H, K, Z = config.vocabulary_size, config.embedding, config.decoder_hidden, config.layers, config.latent
        self.embedding = Embedding(V, E, rng=rng)
        self.decoder = LSTM(
            E + Z * (config.feed in ("input", "both")), H, K, dropout=config.dropout if K > 1 else 0.0, kernel=kernel, rng=rng
        )
        self.readout = Linear(H + Z * (config.feed in ("output", "both")), E if config.tie_embeddings else H, rng=rng)
        self.output = Linear(self.readout.out_features, V, rng=rng)
        if config.tie_embeddings:
            self.output.weight = init.normal_(self.embedding.weight, std=1 / math.sqrt(E), rng=rng)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.draws = rng  # the noise of z, and which words are dropped
        if Z:
            D = config.encoder_hidden * (2 if config.bidirectional else 1)
            self.encoder_embedding = Embedding(V, E, rng=rng)
            self.encoder = LSTM(E, config.encoder_hidden, bidirectional=config.bidirectional, kernel=kernel, rng=rng)
            self.posterior = Linear(D, 2 * Z, rng=rng)
            self.first = Linear(Z, 2 * K * H, rng=rng)
        self.aggressive = Aggressive() if Z and config.aggressive else None

    def loss(self, batch: Sequence[Array], step: int | None = None, noise: Array | None = None) -> Tensor:
        """L(step), nats per sentence; without a step, that at the end of the annealing.

        noise  (N, Z) from N(0, 1); drawn from the model's generator if None
        """
        if not self.config.latent:
            return self._reconstruction_loss(batch, self._no_latent(len(batch))) / len(batch)
        leader = self.aggressive if self.training and step is not None else None
        self._let_learn("both" if leader is None else leader.phase)
        q = self.encode(batch)
        z = q.sample(noise, rng=self.draws)
        kl = standard_normal_kl(q, by_dimension=True)  # (N, Z)
        beta = self.config.beta if step is None else self.config.beta_at(step)
        loss = self._reconstruction_loss(batch, z) / len(batch) + beta * self.price(kl)
        if leader is not None:
            information = vae_bounds.information_of(q.mean.numpy(), q.log_std.numpy(), z.numpy())
            leader.record(loss.item() * len(batch), sum(map(len, batch)) + len(batch), information)
        return loss

    def reader(self, batch: Sequence[Array]) -> Reader:
        """The batch of a language model (latent=0) in chunks of steps: the same loss, see `minirnn.models.chunks`."""
        if self.config.latent:
            raise ValueError(f"reader: with latent={self.config.latent} the encoder reads whole sentences; only latent=0 reads in chunks")
        return _Reader(self, batch)

    def price(self, kl: Tensor) -> Tensor:
        """C(KL), what is paid for KL terms (N, Z): their sum over d of the mean over n, free bits taken off.

        sum_d max(lambda, mean_n KL_nd), or max(lambda, mean_n sum_d KL_nd): below lambda the price is constant, and the gradient zero.
        """
        terms = kl.mean(0)  # (Z,)
        terms = terms.sum() if self.config.free_bits_in == "total" else terms
        return ops.maximum(terms, self.config.free_bits).sum()

    def encode(self, batch: Sequence[Array]) -> Gaussian:
        """q(z | x) of each sentence: mean and log_std (N, Z)."""
        if not self.config.latent:
            raise ValueError("encode: this model has latent=0, it is a language model without an encoder")
        return self._posterior(self._read(batch))

    def _read(self, batch: Sequence[Array]) -> Packed:
        """The encoder's words, embedded: an empty sentence has its end."""
        words = pack_sequence([np.append(x, EOS) for x in batch])
        return Packed(self.encoder_embedding(words.rows.data), words.packing)

    def _posterior(self, words: Packed) -> Gaussian:
        _, (h, _) = self.encoder(words)  # (directions, N, H)
        both: Tensor = self.posterior(h.swapaxes(0, 1).reshape(words.packing.N, -1))  # (N, 2Z)
        return Gaussian(*ops.split(both, 2))

    def logits(self, batch: Sequence[Array], z: Tensor) -> Tensor:
        """The decoder's output with the real x_<t as input: (S, V), packed rows in the order of `Packing([len(x) + 1 for x in batch])`."""
        return self._said(self._shifted(batch), z)

    def _shifted(self, batch: Sequence[Array]) -> Packed:
        """What the decoder is given: each word one step late, embedded."""
        words = _late(batch)
        return Packed(self._given(words.rows.data), words.packing)

    def _given(self, ids: Array) -> Tensor:
        """Words of the decoder (S,), some of them withheld in training, embedded: (S, E)."""
        if self.training and self.config.word_dropout:
            dropped = self.draws.random(ids.shape) < self.config.word_dropout
            ids = np.where(dropped & (ids > UNK), UNK, ids)
        embedded: Tensor = self.dropout(self.embedding(ids))
        return embedded

    def _said(self, words: Packed, z: Tensor) -> Tensor:
        """The logits (S, V) after the words, at points z (N, Z)."""
        rows = ops.take_rows(z, words.packing.sequence) if self.config.latent else z  # (S, Z)
        x = self._beside(words.rows, rows, "input")
        states, _ = self.decoder(Packed(x, words.packing), self._first_states(z))
        logits: Tensor = self.output(self.dropout(self._features(states.rows, rows)))
        return logits

    def terms(self, sentence: Array, *, rng: Rng = None) -> Terms:
        """-ln p(x_t | x_<t, z) of each word of one sentence (T,), its end included, at a z drawn from q; and last the KL.

        Their sum is minus the ELBO at that z. With latent=0 there is neither z nor KL, and the sum is -ln p(x).
        """
        read, written = self._read([sentence]) if self.config.latent else None, self._shifted([sentence])
        q = None if read is None else self._posterior(read)
        logits = self._said(written, self._no_latent(1) if q is None else q.sample(rng=rng))
        losses = ops.cross_entropy(logits, np.append(sentence, EOS), reduction="none")
        if q is not None:
            losses = ops.concatenate([losses, standard_normal_kl(q)])
        inputs = {"written": written.rows} if read is None else {"read": read.rows, "written": written.rows}
        return Terms(losses, inputs, logits.data.argmax(1))

    def _features(self, h: Tensor, z: Tensor) -> Tensor:
        """tanh(U [h; z])"""
        return ops.tanh(self.readout(self._beside(h, z, "output")))

    def _beside(self, x: Tensor, z: Tensor, place: str) -> Tensor:
        """[x; z] where z is fed to that place."""
        fed = self.config.latent and self.config.feed in (place, "both")
        return ops.concatenate([x, z], axis=1) if fed else x

    def _first_states(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """h_0 and c_0, (K, N, H) each."""
        if not self.config.latent:
            return None
        K, H = self.config.layers, self.config.decoder_hidden
        h, c = ops.split(self.first(z).reshape(-1, 2, K, H).transpose(1, 2, 0, 3), 2, 0)  # (1, K, N, H) each
        return h[0].tanh(), c[0]

    def _reconstruction_loss(self, batch: Sequence[Array], z: Tensor) -> Tensor:
        """-sum_n ln p(x_n | z_n)"""
        return ops.cross_entropy(self.logits(batch, z), self._targets(batch), reduction="sum")

    def log_likelihood(self, batch: Sequence[Array], z: Array | None = None) -> Array:
        """ln p(x_n | z_n): (N,), without gradients; with latent=0 it is ln p(x_n), and z is left out."""
        with evaluating(self), no_grad():
            given = self._no_latent(len(batch)) if z is None else Tensor(self._points(z))
            losses = ops.cross_entropy(self.logits(batch, given), self._targets(batch), reduction="none").numpy()  # (S,)
        packing = Packing([len(x) + 1 for x in batch])
        return -np.bincount(packing.sequence, losses, packing.N)

    def elbo(self, batch: Sequence[Array], *, rng: Rng = None) -> Elbo:
        """The parts of the ELBO of each sentence, with one z of each drawn from `rng`."""
        q = self.posteriors([batch])
        kl = standard_normal_kl(q, by_dimension=True).numpy()
        return Elbo(self.log_likelihood(batch, q.sample(rng=rng).data), kl)

    def importance_weighted(self, batch: Sequence[Array], samples: int = 500, *, rng: Rng = None) -> Array:
        """The importance-weighted bound on ln p(x) of each sentence, (N,): see `vae_bounds.importance_weighted`."""
        return vae_bounds.importance_weighted(self, batch, samples, rng)

    def posteriors(self, batches: Iterable[Sequence[Array]]) -> Gaussian:
        """q(z | x) of the sentences of several batches, in order, without gradients: mean and log_std (N, Z)."""
        with evaluating(self), no_grad():
            found = [self.encode(batch) for batch in batches]
        return Gaussian(ops.concatenate([q.mean for q in found]), ops.concatenate([q.log_std for q in found]))

    def start(self, z: Array) -> DecoderState:
        """The state before the first word, for points z (B, Z)."""
        K, H = self.config.layers, self.config.decoder_hidden
        z = self._points(z)
        if z.ndim != 2 or z.shape[1] != self.config.latent:
            raise ValueError(f"start: z must be (B, Z) with Z = latent = {self.config.latent}, got {z.shape}")
        with no_grad():
            states = self._first_states(Tensor(z))
        nothing = Tensor(array_module(z).zeros((K, len(z), H), z.dtype))
        return DecoderState(*rows_first(*((nothing, nothing) if states is None else states)), z)

    def step(self, tokens: Array, state: DecoderState) -> tuple[Array, DecoderState]:
        """The log-probabilities (B, V) of the word after `tokens` (B,), and the state after it."""
        with no_grad():
            z = Tensor(state.z)
            x = self._beside(self.embedding(tokens), z, "input")  # (B, E + Z)
            states, last = self.decoder(ops.expand_dims(x, 0), layers_first(state.h, state.c))
            log_probs = ops.log_softmax(self.output(self._features(states[0], z)))
        return log_probs.data, DecoderState(*rows_first(*last), state.z)

    def select(self, state: DecoderState, rows: Array) -> DecoderState:
        """The state of `rows` (R,), in that order; a row may be taken several times."""
        return chosen(state, rows)

    def decode(
        self,
        z: Array,
        how: Literal["greedy", "sample", "beam"] = "greedy",
        *,
        temperature: float = 1.0,
        beam: int = 5,
        max_length: int = 50,
        rng: Rng = None,
    ) -> list[decoding.Hypothesis]:
        """The sentence at each point z (B, Z): word by word the most probable, a draw from p(x | z), or the best that a beam finds."""
        if how not in ("greedy", "sample", "beam"):
            raise ValueError(f'decode: how must be "greedy", "sample" or "beam", got {how!r}')
        options: dict[str, Any] = {"bos": BOS, "eos": EOS, "max_length": max_length}
        with evaluating(self):
            state, count = self.start(z), len(z)
            if how == "sample":
                return decoding.sample(self, state, count, temperature=temperature, rng=rng, **options)
            return (
                decoding.greedy(self, state, count, **options)
                if how == "greedy"
                else decoding.beam_search(self, state, count, beam=beam, **options)
            )

    def sample(self, count: int, *, temperature: float = 1.0, max_length: int = 50, rng: Rng = None) -> list[decoding.Hypothesis]:
        """Sentences from the model: z from the prior, then words from p(x | z)."""
        rng = generator(rng)
        z = rng.standard_normal((count, self.config.latent))
        return self.decode(z, "sample", temperature=temperature, max_length=max_length, rng=rng)

    def reconstruct(self, batch: Sequence[Array], how: Literal["greedy", "beam"] = "greedy", beam: int = 5) -> list[decoding.Hypothesis]:
        """Each sentence read to the mean of its posterior and written again from there."""
        return self.decode(self.posteriors([batch]).mean.data, how, beam=beam)

    def interpolate(self, a: Array, b: Array, steps: int = 7, how: Literal["greedy", "beam"] = "greedy") -> list[decoding.Hypothesis]:
        """Sentences on the straight line from a's posterior mean to b's, both ends included: the homotopy of Bowman et al. 2016."""
        if steps < 2:
            raise ValueError(f"interpolate: steps must be at least 2, the two ends, got {steps}")
        first, last = self.posteriors([[a, b]]).mean.numpy()  # (Z,) each
        share = np.linspace(0, 1, steps)[:, None]
        return self.decode(first + share * (last - first), how)

    def _let_learn(self, phase: Phase) -> None:
        """Freeze the half of the model whose turn it is not. It stays so until the next loss, so that back-propagation sees it too."""
        if self.aggressive is None:
            return
        reading = (self.encoder_embedding, self.encoder, self.posterior)
        writing = (self.embedding, self.decoder, self.readout, self.output, self.first)
        for half, modules in (("encoder", reading), ("decoder", writing)):
            for module in modules:
                module.requires_grad_(phase in (half, "both"))

    def _no_latent(self, count: int) -> Tensor:
        if self.config.latent:
            raise ValueError(f"log_likelihood: this model has latent={self.config.latent}, say at which z (N, {self.config.latent})")
        return Tensor(self._points(np.zeros((count, 0))))

    def _points(self, z: Array) -> Array:
        """z in the dtype and on the device of the model."""
        weight = self.output.weight.data
        there = is_array(z) and not on_host(z)
        return z.astype(weight.dtype, copy=False) if there else beside(np.asarray(z, weight.dtype), weight)

    def _targets(self, batch: Sequence[Array]) -> Array:
        """What the decoder should say: each sentence and its end, as packed rows (S,)."""
        return pack_sequence([np.append(x, EOS) for x in batch]).rows.data


class _Reader(Reader):
    def __init__(self, model: SequenceVAE, batch: Sequence[Array]) -> None:
        words = _late(batch)
        super().__init__(model.decoder, words.packing)
        self.model, self.ids, self.targets, self.z = model, words.rows.data, model._targets(batch), model._no_latent(len(batch))
        self.unit = len(batch) / words.packing.S  # nats per sentence

    def inputs(self, rows: slice) -> Tensor:
        return self.model._given(self.ids[rows])

    def cost(self, states: Packed, rows: slice) -> Tensor:
        model = self.model
        logits = model.output(model.dropout(model._features(states.rows, self.z)))
        return ops.cross_entropy(logits, self.targets[rows], reduction="sum")


def _late(batch: Sequence[Array]) -> Packed:
    """Each word one step late."""
    return pack_sequence([np.insert(x, 0, BOS) for x in batch])
