"""One epoch of the translator against an equivalent PyTorch model, on the same batches from the same weights, in one process.

    python -m minirnn.bench.translation [--data multi30k] [--rounds 3] [--batches 0] [--json]

Both models are Luong's: a bidirectional LSTM encoder 2 x 128, a decoder of 256 units with general attention, embeddings of 256, dropout
0.3, batches of 64 pairs of similar length, Adam at 1e-3, gradients clipped to norm 1. Before anything is timed, the two losses on the same
weights must agree to float32 accuracy. The rounds alternate; each is a pass over the batches, and their median and all of them are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from minirnn.data import TranslationBatch
from minirnn.data.vocabulary import BOS, EOS
from minirnn.errors import MinirnnError
from minirnn.models import Seq2Seq
from minirnn.optim import Adam
from minirnn.training.task import DataArguments
from minirnn.training.tasks.translation import TranslationConfig, TranslationTask

LR, CLIP = 1e-3, 1.0


def torch_twin(model: Seq2Seq) -> Any:
    """The same model in PyTorch, with the same weights under the same names: `loss(batch)`."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

    c = model.config

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source_embedding = nn.Embedding(c.source_size, c.embedding)
            self.target_embedding = nn.Embedding(c.target_size, c.embedding)
            self.encoder = nn.LSTM(c.embedding, c.encoder_hidden, c.layers, bidirectional=c.bidirectional)
            self.decoder = nn.LSTM(c.embedding, c.decoder_hidden, c.layers)
            self.bridge_h = nn.Linear(c.encoder_features, c.decoder_hidden)
            self.bridge_c = nn.Linear(c.encoder_features, c.decoder_hidden)
            self.attention = nn.ModuleDict({"query": nn.Linear(c.decoder_hidden, c.encoder_features, bias=False)})
            self.readout = nn.Linear(c.decoder_hidden + c.encoder_features, c.decoder_hidden)
            self.output = nn.Linear(c.decoder_hidden, c.target_size)
            self.dropout = nn.Dropout(c.dropout)

        def loss(self, batch: TranslationBatch) -> Any:
            lengths = torch.tensor([len(s) for s in batch.source])
            source = pad_sequence([torch.from_numpy(s) for s in batch.source])  # (T, N)
            given = pad_sequence([torch.tensor([BOS, *y]) for y in batch.target])  # (L, N)
            wanted = pad_sequence([torch.tensor([*y, EOS]) for y in batch.target], padding_value=-1)
            packed = pack_padded_sequence(self.dropout(self.source_embedding(source)), lengths, enforce_sorted=False)
            outputs, (h, cell) = self.encoder(packed)
            memory = pad_packed_sequence(outputs)[0].transpose(0, 1)  # (N, T, D)
            N = len(lengths)
            v, w = (s.reshape(c.layers, -1, N, c.encoder_hidden).permute(0, 2, 1, 3).reshape(c.layers, N, -1) for s in (h, cell))
            start = (torch.tanh(self.bridge_h(v)), self.bridge_c(w))
            states = self.decoder(self.dropout(self.target_embedding(given)), start)[0].transpose(0, 1)  # (N, L, H)
            scores = self.attention["query"](states) @ memory.transpose(1, 2)  # (N, L, T)
            padding = torch.arange(memory.shape[1]) >= lengths[:, None]  # (N, T)
            context = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1) @ memory  # (N, L, D)
            attended = torch.tanh(self.readout(torch.cat((states, context), -1)))
            logits = self.output(self.dropout(attended))
            return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.T.flatten(), ignore_index=-1)

    twin = Twin()
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    return twin


def torch_steps(twin: Any) -> Callable[[Sequence[TranslationBatch]], None]:
    """A pass over batches: loss, gradients, clipping and update of each."""
    import torch

    optimizer = torch.optim.Adam(twin.parameters(), lr=LR)

    def run(batches: Sequence[TranslationBatch]) -> None:
        for batch in batches:
            optimizer.zero_grad()
            twin.loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), CLIP)
            optimizer.step()

    return run


def our_steps(model: Seq2Seq) -> Callable[[Sequence[TranslationBatch]], None]:
    optimizer = Adam(model.named_parameters(), lr=LR)

    def run(batches: Sequence[TranslationBatch]) -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step(max_norm=CLIP)

    return run


def compare(data: str = "multi30k", data_dir: str | None = None, rounds: int = 3, most: int = 0) -> dict[str, Any]:
    """Seconds per pass of both, their ratio, and the two losses before training."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    task = TranslationTask.build(TranslationConfig(dropout=0.3, label_smoothing=0.0), DataArguments(data, data_dir), seed=0)
    batches = [task.numbers(b) for b in task.batches(0, np.random.default_rng(0))][: most or None]
    twin = torch_twin(task.model)
    task.model.eval()
    twin.eval()
    ours, theirs = task.model.loss(batches[0]).item(), twin.loss(batches[0]).item()
    if abs(ours - theirs) > 1e-5 * abs(theirs):
        raise AssertionError(f"the models differ: loss {ours} here, {theirs} in PyTorch, on the same weights and the same batch")
    task.model.train()
    twin.train()
    runs = {"minirnn": our_steps(task.model), "torch": torch_steps(twin)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # compiles, and warms up
        run(batches[:3])
    for _ in range(rounds):
        for name, run in runs.items():
            begin = perf_counter()
            run(batches)
            seconds[name].append(perf_counter() - begin)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    return {
        "data": data,
        "parameters": task.model.num_parameters(),
        "vocabularies": [task.model.config.source_size, task.model.config.target_size],
        "batches": len(batches),
        "threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
        "loss_before": {"minirnn": ours, "torch": theirs},
        "seconds": seconds,
        "median": median,
        "torch_over_minirnn": median["torch"] / median["minirnn"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="multi30k", help="a data set or a tab-separated file (default: multi30k)")
    parser.add_argument("--data-dir", help="folder with downloaded files")
    parser.add_argument("--rounds", type=int, default=3, help="passes of each (default: 3)")
    parser.add_argument("--batches", type=int, default=0, help="batches in a pass (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        result = compare(options.data, options.data_dir, options.rounds, options.batches)
    except (MinirnnError, ImportError) as error:
        print(f"bench translation: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result))
        return 0
    print(f"{result['parameters']:,} parameters, {result['batches']} batches a pass, {result['threads']} threads")
    for name, seconds in result["seconds"].items():
        print(f"{name:8} median {result['median'][name]:7.2f} s   of {', '.join(f'{s:.2f}' for s in seconds)}")
    print(f"PyTorch's time / ours: {result['torch_over_minirnn']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
