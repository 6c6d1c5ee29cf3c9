"""Make the reference vectors in reference/: what PyTorch's layers compute, so that the tests need no PyTorch.

    python tests/nn/make_reference.py

Each file is one layer in float64: how it was made (`about`, JSON), its weights (`state.*`), inputs (`input.*`), outputs (`output.*`),
the cotangents of the outputs (`cotangent.*`), and the gradients of sum(output * cotangent) (`grad.input.*`, `grad.state.*`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FOLDER = Path(__file__).parent / "reference"


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def recurrent(layer: Any, x: torch.Tensor, states: list[torch.Tensor], lengths: list[int] | None) -> list[torch.Tensor]:
    state = None if not states else tuple(states) if len(states) > 1 else states[0]
    if lengths is None:
        output, last = layer(x, state)
    else:
        first = layer.batch_first
        packed, last = layer(pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False), state)
        output, _ = pad_packed_sequence(packed, first, total_length=x.shape[1 if first else 0])
    return [output, *(last if isinstance(last, tuple) else [last])]


def cell(layer: Any, x: torch.Tensor, states: list[torch.Tensor], lengths: None) -> list[torch.Tensor]:
    after = layer(x, (tuple(states) if len(states) > 1 else states[0]) if states else None)
    return list(after) if isinstance(after, tuple) else [after]


def plain(layer: Any, x: torch.Tensor, states: list[torch.Tensor], lengths: None) -> list[torch.Tensor]:
    return [layer(x)]


def make(
    name: str,
    kind: str,
    arguments: dict[str, Any],
    x: torch.Tensor,
    states: tuple[int, ...] | None = None,
    lengths: list[int] | None = None,
) -> None:
    """Run torch.nn's `kind(**arguments)` on x; `states` is the shape of the first states, if they are not left out."""
    layer = getattr(torch.nn, kind)(**arguments).double()
    for p in layer.parameters():  # no zeros, no ones: every term must count
        p.data += 0.1 * normal(*p.shape)
    if arguments.get("padding_idx") is not None:
        layer.weight.data[arguments["padding_idx"]] = 0
    first = [normal(*states) for _ in range(2 if "LSTM" in kind else 1)] if states else []
    inputs = [t.requires_grad_() for t in (x, *first) if t.is_floating_point()]
    run = cell if kind.endswith("Cell") else recurrent if kind in ("LSTM", "GRU", "RNN") else plain
    outputs = run(layer, x, first, lengths)
    cotangents = [normal(*y.shape) for y in outputs]
    torch.autograd.backward(outputs, cotangents)
    arrays = {"about": np.array(json.dumps({"layer": kind, "arguments": arguments, "lengths": lengths, "torch": torch.__version__}))}
    for prefix, named in (
        ("state", layer.state_dict()),
        ("input", dict(enumerate([x, *first]))),
        ("output", dict(enumerate(outputs))),
        ("cotangent", dict(enumerate(cotangents))),
        ("grad.input", {k: t.grad for k, t in enumerate(inputs)}),
        ("grad.state", {key: p.grad for key, p in layer.named_parameters()}),
    ):
        arrays |= {f"{prefix}.{key}": t.detach().numpy() for key, t in named.items()}
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def main() -> None:
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    make("linear", "Linear", {"in_features": 4, "out_features": 3}, normal(2, 5, 4))
    make("linear_without_bias", "Linear", {"in_features": 4, "out_features": 1, "bias": False}, normal(6, 4))
    ids = torch.tensor([[3, 1, 3], [0, 6, 3]])
    make("embedding", "Embedding", {"num_embeddings": 7, "embedding_dim": 2}, ids)
    make("embedding_padding", "Embedding", {"num_embeddings": 7, "embedding_dim": 2, "padding_idx": 3}, ids)
    make("conv2d", "Conv2d", {"in_channels": 2, "out_channels": 3, "kernel_size": 3}, normal(2, 2, 5, 4))
    options = {"kernel_size": [2, 3], "stride": [2, 1], "padding": [1, 2], "dilation": [1, 2], "groups": 2, "bias": False}
    make("conv2d_options", "Conv2d", {"in_channels": 4, "out_channels": 2, **options}, normal(2, 4, 5, 6))
    make("max_pool2d", "MaxPool2d", {"kernel_size": 2, "stride": 1, "padding": 1}, normal(2, 3, 5, 4))
    make("layer_norm", "LayerNorm", {"normalized_shape": 5}, normal(3, 2, 5))
    make("layer_norm_two_axes", "LayerNorm", {"normalized_shape": [4, 5], "eps": 0.01}, normal(3, 4, 5))
    sizes = {"input_size": 4, "hidden_size": 3}
    deep = {**sizes, "num_layers": 2, "bidirectional": True}
    for kind, extra in (("LSTM", {}), ("GRU", {}), ("RNN", {}), ("RNN", {"nonlinearity": "relu"})):
        name = kind.lower() + "".join(f"_{value}" for value in extra.values())
        make(name, kind, {**sizes, **extra}, normal(5, 2, 4))
        make(f"{name}_deep", kind, {**deep, **extra}, normal(6, 4, 4), (4, 4, 3), [3, 6, 1, 5])
        make(f"{name}_batch_first", kind, {**deep, **extra, "batch_first": True, "bias": False}, normal(3, 6, 4), (4, 3, 3), [2, 2, 5])
        make(f"{name}_alone", kind, {**deep, **extra}, normal(4, 4), (4, 3))
        make(f"{name}_cell", f"{kind}Cell", {**sizes, **extra}, normal(3, 4), (3, 3))
    make("group_norm", "GroupNorm", {"num_groups": 2, "num_channels": 6}, normal(3, 6, 4, 5))
    make("group_norm_plain", "GroupNorm", {"num_groups": 3, "num_channels": 3, "eps": 0.01, "affine": False}, normal(2, 3, 7))


if __name__ == "__main__":
    main()
