"""Distributions against SciPy and PyTorch, against sums over all outcomes, against averages of draws, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, grad, ops, tensor
from minirnn.distributions import Bernoulli, Categorical, Gaussian, standard_normal, standard_normal_kl
from minirnn.study import gradcheck

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4))


def leaf(shape: tuple[int, ...], seed: int) -> Tensor:
    return tensor(np.random.default_rng(seed).standard_normal(shape), dtype=np.float64, requires_grad=True)


def gaussian(shape: tuple[int, ...], seed: int) -> Gaussian:
    return Gaussian(leaf(shape, seed), 0.5 * leaf(shape, seed + 100))


def near(draws: np.ndarray, expected: Any) -> None:
    """The mean of independent draws (K, ...) is what is expected, to five standard errors."""
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - expected) <= 5 * error + 1e-12).all()


@given(shape=shapes)
def test_gaussian_density_and_entropy_are_scipys(shape: tuple[int, ...]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="compares with SciPy")
    p, x = gaussian(shape, 0), leaf(shape, 5).numpy()
    theirs = stats.norm(p.mean.numpy(), np.exp(p.log_std.numpy()))
    np.testing.assert_allclose(p.log_prob(x).numpy(), theirs.logpdf(x).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(p.entropy().numpy(), theirs.entropy().sum(-1), rtol=1e-12)


@given(shape=shapes)
def test_every_closed_form_is_pytorchs(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from torch.distributions import kl_divergence

    def theirs(kind: Any, *parameters: Tensor) -> Any:
        return kind(*[torch.tensor(p.numpy()) for p in parameters])

    p, q = gaussian(shape, 0), gaussian(shape, 1)
    normal = [theirs(torch.distributions.Normal, d.mean, d.std) for d in (p, q)]
    np.testing.assert_allclose(p.kl(q).numpy(), kl_divergence(*normal).sum(-1), rtol=1e-10)
    b, c = Bernoulli(3 * leaf(shape, 2)), Bernoulli(3 * leaf(shape, 3))
    coins = [theirs(lambda x: torch.distributions.Bernoulli(logits=x), d.logits) for d in (b, c)]
    np.testing.assert_allclose(b.kl(c).numpy(), kl_divergence(*coins).sum(-1), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(b.entropy().numpy(), coins[0].entropy().sum(-1), rtol=1e-10)
    d, e = Categorical(3 * leaf(shape, 2)), Categorical(3 * leaf(shape, 3))
    classes = [theirs(lambda x: torch.distributions.Categorical(logits=x), d.logits) for d in (d, e)]
    np.testing.assert_allclose(d.kl(e).numpy(), kl_divergence(*classes), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(d.entropy().numpy(), classes[0].entropy(), rtol=1e-10, atol=1e-14)


def test_gaussian_draws_have_the_mean_the_entropy_and_the_divergence_that_the_formulas_say() -> None:
    p, q = gaussian((2, 3), 0), gaussian((2, 3), 1)
    noise = np.random.default_rng(0).standard_normal((20000, 2, 3))
    z = p.sample(noise)  # (K, 2, 3)
    near(z.numpy(), p.mean.numpy())
    near((z.numpy() - p.mean.numpy()) ** 2, p.std.numpy() ** 2)
    near(-p.log_prob(z).numpy(), p.entropy().numpy())
    near((p.log_prob(z) - q.log_prob(z)).numpy(), p.kl(q).numpy())
    near((p.log_prob(z) - standard_normal((3,), np.float64).log_prob(z)).numpy(), standard_normal_kl(p).numpy())


def test_bernoulli_sums_over_all_outcomes() -> None:
    p, q = Bernoulli(2 * leaf((3,), 0)), Bernoulli(2 * leaf((3,), 1))
    x = np.array(list(np.ndindex(2, 2, 2)), float)  # (8, 3)
    mass = np.exp(p.log_prob(x).numpy())
    assert mass.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(mass @ x, p.mean.numpy(), rtol=1e-12)
    assert -mass @ p.log_prob(x).numpy() == pytest.approx(p.entropy().item(), rel=1e-12)
    assert mass @ (p.log_prob(x) - q.log_prob(x)).numpy() == pytest.approx(p.kl(q).item(), rel=1e-12)


def test_categorical_sums_over_all_classes_one_of_them_excluded() -> None:
    excluded = np.array([0, 0, -np.inf, 0])
    p, q = Categorical(leaf((4,), 0) + excluded), Categorical(leaf((4,), 1) + excluded)
    log_p, log_q = (ops.log_softmax(d.logits).numpy() for d in (p, q))
    mass = np.exp(log_p)
    there = mass > 0
    assert [p.log_prob(np.array(k)).item() for k in (0, 1, 3)] == pytest.approx(log_p[there].tolist(), rel=1e-12)
    assert -mass[there] @ log_p[there] == pytest.approx(p.entropy().item(), rel=1e-12)
    assert mass[there] @ (log_p[there] - log_q[there]) == pytest.approx(p.kl(q).item(), rel=1e-12)
    assert Categorical(leaf((4,), 2)).kl(p).item() == np.inf


def test_coins_and_classes_are_drawn_as_often_as_they_should() -> None:
    rng = np.random.default_rng(0)
    coins = Bernoulli(leaf((4,), 0))
    near(np.array([coins.sample(rng) for _ in range(4000)]), coins.mean.numpy())
    classes = Categorical(leaf((2, 3), 1))
    drawn = np.array([classes.sample(rng) for _ in range(4000)])  # (K, 2)
    near(drawn[..., None] == np.arange(3), classes.probs.numpy())


DIFFERENTIABLE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "gaussian log_prob": lambda a, b: Gaussian(a, b).log_prob(np.ones(a.shape)),
    "gaussian log_prob of a Tensor": lambda a, b: Gaussian(b, a).log_prob(a * b),
    "gaussian sample": lambda a, b: Gaussian(a, b).sample(np.random.default_rng(0).standard_normal((5, *a.shape))),
    "gaussian entropy": lambda a, b: Gaussian(a, b).entropy(),
    "gaussian kl": lambda a, b: Gaussian(a, b).kl(Gaussian(b, a)),
    "gaussian kl to the standard normal": lambda a, b: standard_normal_kl(Gaussian(a, b)),
    "bernoulli log_prob": lambda a, b: Bernoulli(a * b).log_prob(np.eye(*a.shape)),
    "bernoulli entropy": lambda a, b: Bernoulli(a * b).entropy(),
    "bernoulli kl": lambda a, b: Bernoulli(a).kl(Bernoulli(b)),
    "categorical log_prob": lambda a, b: Categorical(a * b).log_prob(np.arange(len(a))),
    "categorical entropy": lambda a, b: Categorical(a * b).entropy(),
    "categorical kl": lambda a, b: Categorical(a).kl(Categorical(b)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_derivatives(name: str) -> None:
    gradcheck(DIFFERENTIABLE[name], [leaf((3, 4), 0), leaf((3, 4), 1)])


def test_the_gradient_of_a_mean_over_draws_is_the_gradient_of_the_expectation() -> None:
    p = gaussian((3,), 0)
    noise = np.random.default_rng(1).standard_normal((20000, 3))
    (by_mean,) = grad((p.sample(noise) ** 2).sum() / 20000, [p.mean])  # E z^2 = mean^2 + std^2
    error = 2 * p.std.numpy() / np.sqrt(20000)
    assert (np.abs(by_mean.numpy() - 2 * p.mean.numpy()) < 5 * error).all()


def test_a_distribution_does_not_diverge_from_itself_and_terms_add_up() -> None:
    p, q = gaussian((2, 3), 0), gaussian((2, 3), 1)
    np.testing.assert_allclose(p.kl(p).numpy(), 0, atol=1e-15)
    np.testing.assert_allclose(p.kl_terms(q).numpy().sum(-1), p.kl(q).numpy(), rtol=1e-15)
    np.testing.assert_allclose(standard_normal_kl(p).numpy(), p.kl(standard_normal((2, 3), np.float64)).numpy(), rtol=1e-12)
    np.testing.assert_allclose(standard_normal_kl(p, by_dimension=True).numpy().sum(-1), standard_normal_kl(p).numpy(), rtol=1e-12)


def test_a_scale_that_is_shared_counts_for_every_vector() -> None:
    shared, wide = Gaussian(leaf((4, 3), 0), leaf((3,), 1)), Gaussian(leaf((4, 3), 0), leaf((3,), 1) + np.zeros((4, 1)))
    np.testing.assert_array_equal(shared.entropy().numpy(), wide.entropy().numpy())
    np.testing.assert_array_equal(standard_normal_kl(shared).numpy(), standard_normal_kl(wide).numpy())
    assert shared.sample(rng=0).shape == (4, 3)


def test_extreme_logits_give_finite_numbers_and_gradients() -> None:
    logits = tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    coins, classes = Bernoulli(logits), Categorical(logits)
    for value in (coins.log_prob(np.float32([[0, 1, 1]])), coins.entropy(), coins.kl(coins), classes.entropy(), classes.kl(classes)):
        (slope,) = grad(value.sum(), [logits])
        assert np.isfinite(value.numpy()).all()
        assert np.isfinite(slope.numpy()).all()


def test_the_same_seed_draws_the_same_and_another_something_else() -> None:
    for p in (gaussian((8, 8), 0), Bernoulli(leaf((8, 8), 0)), Categorical(leaf((8, 8), 0))):
        first, again, other = (np.asarray(getattr(x, "data", x)) for x in (p.sample(rng=1), p.sample(rng=1), p.sample(rng=2)))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
