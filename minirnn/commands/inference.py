"""`minirnn evaluate` and `minirnn translate`: what a trained run is good for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.parser import Commands, add_command, penalty, positive_integer
from minirnn.commands.train import kernel_for
from minirnn.errors import MinirnnError

if TYPE_CHECKING:
    from minirnn.models import Translation, Translator
    from minirnn.training import Task

SPLITS = ("train", "valid", "test")


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "evaluate", evaluate, "score a trained run on data that it was not trained on", "minirnn evaluate runs/seq2seq --beam 5"
    )
    _add_run(parser)
    parser.add_argument("--split", choices=SPLITS, default="test", help="which part of the data (default: test)")
    _add_search(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="where the data files lie now, if they were moved")
    parser.add_argument("--json", action="store_true", help="print one JSON object")

    parser = add_command(
        commands,
        "translate",
        translate,
        "translate texts, or standard input line by line",
        'minirnn translate runs/seq2seq "two days ago" --beam 5 --show-attention attention.png\n'
        "  minirnn translate runs/seq2seq - < english.txt > french.txt",
    )
    _add_run(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="a text (in quotes), several of them, or - for standard input")
    _add_search(parser)
    parser.add_argument(
        "--show-attention",
        metavar="PNG",
        nargs="?",
        const="",
        help="draw which words were looked at (default: attention.png in the run's folder; numbered for several texts)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each text")


def evaluate(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from minirnn.training import Run

    run = Run.open(arguments.run)
    if arguments.data_dir is not None:
        run = replace(run, data=replace(run.data, folder=arguments.data_dir))
    task, options = run.task(), _search(arguments)
    unknown = options.keys() - task.evaluation_options
    if unknown:
        raise MinirnnError(f"{run.folder} is a run of {run.model}, which has no --{min(unknown).replace('_', '-')}")
    with kernel_for():
        scores = evaluate_task(task, arguments.split, options)
    if arguments.json:
        print(json.dumps({"run": str(run.folder), "model": run.model, "data": run.data.source, **scores}, ensure_ascii=False))
    else:
        print_scores(scores)
    return 0


def evaluate_task(task: Task[Any, Any], split: Any, options: dict[str, Any]) -> dict[str, Any]:
    from minirnn.autograd import no_grad

    task.model.eval()
    with no_grad():
        return task.evaluate(split, **options)


def print_scores(scores: dict[str, Any]) -> None:
    width = max(map(len, scores))
    for name, value in scores.items():
        print(f"{name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def translate(arguments: argparse.Namespace) -> int:
    from minirnn.training import Run

    picture = None if arguments.show_attention is None else Path(arguments.show_attention or Path(arguments.run) / "attention.png")
    if picture is not None and picture.suffix != ".png":
        raise MinirnnError(f"--show-attention {picture}: expected a file name that ends with .png; texts come before it")
    run = Run.open(arguments.run)
    translator: Translator | None = getattr(run.task(), "translator", None)
    if translator is None:
        raise MinirnnError(f"{run.folder} is a run of {run.model}, which does not translate")
    options, number = _search(arguments), 0
    for number, (place, text) in enumerate(_texts(arguments.texts), 1):
        try:
            with kernel_for():
                (found,) = translator.translate([text], **options)
        except MinirnnError as error:
            raise MinirnnError(f"{place}: {error}") from error
        print(_as_json(text, found) if arguments.json else found.text, flush=True)
        if picture is not None:
            _draw(found, picture if number == 1 else picture.with_stem(f"{picture.stem}-{number}"), run.folder)
    if not number:
        raise MinirnnError("standard input is empty: there is nothing to translate")
    return 0


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, as minirnn train makes it")


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beam", metavar="N", type=positive_integer, help="width of the beam search (default: 1, greedy)")
    parser.add_argument(
        "--length-penalty",
        metavar="P",
        type=penalty,
        help="of the beam search: a text's log-probability is divided by ((5 + length) / 6)^P; "
        "0 ranks by plain probability and prefers short texts (default: 1)",
    )
    parser.add_argument(
        "--coverage-penalty",
        metavar="P",
        type=penalty,
        help="of the beam search: weight of the penalty for source words that were hardly looked at (default: 0)",
    )
    parser.add_argument(
        "--copy-unknown",
        action=argparse.BooleanOptionalAction,
        help="for a word that is not in the vocabulary, write the source word that was looked at most (default: yes)",
    )


def _search(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the search that were given."""
    names = ("beam", "length_penalty", "coverage_penalty", "copy_unknown")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def _texts(given: list[str]) -> Iterator[tuple[str, str]]:
    """The texts with what to call them in an error. A lone - stands for the lines of standard input."""
    if given == ["-"]:
        yield from _lines(sys.stdin.buffer)
        return
    for number, text in enumerate(given, 1):
        place = f"text {number}"
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MinirnnError(f"{place}: not UTF-8: {text!r}") from None
        yield place, _checked(text, place)


def _lines(stream: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    for number, raw in enumerate(stream, 1):
        place = f"standard input, line {number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
            raise MinirnnError(f"{place}: not UTF-8 ({byte}); convert it first, as with: iconv -f ISO-8859-1 -t UTF-8") from None
        yield place, _checked(text.rstrip("\r\n"), place)


def _checked(text: str, place: str) -> str:
    if not text.strip():
        raise MinirnnError(f"{place} is empty: there is nothing to translate")
    return text


def _as_json(text: str, found: Translation) -> str:
    shown = {"source": text, "translation": found.text, "score": float(found.score), "pieces": found.target}
    return json.dumps(shown, ensure_ascii=False)


def _draw(found: Translation, path: Path, folder: Path) -> None:
    from minirnn.training.pictures import alignment

    if found.attention is None:
        raise MinirnnError(f"{folder} was trained with attention=none: there is nothing to show")
    target = [*found.target, "(end)"][: len(found.attention)]
    print(f"drew {alignment(found.attention, found.source, target, path)}", file=sys.stderr)
