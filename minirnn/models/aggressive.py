"""Aggressive training of an encoder: it stays close to the true posterior while the decoder is still young (He et al. 2019, algorithm 1).

    while aggressive:
        update the encoder alone, until the mean loss of 10 updates is no lower than that of the 10 before (at most 100 updates)
        update the decoder alone, once
    then both at once, as always

It ends when the mutual information of x and z, averaged over 100 updates of the decoder, is lower than over the 100 before.
He et al. measure it on the validation data, once in an epoch; here it comes from the training batches themselves.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from minirnn.device import beside
from minirnn.nn.module import Module, Parameter

WINDOW = 10  # updates of the encoder that are averaged
MOST = 100  # updates of the encoder in a row
CHECK = 100  # updates of the decoder between two looks at the mutual information
NONE = -1.0  # no earlier mean to compare with

Phase = Literal["encoder", "decoder", "both"]


class Aggressive(Module):
    """Whose turn it is.

    All that it knows is in `state`, a parameter that nothing learns: it is saved with the weights, and a resumed run goes on where the
    other one stopped. Its elements: the turn (0 encoder, 1 decoder, 2 over); updates of the encoder in a row, loss and words of the last
    few, their mean loss the window before; updates of the decoder since the last look, their information, and what it was at that look.

    The host decides whose turn it is, and so every update waits for a device: for the state, and for what `record` is told.
    """

    def __init__(self) -> None:
        self.state = Parameter(np.array([0, 0, 0, 0, NONE, 0, 0, NONE], np.float64))
        self.state.requires_grad = False

    @property
    def phase(self) -> Phase:
        """Which half the next update is for."""
        return ("encoder", "decoder", "both")[int(self.state.numpy()[0])]

    def record(self, loss: float, words: int, information: float) -> None:
        """What an update found: the loss summed over its batch, the words there, and the mutual information of its posteriors."""
        turn, updates, total, count, before, looks, gathered, known = self.state.numpy().tolist()
        if turn == 0:
            updates, total, count = updates + 1, total + loss, count + words
            if updates % WINDOW == 0:
                turn = 1 if updates >= MOST or NONE < before <= total / count else 0
                total, count, before = 0.0, 0, total / count
        elif turn == 1:
            turn, updates, total, count, before = 0, 0, 0.0, 0, NONE
            looks, gathered = looks + 1, gathered + information
            if looks == CHECK:
                turn = 2 if gathered / CHECK < known else 0
                looks, gathered, known = 0, 0.0, gathered / CHECK
        state = np.array([turn, updates, total, count, before, looks, gathered, known], np.float64)
        self.state.data[...] = beside(state, self.state.data)
