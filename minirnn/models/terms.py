"""What a model says of one example term by term: what its loss is the sum of, and what each term was computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from minirnn.device import Array
from minirnn.tensor import Tensor


class Terms(NamedTuple):
    """One example at work, on one tape: `minirnn.grad(terms.losses[l], terms.inputs[name])` says what an input did to a term.

    losses     (L,) nats; their sum is minus the log-likelihood of the example, or minus the bound on it
    inputs     what the model was given, by name, as Tensors on the tape: embedded words (T, E), values (T, D), a picture (1, 3, S, S)
    predicted  what the model expected at each term: the most probable word (L,), or the mean of the values (L, D);
               nothing for a KL that comes last
    attention  (L, T) where each term looked; None for a model without attention
    """

    losses: Tensor
    inputs: Mapping[str, Tensor]
    predicted: Array
    attention: Array | None = None
