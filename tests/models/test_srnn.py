"""SRNN: what its layers may see, its residual posterior, and that its latent layer earns something."""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.models import SRNN, AutoregressiveConfig, AutoregressiveLSTM, SRNNConfig
from minirnn.optim import Adam

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def small(**changes: Any) -> Any:
    sizes: dict[str, Any] = {"observed": 2, "latent": 2, "hidden": 4, "encoder_hidden": 3, "combiner": 3, "emission_hidden": 3}
    return SRNN(SRNNConfig(**{**sizes, **changes}), rng=1).to("float64")


def test_the_deterministic_layer_sees_the_past_and_the_posterior_the_future() -> None:
    model, x = small(), np.random.default_rng(0).standard_normal((6, 2))
    changed = x.copy()
    changed[3] += 1
    (past, _), (other, _) = (model._listen(model._frames([series])) for series in (x, changed))
    np.testing.assert_array_equal(past.data[:4], other.data[:4])  # d_4, the fifth, is the first that has seen x_3
    assert (past.data[4:] != other.data[4:]).all()
    hints, moved = (model._evidence(model._frames([series])).hints.data for series in (x, changed))
    assert (hints[:4] != moved[:4]).all()


def test_without_a_correction_the_posterior_has_the_prior_s_mean() -> None:
    model = small()
    model.posterior.weight.data[...] = 0
    model.posterior.bias.data[...] = 0
    evidence = model._evidence(model._frames([np.ones((4, 2))]))
    path = model._trajectory(evidence, np.ones((4, 2)))
    np.testing.assert_array_equal(path.posterior.mean.data, path.prior.mean.data)
    np.testing.assert_allclose(path.z.data, path.prior.mean.data + 1, rtol=1e-12)  # of standard deviation e^0


def test_a_forecast_goes_on_where_the_layers_are() -> None:
    """With no chance left in z, the mean of the next frame follows from d_t alone: by the whole series, and by one step more."""
    model = small()
    model.prior.weight.data[...] = 0
    model.prior.bias.data[...] = [0.3, -0.2, -40, -40]  # z = (0.3, -0.2) always
    x = np.random.default_rng(0).standard_normal((5, 2))
    frames = model._frames([np.concatenate([x, [[0, 0]]])])
    d = model._listen(frames)[0].data[5, :4]
    z = np.array([[0.3, -0.2]])
    p = model.emission(model._features(type(model.initial)(z), type(model.initial)(np.concatenate([d, np.zeros(3)])[None])))
    ahead = model.forecast(x, 1, 20000, 0)[:, 0]
    assert (np.abs(ahead.mean(0) - p.mean.data[0]) < 4 * ahead.std(0) / np.sqrt(len(ahead))).all()


def twins(rng: np.random.Generator) -> list[Numbers]:
    """Two bits that are new in every frame, and always alike: ln 2 nats per frame, 2 ln 2 for who takes them to be independent."""
    return list(rng.integers(2, size=(32, 10, 1)).repeat(2, 2).astype(float))


def test_it_learns_what_the_elements_of_a_frame_have_to_do_with_each_other() -> None:
    nats = {}
    baseline = AutoregressiveLSTM(AutoregressiveConfig(observed=2, observation="binary", hidden=8), rng=0)
    model = SRNN(
        SRNNConfig(observed=2, observation="binary", latent=1, hidden=8, encoder_hidden=8, combiner=8, emission_hidden=8, annealing=100),
        rng=0,
    )
    for name, learner in (("baseline", baseline), ("srnn", model)):
        rng = np.random.default_rng(0)
        optimizer = Adam(learner.parameters(), lr=0.02)
        for step in range(250):
            loss = learner.loss(twins(rng), step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        nats[name] = -learner.log_likelihood(twins(rng), 16, 0, "iwae") / 10  # (32,)
    gain = nats["baseline"] - nats["srnn"]
    assert gain.mean() > 0.3
    assert gain.mean() > 10 * gain.std() / np.sqrt(len(gain))
    assert nats["srnn"].mean() > np.log(2) - 0.02
    assert nats["baseline"].mean() > 2 * np.log(2) - 0.02
