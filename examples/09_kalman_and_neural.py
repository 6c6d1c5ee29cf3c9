r"""
Kalman against the neural model
===============================

Both are state-space models: a hidden :math:`z_t` moves by itself, and :math:`x_t` is what is seen of it. If all is linear and Gaussian,

.. math::

    z_t = A z_{t-1} + B \varepsilon_t \qquad x_t = C z_t + D \psi_t

then the Kalman filter (1960) gives :math:`\ln p(x_1..x_T)` exactly. The neural model has networks in place of the matrices and an LSTM that
remembers; it is trained and judged by a lower bound. On these two data sets the truth is known:

*Linear*: a point that circles, seen through three noisy projections. No model beats the filter that knows A, B, C and D. How close a learnt
one comes depends on its posterior: *smoothing*, which looks at :math:`z_{t-1}` and at what is to come, can be exact; *filtering*, which
draws each :math:`z_t` from the past of x alone, cannot (Krishnan et al. 2017).

*Switch*: a lamp that is on or off, flips with probability 0.1 and is seen through noise. To a linear model that is a mean and a covariance;
a neural one can learn that there is nothing between on and off. The forward algorithm for hidden Markov models has the exact likelihood.
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.data.sources import lgssm
from minirnn.training.pictures import COLORS, figure, save

T, N, UPDATES, POINTS, FLIP, NOISE = 20, 16, 600, 10, 0.1, 0.3


def linear(count, rng):
    return lgssm.simulate(count, T, rng)  # (count, T, 3)


def switch(count, rng):
    lamp = (rng.random((count, T)) < np.r_[0.5, np.full(T - 1, FLIP)]).cumsum(1) % 2
    return (2.0 * lamp - 1 + NOISE * rng.standard_normal((count, T)))[:, :, None]  # (count, T, 1)


def forward_algorithm(x):
    """ln p(x_1..x_T) (N,) of switches, and the probability of "on" given x_1..x_t (N, T) (Rabiner 1989)."""
    density = np.exp(-(((x - [-1, 1]) / NOISE) ** 2) / 2) / (NOISE * np.sqrt(2 * np.pi))  # (N, T, 2)
    state, total, on = np.full((len(x), 2), 0.5), 0.0, []
    for t in range(T):
        joint = density[:, t] * (state if t == 0 else state @ [[1 - FLIP, FLIP], [FLIP, 1 - FLIP]])  # p(x_t, z_t | x_<t)
        state, total = joint / joint.sum(1, keepdims=True), total + np.log(joint.sum(1))
        on.append(state[:, 1])
    return total, np.stack(on, 1)


# %%
# The neural model learns from new series at every update. The weight of its KL rises to 1 over a tenth of them, without which some seeds
# leave z unused, as in the chapter before. What is kept of the training is the bound on series that it never sees.


def learn(draw, posterior, held_out):
    sizes = {"observed": held_out.shape[2], "latent": 2, "hidden": 16, "encoder_hidden": 16, "combiner": 16, "emission_hidden": 16}
    config = mr.models.NeuralSSMConfig(posterior=posterior, annealing=UPDATES // 10, **sizes)
    model, rng, curve = mr.models.NeuralSSM(config, rng=0), np.random.default_rng(0), []
    model.start_from(list(draw(N, rng)))
    optimizer = mr.optim.Adam(model.parameters())
    for update in range(UPDATES):
        optimizer.lr = 0.02 * min(1.0, (update + 1) / 30) * (1 + np.cos(np.pi * update / UPDATES)) / 2
        loss = model.loss(list(draw(N, rng)), update)
        optimizer.zero_grad()
        loss.backward()
        mr.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (update + 1) % (UPDATES // POINTS) == 0:
            curve.append(model.log_likelihood(list(held_out), 4, 0).mean() / T)
    return model, curve


# %%
# Linear: how far the bounds are below the exact log-likelihood. The second one is that of 32 particles (FIVO, Maddison et al. 2017).

rng, matrices, gaps = np.random.default_rng(1), lgssm.parameters(), {}
seen, start = linear(200, rng), {"mean": matrices.pop("m0"), "covariance": matrices.pop("P0")}
exact = mr.models.LinearGaussianSSM.from_matrices(**matrices, **start).log_likelihood(seen).mean() / T
print(f"linear: exact log-likelihood {exact:.3f} nats per step")
for posterior in ("filtering", "smoothing"):
    model, curve = learn(linear, posterior, seen)
    gaps[posterior], particles = exact - np.array(curve), exact - model.log_likelihood(list(seen), 32, 0, "fivo").mean() / T
    print(f"    {posterior} posterior: ELBO {gaps[posterior][-1]:.3f} below it, bound of 32 particles {particles:.3f} below it")
    assert 0 < particles < gaps[posterior][-1] + 0.01  # both are estimates, of 200 series
assert gaps["smoothing"][-1] < 0.7 * gaps["filtering"][-1]

# %%
# Switch. The linear model is fitted by EM, and its likelihood is exact; of the neural model only a bound is known.

truth, on = forward_algorithm(seen := switch(200, rng))
(fitted := mr.models.LinearGaussianSSM(mr.models.LinearGaussianConfig(2, 1), rng=0)).em(switch(400, rng), 50)
kalman, (neural, curve) = fitted.log_likelihood(seen).mean() / T, learn(switch, "smoothing", seen)
print(f"switch: exact {truth.mean() / T:.3f}, linear model {kalman:.3f}, neural model at least {curve[-1]:.3f} nats per step")
assert kalman + 0.2 < curve[-1] < truth.mean() / T

# %%
# The picture: training against the truth, and what each model makes of one lamp.

left, right, below = (picture := figure(9, 6)).subplot_mosaic("AB;CC").values()
updates, steps = np.linspace(UPDATES / POINTS, UPDATES, POINTS), np.arange(1, T + 1)
for (posterior, gap), color in zip(gaps.items(), COLORS, strict=False):
    left.plot(updates, gap, "o-", color=color, label=f"{posterior} posterior")
left.set(title="linear", xlabel="updates", ylabel="exact - ELBO, nats per step", ylim=(0, 0.6))
right.plot(updates, curve, "o-", color=COLORS[1], label="neural, ELBO")
right.axhline(truth.mean() / T, color="black", label="exact")
right.axhline(kalman, color=COLORS[2], label="linear, fitted")
right.set(title="switch", xlabel="updates", ylabel="log-likelihood, nats per step", ylim=(kalman - 0.1, None))
below.plot(steps, seen[0, :, 0], "o", color="0.6", label="seen")
below.plot(steps, 2 * on[0] - 1, color="black", label="exact filter")
below.plot(steps, fitted.observe(*fitted.filter(seen[:1])[2:4])[0][0, :, 0], color=COLORS[2], label="linear model's filter")
below.plot(steps, neural.filter(seen[0], 200, 0).observation[:, 0], "--", color=COLORS[1], label="neural model's filter")
below.set(title="one lamp, filtered", xlabel="time step", xticks=steps)
for axes in (left, right, below):
    axes.legend(frameon=False)
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
