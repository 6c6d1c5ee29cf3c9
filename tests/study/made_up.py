"""Examples for the page without a model: the numbers are drawn, and agree with each other as a model's would.

States follow from the gates by the LSTM's equations, norms are norms of the gradients beside them, nothing that comes after a loss step has
a gradient of it, and rows of attention add up to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.study.example import Array, Attention, Axis, Example, Layer, Row, Steps

GERMAN = ["ein", "kleiner", "Hund", "rennt", "am", "Strand", "entlang", "."]
ENGLISH = ["a", "small", "dog", "runs", "along", "the", "beach", "."]


def layer(name: str, axis: str, T: int, H: int, last: Array, rng: np.random.Generator, *, reverse: bool = False, **more: Any) -> Layer:
    """An LSTM. last: (L + 1,) time step from which each loss step's gradient comes: later in the layer's order of reading there is none."""
    order = np.arange(T)[::-1] if reverse else np.arange(T)
    spread = rng.normal(0, 1.5, (4, H))[:, None] + rng.normal(0, 1, (4, T, H)) + np.array([0, 1.5, 0, 0])[:, None, None]
    i, f, o = (1 / (1 + np.exp(-spread[k])) for k in (0, 1, 3))
    g, c = np.tanh(spread[2]), np.zeros((T, H))
    before = np.zeros(H)
    for t in order:
        c[t] = before = f[t] * before + i[t] * g[t]
    age = (last[:, None] - np.arange(T)) * (-1 if reverse else 1)  # (L + 1, T) steps that the gradient has come back
    fading = np.where(age < 0, 0, 0.1 * 0.75 ** np.maximum(age, 0))[..., None]
    dh, dc = (fading * rng.normal(0, 1, (len(last), T, H)) for _ in range(2))
    norms = {"dh": np.linalg.norm(dh, axis=-1), "dc": np.linalg.norm(dc, axis=-1)}
    norms |= {weight: norms["dh"] * rng.uniform(0.5, 2, (len(last), T)) for weight in ("w_ih", "w_hh", "b")}
    gates = {"i": i, "f": f, "g": g, "o": o}
    return Layer(
        name=name,
        cell="lstm",
        axis=axis,
        reverse=reverse,
        forward=gates | {"c": c, "h": o * np.tanh(c)},
        backward={"dh": dh, "dc": dc},
        norms=norms,
        saturation={gate: saturation(gate, values) for gate, values in gates.items()},
        **more,
    )


def saturation(gate: str, values: Array) -> Array:
    """(T, 2) the shares of units near 0 and near 1, or near -1 and near 1 of g."""
    low = -0.95 if gate == "g" else 0.05
    return np.stack([(values < low).mean(-1), (values > 0.95).mean(-1)], -1)


def history(rng: np.random.Generator, rows: int = 60) -> dict[str, list[Row]]:
    steps = 25 * np.arange(1, rows + 1)
    loss = 6 * np.exp(-steps / 400) + 0.4 + rng.normal(0, 0.05, rows)
    norm = np.exp(rng.normal(0, 0.3, rows)) * (1 + steps / 500)
    train = [
        dict(zip(("step", "loss", "norm", "lr"), row, strict=True)) for row in zip(steps.tolist(), loss, norm, 1e-3 / steps, strict=True)
    ]
    valid = [{"step": row["step"], "loss": row["loss"] * 1.1, "bleu": 60 * (1 - np.exp(-row["step"] / 500))} for row in train[9::10]]
    return {"train": train, "valid": valid}


def translator(source: list[str] = GERMAN, target: list[str] = ENGLISH, H: int = 12, seed: int = 0) -> Example:
    """A bidirectional encoder and a decoder with attention."""
    rng = np.random.default_rng(seed)
    T, L = len(source), len(target)
    read, said = np.full(L + 1, T - 1), np.array([L - 1, *range(L)])
    weights = rng.dirichlet(np.ones(T) / 2, L)
    influence = rng.gamma(1.0, 0.02, (L + 1, T))
    return Example(
        title="A translator, looked into",
        text=f"{' '.join(source)} → {' '.join(target)}",
        model="seq2seq",
        run="runs/made-up",
        version="0",
        inputs=[Axis("source", "tokens", source)],
        outputs=Steps(target, rng.gamma(0.5, 1.0, L), [word if rng.random() < 0.8 else "cat" for word in target], whole=0.75),
        layers=[
            layer("encoder.l0", "source", T, H, read, rng),
            layer("encoder.l0_reverse", "source", T, H, 0 * read, rng, reverse=True),
            layer("decoder.l0", "output", L, H, said, rng, starts_from=("encoder.l0", "encoder.l0_reverse")),
        ],
        influence={"source": influence},
        attention=[Attention("attention", "source", weights)],
        history=history(rng),
    )


def captioner(grid: tuple[int, int] = (6, 6), caption: str = "a black dog runs through the grass .", H: int = 24, seed: int = 0) -> Example:
    """Patches of a picture, looked at with attention by a decoder."""
    rng = np.random.default_rng(seed)
    words, (rows, columns) = caption.split(), grid
    L, S = len(words), 96
    y, x = np.mgrid[0:S, 0:S] / S
    picture = np.stack([0.4 + 0.4 * y, 0.6 - 0.2 * y + 0.05 * np.sin(40 * x), 0.9 - 0.7 * y])
    picture[:, np.hypot(x - 0.45, y - 0.6) < 0.18] = [[0.15], [0.12], [0.1]]
    centre = np.stack([rng.uniform(1, rows - 2, L), rng.uniform(1, columns - 2, L)])[:, :, None]
    places = np.stack(np.divmod(np.arange(rows * columns), columns))[:, None]
    weights = np.exp(-((places - centre) ** 2).sum(0) / 2)
    weights /= weights.sum(1, keepdims=True)
    labels = [f"row {k // columns + 1}, column {k % columns + 1}" for k in range(rows * columns)]
    return Example(
        title="A captioner, looked into",
        text=caption,
        model="captioner",
        run="runs/made-up",
        version="0",
        inputs=[Axis("picture", "patches", labels, image=(255 * picture.clip(0, 1)).astype(np.uint8), grid=grid)],
        outputs=Steps(words, rng.gamma(0.5, 1.0, L), words),
        layers=[layer("decoder.l0", "output", L, H, np.array([L - 1, *range(L)]), rng)],
        influence={"picture": np.concatenate([weights.mean(0, keepdims=True), weights]) * rng.uniform(0.01, 0.02, (L + 1, rows * columns))},
        attention=[Attention("attention", "picture", weights)],
        history=history(rng),
    )


def forecaster(T: int = 40, D: int = 2, H: int = 32, seed: int = 0) -> Example:
    """A series, of which one value is missing, each frame of which is foretold from those before it."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(0, 1, (T, D)), 0)
    values[T // 3, 0] = np.nan
    steps = np.array([T - 1, *range(T)])
    influence = np.where(np.arange(T) <= steps[:, None], 0.85 ** np.abs(steps[:, None] - np.arange(T)), 0)
    return Example(
        title="A model of a series, looked into",
        text="A series and how well each of its frames was foretold",
        model="ssm",
        run="runs/made-up",
        version="0",
        inputs=[Axis("series", "series", [str(1900 + t) for t in range(T)], values=values)],
        outputs=Steps([str(1901 + t) for t in range(T)], rng.gamma(2.0, 0.5, T)),
        layers=[layer("l0", "series", T, H, steps, rng)],
        influence={"series": influence * rng.uniform(0.5, 1, (T + 1, T))},
        history=history(rng),
    )
