r"""
Teacher forcing and exposure bias
=================================

A decoder models :math:`p(y_1..y_L | x) = \prod_l p(y_l | y_{<l}, x)`. In training it is given the reference as :math:`y_{<l}`: *teacher
forcing* (Williams and Zipser 1989). All steps are then known at once, the loss is the exact log-likelihood, and it learns fast. At test
nobody gives it the reference; it reads its own predictions, mistakes included, which it has never seen in training. That is *exposure bias*
(Ranzato et al. 2016). How much does it cost?

The task here is copying: a walk of 10 steps on a ring of 12 symbols, each one up or one down, goes through an encoder and must come out
again. There is no attention and little room in the state between the two, so remembering is hard. What is right at a position never depends
on what was said before it, but the symbol before gives a lot away: one of its two neighbours follows. A decoder under teacher forcing can
lean on that, because what it is given is never wrong.

*Scheduled sampling* (Bengio et al. 2015) mixes the model's own predictions into what it is given, more and more of them. Here as two
parallel passes (Mihaylova and Martins 2019): the first, under teacher forcing, gives the predictions that go into the second.
"""

import sys
from pathlib import Path

import numpy as np

import minirnn as mr
from minirnn.data.batches import TranslationBatch
from minirnn.training.pictures import COLORS, figure, save

RING, L, N, UPDATES, FIRST = 12, 10, 64, 300, 4  # FIRST: the numbers below it are marks, such as the beginning


def walks(count, rng):
    """(count, L)"""
    moves = rng.choice([-1, 1], (count, L)).cumsum(1)
    return (rng.integers(RING, size=(count, 1)) + moves) % RING + FIRST


def logits(model, source, given):
    """What the decoder says of each position when it reads `given` (N, L): (L, N, V)."""
    rows = model.logits(TranslationBatch(list(source), list(given)))  # packed: position by position, the end mark last
    return rows.reshape(L + 1, len(source), -1)[:L]


def predictions(model, source, given):
    with mr.no_grad():
        return logits(model, source, given).numpy().argmax(2).T  # (N, L)


# %%
# Training. ``mixing`` is the share of given symbols that are the model's own at the end; it grows from zero. 0 is teacher forcing.


def train(mixing, seed):
    rng = np.random.default_rng(seed)
    sizes = {"embedding": 16, "encoder_hidden": 48, "decoder_hidden": 48, "bidirectional": False, "attention": "none", "dropout": 0.0}
    model = mr.models.Seq2Seq(mr.models.Seq2SeqConfig(RING + FIRST, RING + FIRST, **sizes), rng=seed)
    optimizer = mr.optim.Adam(model.parameters())
    for update in range(UPDATES):
        optimizer.lr = 5e-3 * min(1.0, update / 50) * (1 + np.cos(np.pi * update / UPDATES)) / 2
        y = given = walks(N, rng)
        if mixing:
            given = np.where(rng.random(y.shape) < mixing * update / UPDATES, predictions(model, y, y), y)
        loss = mr.ops.cross_entropy(logits(model, y, given).reshape(L * N, -1), y.T.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        mr.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


# %%
# Three ways of asking the same model, by position: given the reference; on its own, symbol by symbol; and given the reference with one
# planted mistake, the other neighbour at one position. What follows the mistake shows how far the decoder trusts what it is told.

PLANTED = 3


def on_its_own(model, source):
    given = np.full(source.shape, FIRST)
    for position in range(L):  # depends on what is given before it alone
        given[:, position] = predictions(model, source, given)[:, position]
    return given


def errors(model, y):
    wrong = y.copy()
    wrong[:, PLANTED] = (2 * y[:, PLANTED - 1] - y[:, PLANTED] - FIRST) % RING + FIRST
    ways = predictions(model, y, y), on_its_own(model, y), predictions(model, y, wrong)
    return [(found != y).mean(0) for found in ways]  # (L,) each


judged = walks(1000, np.random.default_rng(99))
found = {name: errors(train(mixing, seed=0), judged) for name, mixing in (("teacher forcing", 0.0), ("scheduled sampling", 1.0))}
print("share of wrong symbols       given the reference   on its own   after a planted mistake  without")
for name, (given, own, wrong) in found.items():
    print(f"{name:<25} {given.mean():>20.1%} {own.mean():>12.1%} {wrong[PLANTED + 1 :].mean():>25.1%} {given[PLANTED + 1 :].mean():>9.1%}")

# %%
# Under teacher forcing the model does far worse on its own. Not all of that is a bias: the reference *tells* the decoder something, and on
# its own it has to do without. But one planted mistake, after which everything given is right again, spoils what follows too. A decoder
# that has seen mistakes in training believes less, and recovers better; it pays for that where it is given the truth.

(given, own, wrong), (given_mixed, own_mixed, wrong_mixed) = found.values()
assert (own - given).mean() > 1.3 * (own_mixed - given_mixed).mean() > 0
assert (wrong - given)[PLANTED + 2 :].mean() > (wrong_mixed - given_mixed)[PLANTED + 2 :].mean() > 0

picture = figure(10, 4)
left, right = picture.subplots(1, 2, sharey=True)
for (name, (given, own, wrong)), color in zip(found.items(), COLORS, strict=False):
    for axes, rates, how in ((left, own, "on its own"), (right, wrong, "given the reference with one mistake")):
        axes.plot(range(1, L + 1), rates, "o-", color=color, label=f"{name}, {how}")
        axes.plot(range(1, L + 1), given, "o--", color=color, label=f"{name}, given the reference", markerfacecolor="white")
        axes.set(xlabel="position", xticks=range(1, L + 1), title=how)
right.axvline(PLANTED + 1, color="0.5", linewidth=1)
right.text(PLANTED + 0.9, 0.5, "mistake", ha="right", color="0.4")
left.set_ylabel("share of wrong symbols")
left.legend(frameon=False)
save(picture, Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
