"""The sequence VAE against the decoder run step by step, an LSTM written out in NumPy, finite differences, and integrals over z."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn import Tensor, grad, tensor
from minirnn.autograd import no_grad
from minirnn.data.vocabulary import BOS, EOS, UNK
from minirnn.distributions import Gaussian
from minirnn.models import SequenceVAE, SequenceVAEConfig
from minirnn.optim import Adam
from minirnn.study import gradcheck

V = 9
SMALL = SequenceVAEConfig(
    vocabulary_size=V, embedding=4, encoder_hidden=3, decoder_hidden=5, latent=2, dropout=0.0, annealing="none", free_bits=0.0
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "language model": {"latent": 0},
    "two directions": {"bidirectional": True},
    "two layers": {"layers": 2, "dropout": 0.3},
    "fed to the input": {"feed": "input"},
    "fed to the output": {"feed": "output"},
    "fed at the start only": {"feed": "none"},
    "output layer of its own": {"tie_embeddings": False},
    "linear annealing": {"annealing": "linear", "annealing_steps": 10},
    "logistic annealing": {"annealing": "logistic", "annealing_steps": 10},
    "cyclical annealing": {"annealing": "cyclical", "annealing_steps": 10, "cycles": 2},
    "free bits by dimension": {"free_bits": 0.02},
    "free bits in total": {"free_bits": 0.02, "free_bits_in": "total"},
    "dropout": {"dropout": 0.4, "word_dropout": 0.4},
}
lengths = st.lists(st.integers(0, 6), min_size=1, max_size=4)


def sentences(sizes: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, V, n) for n in sizes]


def small(**changes: Any) -> SequenceVAE:
    return SequenceVAE(dataclasses.replace(SMALL, **changes), rng=1).to("float64")


def strong(seed: int = 0, **changes: Any) -> SequenceVAE:
    """A model in which z matters, and whose posteriors are not the prior; they are wide, so that importance weights are not extreme."""
    model = small(**changes)
    rng = np.random.default_rng(seed)
    for name, p in model.named_parameters():
        if not name.startswith("aggressive"):
            p.data[...] = (0.4 if "embedding" in name or "posterior" in name else 0.9) * rng.standard_normal(p.shape)
    if model.config.latent:
        model.posterior.bias.data[model.config.latent :] = 0.0  # type: ignore[union-attr]
    return model.eval()


def points(model: SequenceVAE, count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, model.config.latent))


def near(draws: np.ndarray, expected: Any) -> None:
    """The mean of independent draws (K, ...) is what is expected, to five standard errors."""
    assert (np.abs(draws.mean(0) - expected) <= 5 * draws.std(0) / np.sqrt(len(draws)) + 1e-12).all()


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=4)
@given(sizes=lengths)
def test_the_gradient_of_the_loss_is_its_derivative(variant: str, sizes: list[int]) -> None:
    model, batch = small(**VARIANTS[variant]), sentences(sizes)
    noise, state = points(model, len(batch)), model.rng_state()

    def loss(*_: Tensor) -> Tensor:
        model.set_rng_state(state)
        return model.loss(batch, step=3, noise=noise)

    gradcheck(loss, list(model.parameters()), directions=1, elementwise=8)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=8)
@given(sizes=lengths)
def test_teacher_forcing_gives_what_the_steps_give(variant: str, sizes: list[int]) -> None:
    model, batch = small(**VARIANTS[variant]).eval(), sentences(sizes)
    z, expected = points(model, len(batch)), []
    for n, sentence in enumerate(batch):
        state, total, token = model.start(z[n : n + 1]), 0.0, BOS
        for wanted in (*sentence, EOS):
            log_probs, state = model.step(np.array([token]), state)
            total, token = total + log_probs[0, wanted], int(wanted)
        expected.append(total)
    np.testing.assert_allclose(model.log_likelihood(batch, z), expected, rtol=1e-12)


@settings(max_examples=10)
@given(sizes=lengths)
def test_without_a_latent_it_is_an_lstm_language_model(sizes: list[int]) -> None:
    model, batch = small(latent=0), sentences(sizes)
    w = {name: array.astype(float) for name, array in model.state_dict().items()}

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    def log_p(sentence: np.ndarray) -> float:
        h, c, total = np.zeros(5), np.zeros(5), 0.0
        for before, word in zip([BOS, *sentence], [*sentence, EOS], strict=True):
            gates = w["decoder.weight_ih_l0"] @ w["embedding.weight"][before] + w["decoder.bias_ih_l0"]
            i, f, g, o = np.split(gates + w["decoder.weight_hh_l0"] @ h + w["decoder.bias_hh_l0"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            logits = w["output.weight"] @ np.tanh(w["readout.weight"] @ h + w["readout.bias"]) + w["output.bias"]
            total += logits[word] - np.log(np.exp(logits).sum())
        return total

    expected = [log_p(sentence) for sentence in batch]
    np.testing.assert_allclose(model.log_likelihood(batch), expected, rtol=1e-12)
    np.testing.assert_allclose(model.loss(batch, 7).item(), -np.mean(expected), rtol=1e-12)


def test_the_loss_is_the_mean_of_the_negative_elbo_at_the_same_noise() -> None:
    model, batch = strong(), sentences([3, 0, 5])
    found = model.elbo(batch, rng=4)
    loss = model.loss(batch, noise=np.random.default_rng(4).standard_normal((3, 2)))
    assert loss.item() == pytest.approx(-found.bound.mean(), rel=1e-12)


def exact_log_p(model: SequenceVAE, sentence: np.ndarray) -> float:
    """ln p(x) = ln E p(x | z), by Gauss-Hermite quadrature with 60 nodes in each dimension of z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    Z = model.config.latent
    z = np.stack([a.ravel() for a in np.meshgrid(*[nodes] * Z)], axis=1)
    mass = np.prod(np.meshgrid(*[weights] * Z), axis=0).ravel() / np.sqrt(2 * np.pi) ** Z
    return float(np.log(mass @ np.exp(model.log_likelihood([sentence] * len(z), z))))


@pytest.mark.parametrize("latent", [1, 2])
def test_the_importance_weighted_estimate_of_the_likelihood_is_unbiased_and_its_logarithm_a_bound(latent: int) -> None:
    model, batch, rng = strong(latent=latent), sentences([2, 0, 4]), np.random.default_rng(0)
    exact = np.array([exact_log_p(model, sentence) for sentence in batch])
    calls = {1: 1500, 10: 200, 1000: 20}
    bounds = {K: np.array([model.importance_weighted(batch, K, rng=rng) for _ in range(count)]) for K, count in calls.items()}
    for draws in bounds.values():
        near(np.exp(draws - exact), 1)
    error = {K: draws.std(0) / np.sqrt(len(draws)) for K, draws in bounds.items()}
    for fewer, more in ((1, 10), (10, 1000)):
        assert (bounds[fewer].mean(0) < bounds[more].mean(0) + 5 * error[fewer]).all()
    assert (bounds[1].mean(0) < exact - 3 * error[1]).all()
    near(bounds[1000], exact)


def test_the_gap_of_the_elbo_is_the_divergence_from_the_true_posterior() -> None:
    model, batch, rng = strong(latent=1), sentences([3]), np.random.default_rng(0)
    q = model.posteriors([batch])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = q.mean.numpy() + q.std.numpy() * nodes[:, None]  # (60, 1) nodes under q
    log_joint = model.log_likelihood(batch * 60, z) - 0.5 * z[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)
    log_posterior = log_joint - exact_log_p(model, batch[0])
    log_q = q.log_prob(z).numpy()
    divergence = weights @ (log_q - log_posterior) / weights.sum()
    assert divergence > 0.01
    near(np.array([exact_log_p(model, batch[0]) - model.elbo(batch, rng=rng).bound for _ in range(400)]), divergence)


def test_one_importance_sample_is_the_elbo_in_expectation_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = strong(), sentences([3, 1, 5])
    rng = np.random.default_rng(0)
    one = np.array([model.importance_weighted(batch, 1, rng=rng) for _ in range(300)])
    elbo = np.array([model.elbo(batch, rng=rng).bound for _ in range(300)])
    assert (np.abs(one.mean(0) - elbo.mean(0)) < 5 * np.sqrt((one.var(0) + elbo.var(0)) / 300)).all()
    together = model.importance_weighted(batch, 50, rng=1)
    monkeypatch.setattr("minirnn.models.vae_bounds.ROWS", 30)
    np.testing.assert_allclose(model.importance_weighted(batch, 50, rng=1), together, rtol=1e-12)


@pytest.mark.parametrize(
    ("annealing", "expected"),
    [
        ("none", [2, 2, 2, 2, 2, 2]),
        ("linear", [0, 0.25, 0.5, 1, 2, 2]),
        ("logistic", [2 / (1 + np.exp(6)), 2 / (1 + np.exp(4.5)), 2 / (1 + np.exp(3)), 1, 2, 2]),
        ("cyclical", [0, 1, 2, 0, 2, 2]),  # two cycles of 4 updates, the first half of each on the way up
    ],
)
def test_beta_follows_its_schedule(annealing: Any, expected: list[float]) -> None:
    config = SequenceVAEConfig(beta=2.0, annealing=annealing, annealing_steps=8, cycles=2, ramp=0.5)
    assert [config.beta_at(step) for step in (0, 1, 2, 4, 8, 100)] == pytest.approx(expected, rel=1e-12)


def test_the_loss_without_a_step_is_that_after_the_annealing() -> None:
    model, batch, noise = strong(annealing="linear", annealing_steps=10), sentences([3, 2]), np.ones((2, 2))
    start, middle, end, later = (model.loss(batch, step, noise).item() for step in (0, 5, 10, None))
    assert end == later
    assert middle == pytest.approx((start + end) / 2, rel=1e-12)


def test_free_bits_make_the_first_nats_free() -> None:
    kl = tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.2]], dtype=np.float64, requires_grad=True)  # means 0.2, 3, 0.1
    by_dimension, in_total = small(free_bits=0.5).price(kl), small(free_bits=5.0, free_bits_in="total").price(kl)
    assert by_dimension.item() == pytest.approx(0.5 + 3 + 0.5)
    assert in_total.item() == 5.0
    assert small(free_bits=3.0, free_bits_in="total").price(kl).item() == pytest.approx(3.3)
    assert small().price(kl).item() == pytest.approx(3.3)
    np.testing.assert_array_equal(grad(by_dimension, [kl])[0].numpy(), [[0, 0.5, 0]] * 2)
    np.testing.assert_array_equal(grad(in_total, [kl])[0].numpy(), np.zeros((2, 3)))


def test_words_are_withheld_from_the_decoder_alone_and_only_in_training() -> None:
    model = SequenceVAE(dataclasses.replace(SMALL, word_dropout=0.3), rng=0)
    seen: list[np.ndarray] = []
    lookup = model.embedding.forward
    model.embedding.forward = lambda ids: (seen.append(ids), lookup(ids))[1]  # type: ignore[func-returns-value]
    for k in range(40):
        model.loss(sentences([50], seed=k))
    assert all(ids[0] == BOS for ids in seen)
    assert np.mean([(ids[1:] == UNK).mean() for ids in seen]) == pytest.approx(0.3, abs=5 * 0.5 / np.sqrt(2000))
    seen.clear()
    model.eval().loss(sentences([50]))
    assert UNK not in seen[0]


def posteriors(means: Any, std: float) -> Gaussian:
    mean = np.asarray(means, float)
    return Gaussian(Tensor(mean), Tensor(np.full(mean.shape, np.log(std))))


def test_planted_posteriors_have_the_information_and_the_active_units_that_were_planted() -> None:
    from minirnn.models.vae_bounds import active_units, mutual_information

    collapsed = posteriors(np.zeros((700, 3)), 1.0)  # the prior for every sentence
    assert mutual_information(collapsed, rng=0) == pytest.approx(0, abs=1e-12)
    assert active_units(collapsed) == 0
    apart = posteriors(np.arange(700)[:, None] * [1.0, 0.0], 1e-3)
    assert mutual_information(apart, rng=0) == pytest.approx(np.log(700), rel=1e-12)
    assert active_units(apart) == 1
    barely = posteriors(np.random.default_rng(0).standard_normal((4000, 4)) * [0.05, 0.09, 0.11, 1.0], 1.0)
    assert active_units(barely) == 2


def test_mutual_information_is_the_integral() -> None:
    from minirnn.models.vae_bounds import mutual_information

    means, std = np.array([-1.0, 0.2, 1.5]), 0.7
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-0.5 * ((z - means[:, None]) / std) ** 2) / (std * np.sqrt(2 * np.pi))  # (3, 4001)
    integral = (density * np.log(density / density.mean(0))).sum(1).mean() * (z[1] - z[0])
    found = np.array([mutual_information(posteriors(means[:, None], std), samples=100, rng=seed) for seed in range(40)])
    near(found, integral)


def trained(model: SequenceVAE, batches: Callable[[int], list[np.ndarray]], steps: range, optimizer: Adam | None = None) -> Adam:
    optimizer = optimizer or Adam(model.named_parameters(), lr=1e-2)
    for step in steps:
        model.train().loss(batches(step), step).backward()
        optimizer.step(max_norm=5.0)
        optimizer.zero_grad()
    return optimizer


def echoes(step: int, count: int = 24) -> list[np.ndarray]:
    """Sentences of one word said one to four times: ln 5 + ln 4 nats each."""
    rng = np.random.default_rng([9, step])
    return [np.full(rng.integers(1, 5), rng.integers(4, V)) for _ in range(count)]


def test_it_learns_what_a_sentence_is_about() -> None:
    config = SequenceVAEConfig(
        V, 16, 24, 32, latent=4, dropout=0.0, word_dropout=0.5, annealing="linear", annealing_steps=100, free_bits=0.3
    )
    model = SequenceVAE(config, rng=0)
    trained(model, echoes, range(300))
    test = echoes(10**6, 200)
    words = np.concatenate([np.append(x, EOS) for x in test])
    unigram = np.log(np.bincount(words, minlength=V) / len(words) + 1e-12)
    baseline = np.array([unigram[x].sum() + unigram[EOS] for x in test])
    gain = model.importance_weighted(test, 50, rng=0) - baseline
    assert gain.mean() > 10 * gain.std() / np.sqrt(len(gain))
    q = model.posteriors([test])
    assert -np.mean(model.importance_weighted(test, 50, rng=0)) < 1.1 * (np.log(5) + np.log(4))
    again = model.reconstruct(test)
    assert np.mean([len(h.tokens) > 0 and h.tokens[0] == x[0] for h, x in zip(again, test, strict=True)]) > 0.95
    assert model.elbo(test, rng=0).kl.sum(1).mean() > 1
    from minirnn.models.vae_bounds import mutual_information

    assert mutual_information(q, rng=0) > 1


def test_training_ahead_changes_one_half_at_a_time_and_resumes_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minirnn.models.aggressive.WINDOW", 2)

    def state(model: SequenceVAE) -> dict[str, np.ndarray]:
        return {name: array for name, array in model.state_dict().items() if name != "aggressive.state"}

    def new() -> SequenceVAE:
        return SequenceVAE(dataclasses.replace(SMALL, aggressive=True, dropout=0.2), rng=0)

    model = new()
    assert model.aggressive is not None
    before, phases, optimizer = state(model), [], None
    for step in range(60):
        phase = model.aggressive.phase
        optimizer = trained(model, echoes, range(step, step + 1), optimizer)
        after = state(model)
        changed = {name for name in after if (after[name] != before[name]).any()}
        reading = {name for name in after if name.startswith(("encoder", "posterior"))}
        assert changed == (reading if phase == "encoder" else set(after) - reading)
        before = after
        phases.append(phase)
    assert phases[:4] == ["encoder"] * 4
    assert "decoder" in phases
    assert "both" not in phases

    twin = new()
    twin.load_state_dict(model.state_dict())
    twin.set_rng_state(model.rng_state())
    copy = Adam(twin.named_parameters(), lr=1e-2)
    assert optimizer is not None
    copy.load_state_dict(optimizer.state_dict())
    for one, its in ((model, optimizer), (twin, copy)):
        trained(one, echoes, range(60, 100), its)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name], err_msg=name)


def test_training_ahead_is_over_when_the_information_no_longer_rises() -> None:
    from minirnn.models.aggressive import CHECK, MOST, WINDOW, Aggressive

    def turns(losses: Callable[[int], float], information: Callable[[int], float]) -> tuple[list[int], int]:
        """How often the encoder was updated before each update of the decoder, and how many of these there were before the end."""
        ahead, rows, k = Aggressive(), [0], 0
        while ahead.phase != "both" and len(rows) < 5 * CHECK:
            if ahead.phase == "decoder":
                rows.append(0)
            else:
                rows[-1] += 1
            ahead.record(losses(k), 2, information(len(rows) // CHECK))
            k += 1
        return rows[:-1], len(rows) - 1

    rows, updates = turns(lambda k: 3.0, lambda window: [1.0, 2.0, 1.9][min(window, 2)])
    assert set(rows) == {2 * WINDOW}
    assert 2 * CHECK <= updates <= 3 * CHECK
    assert max(turns(lambda k: 1000.0 - k / 1000, lambda window: -window)[0]) == MOST


def test_evaluation_draws_from_its_own_generator_only() -> None:
    model, batch = small(dropout=0.4, word_dropout=0.4), sentences([4, 2])
    before = model.rng_state()
    model.elbo(batch, rng=0)
    model.importance_weighted(batch, 3, rng=0)
    model.sample(2, rng=0)
    model.reconstruct(batch)
    assert model.rng_state() == before
    assert model.training


def test_the_same_seed_gives_the_same_bits() -> None:
    def run(seed: int) -> list[np.ndarray]:
        model = SequenceVAE(dataclasses.replace(SMALL, dropout=0.3, word_dropout=0.3), rng=seed)
        trained(model, echoes, range(5))
        drawn = [h.tokens for h in model.sample(4, rng=seed, max_length=8)]
        return [*model.state_dict().values(), *drawn, model.importance_weighted(echoes(0), 5, rng=seed)]

    first, again, other = run(3), run(3), run(4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any()


def test_a_line_between_two_sentences_begins_and_ends_with_their_reconstructions() -> None:
    model, batch = strong(), sentences([3, 5])
    line = model.interpolate(batch[0], batch[1], 5)
    ends = model.reconstruct(batch)
    assert len(line) == 5
    assert [h.tokens.tolist() for h in (line[0], line[-1])] == [h.tokens.tolist() for h in ends]


def test_samples_are_drawn_from_the_joint_distribution() -> None:
    model = strong(latent=1)
    drawn = model.sample(4000, rng=0, max_length=1)  # one word at most, the end included
    empty = np.array([len(h.tokens) == 0 for h in drawn], float)
    near(empty, np.exp(exact_log_p(model, np.array([], int))))


def test_decoding_in_company_or_alone_is_the_same() -> None:
    model = strong()
    z = points(model, 4)
    for how in ("greedy", "beam"):
        together = model.decode(z, how, max_length=9)  # type: ignore[arg-type]
        alone = [model.decode(z[n : n + 1], how, max_length=9)[0] for n in range(4)]  # type: ignore[arg-type]
        assert [h.tokens.tolist() for h in together] == [h.tokens.tolist() for h in alone]
    beams, greedy = model.decode(z, "beam", beam=8, max_length=9), model.decode(z, max_length=9)
    assert all(b.log_prob >= g.log_prob - 1e-9 or b.finished > g.finished for b, g in zip(beams, greedy, strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_hidden": 0}, "decoder_hidden must be at least 1, got 0"),
        ({"latent": -1}, "latent must not be negative, got -1"),
        ({"free_bits": float("nan")}, "free_bits must not be negative, got nan"),
        ({"word_dropout": 1.0}, r"word_dropout must lie in \[0, 1\), got 1.0"),
        ({"ramp": 0.0}, r"ramp must lie in \(0, 1\], got 0.0"),
        ({"feed": "nowhere"}, "feed must be one of input, output, both, none, got 'nowhere'"),
        ({"annealing": "steep"}, "annealing must be one of none, linear, logistic, cyclical, got 'steep'"),
    ],
)
def test_a_configuration_that_cannot_be_built_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, lm: lm.encode(sentences([2])), "this model has latent=0, it is a language model without an encoder"),
        (lambda m, lm: m.log_likelihood(sentences([2])), r"this model has latent=2, say at which z \(N, 2\)"),
        (lambda m, lm: m.decode(np.zeros((3, 5))), r"z must be \(B, Z\) with Z = latent = 2, got \(3, 5\)"),
        (lambda m, lm: m.decode(np.zeros((3, 2)), "best"), 'how must be "greedy", "sample" or "beam", got \'best\''),
        (lambda m, lm: m.interpolate(*sentences([2, 3]), steps=1), "steps must be at least 2, the two ends, got 1"),
        (lambda m, lm: m.importance_weighted(sentences([2]), 0), "samples must be at least 1, got 0"),
        (lambda m, lm: m.loss([]), "no sequences"),
    ],
)
def test_a_call_that_makes_no_sense_says_why(call: Callable[..., Any], words: str) -> None:
    with pytest.raises(ValueError, match=words), no_grad():
        call(small(), small(latent=0))
