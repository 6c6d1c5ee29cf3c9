"""A model taken apart: what the page shows is what one gets by hand, from a loop over single steps with gradients of its own for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minirnn as mr
from minirnn.models import Captioner, CaptionerConfig, NeuralSSM, NeuralSSMConfig, Seq2Seq, Seq2SeqConfig, SequenceVAE, SequenceVAEConfig
from minirnn.models.terms import Terms
from minirnn.nn import Module, Packed
from minirnn.study import examine as examining
from minirnn.study.examine import Subject, examine, influences
from minirnn.study.example import Axis, Example
from tests import devices

SOURCE, TARGET = np.array([4, 7, 4, 5, 6]), np.array([6, 4, 8])


class ByHand(Module):
    """An LSTM layer after layer and step after step, for one sequence: every step has a copy of the weights, and zeros are added to
    every state, so that the gradient of each of these is the step's own. `own[name]` holds them, in the order of the input."""

    def __init__(self, lstm: Any, T: int) -> None:
        self.lstm, self.own = lstm, dict[str, dict[str, Any]]()
        for layer in range(lstm.num_layers):
            for suffix in lstm._suffixes(layer):
                w_ih, w_hh, b_ih, b_hh = (w.numpy() for w in lstm._weights(suffix))
                copies = {"w_ih": w_ih, "w_hh": w_hh, "b": b_ih + b_hh}
                added = {name: np.zeros(lstm.hidden_size) for name in ("dh", "dc")}
                self.own[suffix[1:]] = {
                    name: [mr.tensor(array.copy(), requires_grad=True) for _ in range(T)] for name, array in (copies | added).items()
                }

    def forward(self, x: Packed, first: Any = None) -> Any:
        T, H, rows = x.packing.T, self.lstm.hidden_size, x.rows
        last: list[list[Any]] = [[], []]
        for layer in range(self.lstm.num_layers):
            outputs = []
            for suffix in self.lstm._suffixes(layer):
                own, order = self.own[suffix[1:]], range(T)[::-1] if suffix.endswith("reverse") else range(T)
                k = len(last[0])
                h, c = (mr.tensor(np.zeros(H)) if first is None else s[k, 0] for s in first or (None, None))
                states: list[Any] = [None] * T
                for t in order:
                    z = own["w_ih"][t] @ rows[t] + own["w_hh"][t] @ h + own["b"][t]
                    i, f, g, o = (z[j * H : (j + 1) * H] for j in range(4))
                    c = mr.ops.sigmoid(f) * c + mr.ops.sigmoid(i) * g.tanh() + own["dc"][t]
                    h = mr.ops.sigmoid(o) * c.tanh() + own["dh"][t]
                    states[t] = h
                outputs.append(mr.ops.stack(states))
                for states_, state in zip(last, (h, c), strict=True):
                    states_.append(state.reshape(1, 1, H))
            rows = mr.ops.concatenate(outputs, axis=1)
        h_n, c_n = (mr.ops.concatenate(states) for states in last)
        return Packed(rows, x.packing), (h_n, c_n)


def double(model: Any) -> Any:
    return model.to("float64").eval()


def words(ids: Any) -> list[str]:
    return [f"w{k}" for k in ids]


def translator(**options: Any) -> tuple[Seq2Seq, Subject]:
    sizes: dict[str, Any] = {"source_size": 9, "target_size": 10, "embedding": 5, "encoder_hidden": 4, "decoder_hidden": 6, "layers": 2}
    model = double(Seq2Seq(Seq2SeqConfig(**{**sizes, **options}), rng=0))
    return model, Subject(
        title="t",
        text="x",
        model="seq2seq",
        terms=lambda: model.terms(SOURCE, TARGET),
        inputs={"source": Axis("source", "tokens", words(SOURCE)), "target": Axis("words before", "tokens", words([1, *TARGET]))},
        output="translation",
        labels=words([*TARGET, 2]),
        say=words,
        under={"encoder": "source", "decoder": "translation"},
        starts={"decoder": "encoder"},
    )


def vae() -> tuple[SequenceVAE, Subject]:
    config = SequenceVAEConfig(vocabulary_size=9, embedding=5, encoder_hidden=4, decoder_hidden=6, latent=2)
    model = double(SequenceVAE(config, rng=0))
    axes = {"read": Axis("sentence", "tokens", words([*SOURCE, 2])), "written": Axis("words before", "tokens", words([1, *SOURCE]))}
    return model, Subject(
        title="t",
        text="x",
        model="vae",
        terms=lambda: model.terms(SOURCE, rng=0),
        inputs=axes,
        output="written",
        labels=[*words([*SOURCE, 2]), "KL"],
        say=words,
        under={"encoder": "sentence", "decoder": "words before"},
        starts={"decoder": "encoder"},
    )


def captioner() -> tuple[Captioner, Subject]:
    config = CaptionerConfig(vocabulary_size=10, picture_size=18, channels=4, grid_features=6, embedding=5, hidden=7)
    model, image = double(Captioner(config, rng=0)), np.random.default_rng(0).integers(0, 256, (3, 18, 18), np.uint8)
    side = model.encoder.side
    return model, Subject(
        title="t",
        text="x",
        model="captioner",
        terms=lambda: model.terms(image, TARGET),
        inputs={
            "picture": Axis("picture", "patches", [str(k) for k in range(side**2)], image=image, grid=(side, side)),
            "caption": Axis("words before", "tokens", words([1, *TARGET])),
        },
        output="caption",
        labels=words([*TARGET, 2]),
        say=words,
        under={"decoder": "caption"},
    )


def by_hand(model: Any, subject: Subject, modules: dict[str, int]) -> dict[str, dict[str, Any]]:
    """For every layer and quantity the gradients of the whole loss and of each term: (L + 1, T, ...)."""
    hands = {}
    for name, T in modules.items():
        hands[name] = ByHand(getattr(model, name), T)
        setattr(model, name, hands[name])
    losses = subject.terms().losses
    found: dict[str, dict[str, Any]] = {}
    for name, hand in hands.items():
        for part, own in hand.own.items():
            found[f"{name}.{part}"] = {quantity: [] for quantity in own}
            for quantity, tensors in own.items():
                for loss in (losses.sum(), *losses):
                    grads = mr.grad(loss, tensors, retain_graph=True, allow_unused=True)
                    rows = [np.zeros(t.shape) if g is None else g.numpy() for g, t in zip(grads, tensors, strict=True)]
                    found[f"{name}.{part}"][quantity].append(rows)
    return {layer: {quantity: np.array(rows) for quantity, rows in own.items()} for layer, own in found.items()}


@pytest.mark.parametrize(
    ("make", "modules"),
    [
        (translator, {"encoder": 5, "decoder": 4}),
        (lambda: translator(bidirectional=False, attention="none"), {"encoder": 5, "decoder": 4}),
        (vae, {"encoder": 6, "decoder": 6}),
        (captioner, {"decoder": 4}),
    ],
)
def test_every_gradient_is_the_one_by_hand(make: Any, modules: dict[str, int]) -> None:
    model, subject = make()
    example = examine(subject, "runs/x")
    expected = by_hand(model, subject, modules)
    assert [layer.name for layer in example.layers] == list(expected)
    for layer in example.layers:
        own = expected[layer.name]
        for name in ("dh", "dc"):
            np.testing.assert_allclose(layer.backward[name], own[name], rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(layer.norms[name], np.linalg.norm(own[name], axis=-1), rtol=1e-10, atol=1e-14)
        for name in ("w_ih", "w_hh", "b"):
            norms = np.sqrt((own[name].reshape(*own[name].shape[:2], -1) ** 2).sum(-1))
            np.testing.assert_allclose(layer.norms[name], norms, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("make", [translator, vae, captioner])
def test_the_terms_add_up(make: Any) -> None:
    """The whole loss is the sum of its terms, and so is its gradient at every state."""
    _, subject = make()
    example = examine(subject)
    assert example.outputs.whole == pytest.approx(example.outputs.losses.sum(), rel=1e-12)
    for layer in example.layers:
        for gradient in layer.backward.values():
            np.testing.assert_allclose(gradient[0], gradient[1:].sum(0), rtol=1e-10, atol=1e-14)
            assert gradient[0].any()


def test_an_influence_is_the_norm_of_the_gradient_at_an_input() -> None:
    _, subject = translator()
    example, terms = examine(subject), subject.terms()
    for entry in range(len(terms.losses) + 1):
        loss = terms.losses.sum() if entry == 0 else terms.losses[entry - 1]
        for key, axis in subject.inputs.items():
            (found,) = mr.grad(loss, terms.inputs[key], retain_graph=True)
            np.testing.assert_allclose(example.influence[axis.name][entry], np.linalg.norm(found.numpy(), axis=1), rtol=1e-10)
    assert not np.triu(example.influence["words before"][1:], 1).any()  # a word is not made by those after it


def test_a_picture_counts_by_patches() -> None:
    gradient = np.random.default_rng(0).standard_normal((1, 3, 7, 7))
    axis = Axis("picture", "patches", list("abcdefghi"), image=np.zeros((3, 7, 7), np.uint8), grid=(3, 3))
    found = influences(gradient, axis).reshape(3, 3)
    cuts = [slice(0, 2), slice(2, 4), slice(4, 7)]
    for row in range(3):
        for column in range(3):
            assert found[row, column] == pytest.approx(np.linalg.norm(gradient[..., cuts[row], cuts[column]]), rel=1e-12)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(gradient), rel=1e-12)


def test_what_the_model_did_is_there() -> None:
    model, subject = translator()
    example, terms = examine(subject, "runs/x"), subject.terms()
    np.testing.assert_allclose(example.outputs.losses, terms.losses.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(example.attention[0].weights, terms.attention)
    assert list(example.outputs.predicted) == words(terms.predicted)
    decoder = example.layers[-1]
    assert decoder.starts_from == ["encoder.l1", "encoder.l1_reverse"]
    assert [layer.reverse for layer in example.layers] == [False, True, False, True, False, False]
    states, _ = model.decoder(model._shifted([TARGET]), model._encode(model._read([SOURCE]))[2:])
    np.testing.assert_allclose(decoder.forward["h"], states.rows.numpy(), rtol=1e-12)
    i, f, g, c = (decoder.forward[name] for name in ("i", "f", "g", "c"))
    np.testing.assert_allclose(c[1:], f[1:] * c[:-1] + i[1:] * g[1:], atol=1e-12)


def test_what_would_be_large_is_kept_for_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, subject = translator()
    whole = examine(subject)
    monkeypatch.setattr(examining, "BYTES", 3 * sum(8 * layer.forward["h"].size for layer in whole.layers))
    short = examine(subject)
    assert short.note == "Gradients by unit are kept for the whole loss and 2 of 4 loss steps, norms for all."
    for layer, complete in zip(short.layers, whole.layers, strict=True):
        assert list(layer.parts or ()) == [0, 1, 4]
        assert complete.parts is None
        for name in ("dh", "dc"):
            np.testing.assert_array_equal(layer.backward[name], complete.backward[name][[0, 1, 4]])
            np.testing.assert_array_equal(layer.norms[name], complete.norms[name])


def test_a_layer_that_reads_from_the_end_is_shown_in_the_order_of_the_series() -> None:
    config = NeuralSSMConfig(observed=2, latent=2, hidden=5, encoder_hidden=4, combiner=3, emission_hidden=3, posterior="smoothing")
    model, x = double(NeuralSSM(config, rng=0)), np.random.default_rng(0).standard_normal((6, 2))
    frames = [str(t) for t in range(6)]
    subject = Subject(
        title="t",
        text="x",
        model="ssm",
        terms=lambda: model.terms(x, rng=0),
        inputs={"series": Axis("series", "series", frames, values=x)},
        output="expected",
        labels=frames,
        expect=lambda predicted: 2 * predicted,
        under={"encoder": "series", "transition": "expected"},
    )
    example = examine(subject)
    np.testing.assert_array_equal(example.inputs[0].expected, 2 * subject.terms().predicted)
    layer = next(layer for layer in example.layers if layer.name == "encoder.l0")
    assert layer.reverse
    states = model.encoder(mr.tensor(x[::-1].copy()))[0].numpy()[::-1]
    np.testing.assert_allclose(layer.forward["h"], states, rtol=1e-12)
    for entry in range(7):  # its last step reads the first frame, and only there all of q is known
        assert layer.norms["dh"][entry].any()


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    _, subject = captioner()
    example: Example = examine(subject, progress=lambda done, of: told.append((done, of)))
    assert told == [(k, len(example.outputs) + 1) for k in range(1, len(example.outputs) + 2)]


def test_a_model_without_attention_has_none() -> None:
    _, subject = translator(attention="none")
    assert examine(subject).attention == []


@devices.NEEDED
def test_on_a_device_it_is_the_same() -> None:
    model, subject = translator(layers=1)
    model.to("float32")
    here = examine(subject)
    model.to(devices.DEVICE)
    there = examine(subject)
    for a, b in zip(here.layers, there.layers, strict=True):
        for name, norm in a.norms.items():
            np.testing.assert_allclose(b.norms[name], norm, rtol=1e-4, atol=1e-7)  # float32, sums in another order
    np.testing.assert_allclose(there.attention[0].weights, here.attention[0].weights, rtol=1e-5)
    np.testing.assert_allclose(there.influence["source"], here.influence["source"], rtol=1e-4, atol=1e-7)


def test_one_word_is_enough() -> None:
    model, subject = translator()
    one = [np.array([4]), np.array([5])]
    axes = {"source": Axis("source", "tokens", ["w4"]), "target": Axis("words before", "tokens", ["w1", "w5"])}

    def terms() -> Terms:
        return model.terms(*one)

    example = examine(Subject("t", "x", "seq2seq", terms, axes, "translation", ["w5", "w2"], subject.under))
    assert example.influence["source"].shape == (3, 1)
