"""Posterior collapse, reproduced and cured: one table and one plot.

    python -m minirnn.study.collapse --data docstrings --minutes 2

A VAE whose decoder is strong enough to do without z learns to ignore it: q(z | x) becomes the prior, the KL goes to 0, and the model is a
language model with a useless encoder (Bowman et al. 2016). Here models of one size are trained for the same time on the same sentences: the
language model, the VAE as it comes, and with each of the cures. The table has, in nats per sentence,

    bound            -ln p(x) of the language model; of a VAE the importance-weighted bound on it
    -ELBO            = reconstruction + KL
    active units     dimensions of z whose posterior mean moves with x
    information      I(x; z): how much z says about the sentence, at most ln of the number of sentences
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minirnn.autograd import no_grad
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.training import DataArguments, Trainer, progress
from minirnn.training.latent_pictures import COLLAPSED, collapse
from minirnn.training.pictures import NoMatplotlib
from minirnn.training.settings import apply, parse
from minirnn.training.tasks.vae import VAETask, VAETaskConfig

NAIVE: dict[str, Any] = {"annealing": "none", "word_dropout": 0.0, "free_bits": 0.0, "aggressive": False}
SIZE: dict[str, Any] = {
    "embedding": 128,
    "encoder_hidden": 128,
    "decoder_hidden": 256,
    "latent": 16,
    "max_length": 20,
    "min_count": 3,
    "lr": 2e-3,
}
CURVES = 12  # validations of each model: points of its curve

# What is changed of NAIVE. Updates of annealing are shares of all updates, which are known once the language model has been trained.
VARIANTS: dict[str, dict[str, Any]] = {
    "language model": {"latent": 0},
    "VAE": {},
    "annealing, word dropout": {"annealing": "linear", "word_dropout": 0.5},
    "cyclical annealing": {"annealing": "cyclical"},
    "free bits": {"free_bits": 0.25},
    "aggressive encoder": {"aggressive": True},
}
COLUMNS = {  # heading: score
    "bound": "bound",
    "-ELBO": "loss",
    "reconstruction": "reconstruction",
    "KL": "kl",
    "active units": "active_units",
    "information": "mutual_information",
    "updates": "updates",
}


@dataclass(frozen=True)
class Result:
    """One model: its name, the settings that differ from the naive VAE's, its scores on the test, and its KL over the updates."""

    name: str
    settings: Mapping[str, Any]
    scores: Mapping[str, Any]
    curve: Sequence[tuple[int, float]]

    @property
    def collapsed(self) -> bool:
        return "kl" in self.scores and bool(self.scores["kl"] < COLLAPSED)


def run(
    data: DataArguments,
    *,
    minutes: float = 0.0,
    epochs: int = 0,
    settings: Mapping[str, Any] | None = None,
    samples: int = 50,
    seed: int = 0,
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
    quiet: bool = False,
) -> list[Result]:
    """Train and score every variant.

    Args:
        minutes, epochs: of training for each model; one of them is 0. Only with epochs one seed gives one result.
        settings: changes for all models, as `--set` takes them, but not of what a variant is about.
        samples: K of the bound.
        variants: changes of `NAIVE` by name; the first one, whose updates say how long annealing takes, should be the fastest.
    """
    results: list[Result] = []
    for number, (name, changes) in enumerate(variants.items(), 1):
        updates = results[0].scores["updates"] if results else 0
        pace = {"annealing_steps": max(1, updates // 2), "validate_every": max(1, updates // CURVES)} if updates else {}
        chosen = {**NAIVE, **SIZE, **pace, **(settings or {}), **changes, "minutes": minutes, "epochs": epochs}
        if not quiet:
            print(f"{number} of {len(variants)}: {name}", file=sys.stderr, flush=True)
        results.append(_train(name, chosen, data, samples, seed, quiet))
    return results


def _train(name: str, settings: Mapping[str, Any], data: DataArguments, samples: int, seed: int, quiet: bool) -> Result:
    config, options = apply(settings, VAETaskConfig(), VAETask.training)
    task = VAETask.build(config, data, seed)
    outcome = Trainer(task, options, seed, progress=progress.make(task.unit, quiet)).fit()
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    task.model.eval()
    with no_grad():
        scores = task.evaluate("test", samples=samples)
    curve = [(row["step"], row["valid"]["kl"]) for row in outcome.rows if "kl" in row.get("valid", {})]
    scores |= {"updates": outcome.state.step, "parameters": task.model.num_parameters(), "minutes": outcome.state.elapsed / 60}
    return Result(name, dict(settings), scores, curve)


def table(results: Sequence[Result]) -> str:
    """The results as lines for people."""
    width = max(len(result.name) for result in results)
    lines = [" " * width + "".join(f"  {heading:>{max(7, len(heading))}}" for heading in COLUMNS)]
    for result in results:
        cells = [_cell(result.scores.get(score)).rjust(max(7, len(heading))) for heading, score in COLUMNS.items()]
        lines.append("  ".join([result.name.ljust(width), *cells]) + ("  collapsed" if result.collapsed else ""))
    return "\n".join(lines)


def draw(results: Sequence[Result], path: Path) -> Path:
    """The KL of every VAE over the updates, and what its ELBO consists of."""
    models = [result for result in results if "kl" in result.scores]
    exact = [result.scores["bound"] for result in results if "kl" not in result.scores]
    return collapse(
        {result.name: result.curve for result in models},
        {result.name: (result.scores["reconstruction"], result.scores["kl"]) for result in models},
        exact[0] if exact else None,
        path,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    for option, least in (("epochs", 1), ("samples", 1), ("seed", 0)):
        if getattr(given, option) is not None and not getattr(given, option) >= least:
            parser.error(f"--{option} must be at least {least}, got {getattr(given, option)}")
    if not 0 < given.minutes < math.inf:
        parser.error(f"--minutes must be above 0, got {given.minutes}")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        data = DataArguments(given.data, given.data_dir)
        budget = {"epochs": given.epochs} if given.epochs else {"minutes": given.minutes}
        results = run(data, **budget, settings=parse(given.set), samples=given.samples, seed=given.seed, quiet=given.quiet)
        print(table(results))
        found = {"data": given.data, "seed": given.seed, "models": [asdict(result) for result in results]}
        write_atomically(given.out / "collapse.json", json.dumps(found, indent=1))
        print(f"\n{given.out / 'collapse.json'}")
        print(draw(results, given.out / "collapse.png"))
    except NoMatplotlib as error:
        print(f"no picture: {error}", file=sys.stderr)
    except (MinirnnError, OSError) as error:
        print(f"collapse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minirnn.study.collapse", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", metavar="SOURCE|PATH", default=VAETask.default_data, help="sentences (default: %(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", help="where downloaded data files lie")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", metavar="M", type=float, default=2.0, help="for each of the models (default: 2)")
    budget.add_argument("--epochs", metavar="E", type=int, help="instead of minutes: one seed then gives one result")
    parser.add_argument("--samples", metavar="K", type=int, default=50, help="of the bound (default: 50)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/collapse"), help="where the plot goes (default: %(default)s)")
    parser.add_argument("--set", metavar="key=value", nargs="+", action="extend", default=[], help="change settings of all models")
    parser.add_argument("--quiet", action="store_true", help="print the table alone")
    return parser


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    raise SystemExit(main())
