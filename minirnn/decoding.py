"""From a model of the next token to a sequence: greedy, sampling, and beam search, over any model with a `step`.

All run a whole batch at once. A sequence that is finished leaves the batch, so a step costs what its live rows cost. The search itself runs
on the host: the log-probabilities of each step are read once, wherever the model computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minirnn.device import Array, array_module, on_host, to_device
from minirnn.random import Rng, generator


class Stepper(Protocol):
    """A model that can be asked for the next token, row by row.

    `state` is whatever the model carries between steps, for B rows. If it has an attribute `attention`, an array (B, T_source) or None, the
    decoders keep it step by step.
    """

    def step(self, tokens: Array, state: Any) -> tuple[Array, Any]:
        """tokens (B,), on the host -> log-probabilities of the next token (B, V), on any device, and the state after it."""
        ...

    def select(self, state: Any, rows: Array) -> Any:
        """The state of `rows` (R,), on the host, in that order; a row may be taken several times."""
        ...


@dataclass(frozen=True)
class Hypothesis:
    """One decoded sequence.

    tokens     (L,) without the end token
    log_prob   sum of the log-probabilities, the end token's included
    score      what the search ranked it by: log_prob with its length normalisation and penalties
    finished   whether it ended by itself, and not at the limit
    attention  (L or L + 1, T_source): where each step looked, the end token's included; None for a model without attention
    """

    tokens: Array
    log_prob: float
    score: float
    finished: bool
    attention: Array | None


def greedy(model: Stepper, state: Any, batch: int, *, bos: int, eos: int, max_length: int | Array) -> list[Hypothesis]:
    """The most probable token at every step.

    state       for `batch` rows
    bos, eos    the tokens that begin and end a sequence
    max_length  most tokens of a sequence, the end token included: a number, or one for each row

    Raises FloatingPointError where the model gives NaN; so do the other two.
    """
    return _one_by_one(model, state, batch, lambda log_probs: log_probs.argmax(1), bos, eos, max_length)


def sample(
    model: Stepper,
    state: Any,
    batch: int,
    *,
    bos: int,
    eos: int,
    max_length: int | Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Rng = None,
) -> list[Hypothesis]:
    """Tokens drawn from the model's distribution.

    temperature  divides the logits: below 1 sharper, above 1 flatter
    top_k        draw among the k most probable tokens only
    top_p        draw among the fewest tokens whose probabilities sum to at least p (nucleus sampling, Holtzman et al. 2020)
    """
    if not temperature > 0:
        raise ValueError(f"sample: temperature must be above 0, got {temperature}; use greedy for its limit at 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sample: top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"sample: top_p must lie in (0, 1], got {top_p}")
    draws = generator(rng)

    def pick(log_probs: Array) -> Array:
        cumulative = np.cumsum(_restricted(log_probs / temperature, top_k, top_p), axis=1)  # (B, V)
        u = draws.random((len(cumulative), 1)) * cumulative[:, -1:]
        return np.minimum((cumulative <= u).sum(1), log_probs.shape[1] - 1)

    return _one_by_one(model, state, batch, pick, bos, eos, max_length)


def _restricted(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    """Probabilities (B, V), not normalised, of the tokens that top_k and top_p leave."""
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    if top_k is not None and top_k < p.shape[1]:
        places = _largest(p, top_k)
        kept = np.take_along_axis(p, places, 1)
        p[:] = 0
        np.put_along_axis(p, places, kept, 1)
    if top_p is not None:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, 1)
        before = np.cumsum(ranked, axis=1) - ranked  # mass of the more probable tokens
        ranked[before >= top_p * ranked.sum(1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, 1)
    return p


def _largest(scores: Array, k: int) -> Array:
    """The columns (R, k) of the k largest scores of each row (R, V), ascending; of equal scores the smaller column, as argmax has it."""
    columns = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    least = np.take_along_axis(scores, columns, 1).min(1, keepdims=True)
    tied = np.flatnonzero((scores >= least).sum(1) > k)  # argpartition takes any of these
    columns[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :k]
    columns.sort(axis=1)
    return columns


def _asked(model: Stepper, tokens: Array, state: Any) -> tuple[Array, Array | None, Any]:
    """One step of the model: log-probabilities (B, V) and attention (B, T_source), if any, both on the host, and the state.

    From a device they come in one transfer: the only time in a step that the host waits.
    """
    log_probs, state = model.step(tokens, state)
    attention = getattr(state, "attention", None)
    if attention is None or on_host(log_probs):
        return to_device(log_probs, "cpu"), attention, state
    V = log_probs.shape[1]
    both = to_device(array_module(log_probs).concatenate([log_probs, attention.astype(log_probs.dtype, copy=False)], axis=1), "cpu")
    return both[:, :V], both[:, V:], state


def _usable(log_probs: Array, owner: Array, length: int) -> Array:
    """`log_probs` (R, V), unless a row leaves nothing to choose from."""
    bad = np.flatnonzero(~(log_probs.max(1) > -np.inf))  # a NaN is not larger than anything
    if len(bad):
        raise FloatingPointError(f"decoding: the log-probabilities of sequence {owner[bad[0]]} after {length} tokens are NaN or all -inf")
    return log_probs


def _limits(max_length: int | Array, batch: int) -> Array:
    limits = np.broadcast_to(np.asarray(max_length), (batch,))
    if batch and limits.min() < 1:
        raise ValueError(f"max_length must be at least 1, got {limits.min()}")
    return limits


def _one_by_one(
    model: Stepper, state: Any, batch: int, pick: Callable[[Array], Array], bos: int, eos: int, max_length: int | Array
) -> list[Hypothesis]:
    limits = _limits(max_length, batch)
    tokens: list[list[int]] = [[] for _ in range(batch)]
    looks: list[list[Array]] = [[] for _ in range(batch)]
    log_prob = np.zeros(batch)
    finished = np.zeros(batch, bool)
    live = np.arange(batch)
    last = np.full(batch, bos)
    for t in range(int(limits.max(initial=0))):
        if not len(live):
            break
        log_probs, attention, state = _asked(model, last, state)  # (B, V)
        last = pick(_usable(log_probs, live, t))
        log_prob[live] += log_probs[np.arange(len(live)), last]
        for row, (sequence, token) in enumerate(zip(live, last, strict=True)):
            if token != eos:
                tokens[sequence].append(int(token))
            if attention is not None:
                looks[sequence].append(attention[row])
        finished[live] = last == eos
        going = np.flatnonzero(~finished[live] & (limits[live] > [len(tokens[s]) for s in live]))
        if len(going) < len(live):
            live, last, state = live[going], last[going], model.select(state, going)
    return [
        Hypothesis(np.array(t, np.int64), float(p), float(p), bool(f), np.array(a) if a else None)
        for t, p, f, a in zip(tokens, log_prob, finished, looks, strict=True)
    ]


@dataclass
class _Step:
    """One step of the search, for tracing a hypothesis back: each live row's token, the row it came from, and where it looked."""

    parents: Array
    tokens: Array
    attention: Array | None


def beam_search(
    model: Stepper,
    state: Any,
    batch: int,
    *,
    bos: int,
    eos: int,
    max_length: int | Array,
    beam: int = 5,
    length_penalty: float = 1.0,
    coverage_penalty: float = 0.0,
    n_best: int | None = None,
) -> list[Any]:
    """The best sequences that a beam of `beam` partial ones for each batch row leads to.

    A hypothesis Y of the source X is ranked by (Wu et al. 2016, equation 14)

        s(Y) = ln p(Y | X) / lp(Y) + coverage_penalty * sum_i ln min(sum_j a_ij, 1),    lp(Y) = ((5 + |Y|) / 6)^length_penalty

    with |Y| the tokens including the end, and a_ij the attention to source position i at step j. A finished hypothesis keeps its place in
    the beam, so a beam of 1 is greedy, and the search of a row ends when its beam is full of finished ones, or at `max_length`.

    Returns the best Hypothesis of each row or, with `n_best`, a list of up to that many for each row, best first.
    """
    if beam < 1:
        raise ValueError(f"beam_search: beam must be at least 1, got {beam}")
    limits = _limits(max_length, batch)
    places = np.full(batch, beam)  # not yet taken by finished hypotheses
    owner = np.arange(batch)  # (R,) the sequence that each live row belongs to, non-decreasing
    score = np.zeros(batch)  # (R,) log-probability so far
    last = np.full(batch, bos)
    steps: list[_Step] = []
    found: list[list[Hypothesis]] = [[] for _ in range(batch)]

    for t in range(1, int(limits.max(initial=0)) + 1):
        log_probs, attention, state = _asked(model, last, state)  # (R, V)
        rows, tokens, score = _best_continuations(score[:, None] + _usable(log_probs, owner, t - 1), owner, places, beam)
        steps.append(_Step(rows, tokens, None if attention is None else attention[rows]))
        owner = owner[rows]
        ended, stopped = tokens == eos, limits[owner] <= t
        for row in np.flatnonzero(ended | stopped).tolist():
            hypothesis = _trace(steps, row, score[row], bool(ended[row]), length_penalty, coverage_penalty)
            found[owner[row]].append(hypothesis)
        np.subtract.at(places, owner[ended], 1)
        going = np.flatnonzero(~(ended | stopped))
        if not len(going):
            break
        state = model.select(state, rows[going])
        owner, score, last = owner[going], score[going], tokens[going]
        steps[-1] = _Step(rows[going], last, None if attention is None else attention[rows[going]])

    ranked = [sorted(hypotheses, key=lambda h: (not h.finished, -h.score)) for hypotheses in found]
    return [r[0] for r in ranked] if n_best is None else [r[:n_best] for r in ranked]


def _best_continuations(total: Array, owner: Array, places: Array, beam: int) -> tuple[Array, Array, Array]:
    """The best `places[s]` continuations of every sequence s: the rows they continue, their tokens, their scores.

    total (R, V) scores of every continuation of every live row; owner (R,). Sequences stay in order, and within one the best comes first.
    """
    k = min(beam, total.shape[1])
    top = _largest(total, k)  # (R, k): no sequence can need more of one row
    sequences, first, rank = np.unique(owner, return_index=True, return_inverse=True)
    column = (np.arange(len(owner)) - first[rank])[:, None] * k + np.arange(k)  # (R, k) place in the sequence's line
    line = np.full((len(sequences), beam * k), -np.inf)
    line[rank[:, None], column] = np.take_along_axis(total, top, 1)
    order = np.argsort(-line, axis=1, kind="stable")[:, :beam]  # (sequences, beam)
    chosen = (np.arange(order.shape[1]) < places[sequences, None]) & (np.take_along_axis(line, order, 1) > -np.inf)
    place = order[chosen]
    rows = (first[:, None] + order // k)[chosen]
    return rows, top[rows, place % k], np.take_along_axis(line, order, 1)[chosen]


def _trace(steps: list[_Step], row: int, log_prob: float, ended: bool, length_penalty: float, coverage_penalty: float) -> Hypothesis:
    tokens, looks = [], []
    for step in reversed(steps):
        tokens.append(int(step.tokens[row]))
        if step.attention is not None:
            looks.append(step.attention[row])
        row = step.parents[row]
    score = log_prob / ((5 + len(tokens)) / 6) ** length_penalty
    attention = np.array(looks[::-1]) if looks else None
    if attention is not None and coverage_penalty:
        covered = attention.sum(0)  # (T_source,)
        score += coverage_penalty * float(np.log(np.minimum(covered[covered > 0], 1)).sum())
    return Hypothesis(np.array(tokens[::-1][: -1 if ended else None], np.int64), float(log_prob), float(score), ended, attention)
