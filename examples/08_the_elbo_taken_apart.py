r"""
The ELBO taken apart
====================

A variational auto-encoder of sentences (Bowman et al. 2016) maximises a lower bound of :math:`\ln p(x)`:

.. math::

    ELBO = \underbrace{E_q \ln p(x | z)}_{-D} - \underbrace{E\, KL(q(z | x) \| p(z))}_{R} \qquad R = I(x; z) + KL(q(z) \| p(z))

D, the distortion, is what the decoder has to pay for a sentence once it knows z; R, the rate, is what z costs. The rate has two parts
(Hoffman and Johnson 2016): what z says about x, and how far the codes of all sentences together are from the prior, which buys nothing.
Since no code is shorter than the entropy H of the data, D + R cannot fall below H (Alemi et al. 2018).

Here H is known: there are 64 sentences, equally likely, three words with four choices each. H = ln 64, and every mean over sentences is
taken over all of them. A decoder that reads its own words reaches H without z, so at :math:`\beta = 1` nothing is gained by using z, and it
is not used: *posterior collapse*. A discount on the rate, :math:`\beta < 1`, buys codes; free bits (Kingma et al. 2016) give some away.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.models.vae_bounds import active_units, mutual_information
from minirnn.training.pictures import COLORS, figure, save

PLACES, CHOICES, Z, UPDATES, FIRST = 3, 4, 4, 300, 4  # FIRST: the numbers below it are marks
sentences = [np.array(words) + FIRST + CHOICES * np.arange(PLACES) for words in itertools.product(range(CHOICES), repeat=PLACES)]
entropy = np.log(len(sentences))

# %%
# Training: minibatches of sentences, the same for every setting.


def train(beta, free_bits):
    sizes = {"embedding": 16, "encoder_hidden": 32, "decoder_hidden": 32, "latent": Z, "dropout": 0.0}
    config = mr.models.SequenceVAEConfig(FIRST + PLACES * CHOICES, beta=beta, free_bits=free_bits, annealing="none", **sizes)
    model, rng = mr.models.SequenceVAE(config, rng=0), np.random.default_rng(0)
    optimizer = mr.optim.Adam(model.parameters())
    for update in range(UPDATES):
        optimizer.lr = 1e-2 * (1 + np.cos(np.pi * update / UPDATES)) / 2
        loss = model.loss([sentences[k] for k in rng.integers(len(sentences), size=64)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# %%
# The parts, in nats per sentence. The bound of Burda et al. (2016) averages K importance weights inside the logarithm: K = 1 is the ELBO,
# and it grows with K towards ln p(x), whatever q is. A unit is active if its mean moves with x.

found, rng = {}, np.random.default_rng(1)
print("setting                D      R  =  I(x; z) + KL(q(z) || p(z))   -ELBO   -bound K = 10   K = 100   active units")
for beta, free_bits in ((0.03, 0.0), (0.1, 0.0), (0.3, 0.0), (1.0, 0.0), (1.0, 1.0)):
    model, name = train(beta, free_bits), f"β = {beta:g}" + (", free bits" if free_bits else "")
    q, parts = model.posteriors([sentences]), [model.elbo(sentences, rng=rng) for _ in range(50)]
    D, kl = -np.mean([part.reconstruction for part in parts]), parts[0].kl.mean(0)  # (Z,)
    information, R, active = mutual_information(q, samples=50, rng=rng), kl.sum(), active_units(q)
    bounds = [-model.importance_weighted(sentences, K, rng=rng).mean() for K in (10, 100)]
    found[name] = D, information, R - information, kl, bounds
    rest, bound = R - information, D + R
    print(f"{name:<18} {D:6.2f} {R:6.2f} {information:9.2f} {rest:15.2f} {bound:15.2f} {bounds[0]:11.2f} {bounds[1]:11.2f} {active:9}")
    assert entropy - 0.02 < bounds[1] < bounds[0] + 0.02 < bound + 0.04  # expectations are estimated: 50 draws for each sentence
    assert information < entropy + 0.02
print(f"{'entropy H':<18} {entropy:6.2f}")
rates = [kl.sum() for _, _, _, kl, _ in found.values()]
assert rates[0] > rates[1] > rates[2] > 1 > 0.01 > rates[3]  # the last one has collapsed

# %%
# The picture. Left, what a sentence costs, and where the tighter bounds of K = 10 and 100 samples stand. Right, the rate by dimension.

picture = figure(9, 4)
left, right = picture.subplots(1, 2, width_ratios=[3, 2], sharey=True)
places, names = np.arange(len(found)), ("distortion D", "I(x; z)", "KL(q(z) || p(z))")
for k, (name, color) in enumerate(zip(names, (COLORS[0], COLORS[4], COLORS[1]), strict=True)):
    parts = [cost[k] for cost in found.values()]
    left.barh(places, parts, left=[sum(cost[:k]) for cost in found.values()], color=color, label=name)
for K, marker in ((0, "<"), (1, "D")):
    left.plot([cost[4][K] for cost in found.values()], places, marker, color="black", label=f"bound, K = {(10, 100)[K]}")
left.axvline(entropy, color="black", linewidth=1)
left.text(entropy + 0.2, 3, "entropy H = ln 64", va="center")
left.set(xlabel="nats per sentence", yticks=places, yticklabels=found)
left.invert_yaxis()
picture.legend(loc="outside upper center", ncols=5, frameon=False)
kls = np.array([cost[3] for cost in found.values()])
right.imshow(kls, cmap="Oranges", aspect="auto", vmin=0, vmax=2.5)
for (y, x), value in np.ndenumerate(kls):
    right.text(x, y, f"{value:.2f}", ha="center", va="center")
right.set(xlabel="KL by dimension of z, nats", xticks=range(Z))
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
