"""Truncated back-propagation through time in the training loop: a batch is several updates, one for each chunk of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minirnn.device import to_device
from minirnn.errors import MinirnnError
from minirnn.models.chunks import Chunk, Reader, State, chunks
from minirnn.tensor import Tensor
from minirnn.training.checkpoint import TrainingState
from minirnn.training.task import Task, TrainingOptions

CAN = "what can: ssm with --set model=lstm, vae with --set latent=0, and seq2seq, whose decoder does"


class Chunked:
    """Where the reading of a task's batches stands: at chunk `state.chunk` of batch `state.batch`, before which the state is `carried`.

    Raises MinirnnError for a task that cannot read in chunks.
    """

    def __init__(self, task: Task[Any, Any], options: TrainingOptions) -> None:
        why, steps = task.why_whole(), options.chunk_steps
        assert steps is not None
        if why is not None:
            raise MinirnnError(f"bptt={options.bptt}: {task.name} {why} and cannot be trained in chunks; {CAN}")
        self.task, self.steps = task, steps
        self.carried: State = None
        self._after: State = None
        self._place = (-1, -1)  # epoch and batch that are being read
        self._reader: Reader
        self._chunks: list[Chunk]

    def next(self, batch: Any, state: TrainingState) -> tuple[int, Callable[[], Tensor]] | None:
        """What the next update learns from: its size, and what computes its loss. None where it is the whole batch, of few steps."""
        if self._place != (state.epoch, state.batch):
            self._place, self._reader = (state.epoch, state.batch), self.task.reader(batch)
            self._chunks = chunks(self._reader.T, *self.steps)
        state.chunks = len(self._chunks)
        if state.chunks == 1:
            return None
        chunk = self._chunks[state.chunk]

        def loss() -> Tensor:
            found, self._after = self._reader.loss(chunk, self.carried)
            return found

        return self._reader.size(chunk), loss

    def advance(self, state: TrainingState) -> None:
        """The update has been made: `state.chunk` is the next one, 0 after the last of a batch."""
        self.carried, self._after = (self._after if state.chunk else None), None

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """What a checkpoint holds of it."""
        return {str(k): to_device(s, "cpu") for k, s in enumerate(self.carried or ())}

    def load(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.carried = tuple(Tensor(arrays[name]).to(self.task.device).data for name in sorted(arrays)) or None
