"""`minirnn data`: the data sets, where they come from, and what they look like."""

from __future__ import annotations

import argparse
import json

from minirnn.commands.parser import Commands, Parser, add_command, positive_integer


def add(commands: Commands) -> None:
    parser = add_command(commands, "data", None, "list, fetch and show data sets", "minirnn data show cldr")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=Parser)

    action = add_command(actions, "list", list_sources, "list the data sets that have a name", "minirnn data list")
    action.add_argument("--json", action="store_true", help="print a JSON array")

    action = add_command(actions, "get", get, "make sure that data sets are on this machine, and whole", "minirnn data get tatoeba multi30k")
    action.add_argument("names", metavar="NAME", nargs="+", help="a data set")
    _add_folder(action)

    action = add_command(actions, "show", show, "show some examples of a data set or of a file", "minirnn data show cldr --split test -n 5")
    action.add_argument("name", metavar="SOURCE|PATH", help="a data set, or a tab-separated file")
    action.add_argument("--split", choices=["train", "valid", "test"], default="train", help="which part (default: train)")
    action.add_argument("-n", "--count", metavar="N", type=positive_integer, default=10, help="how many (default: 10)")
    action.add_argument("--json", action="store_true", help="print one JSON object for each example")
    _add_folder(action)


def list_sources(arguments: argparse.Namespace) -> int:
    from minirnn.data import sources

    described = [{"name": s.name, "what": s.what, "size": s.size, "licence": s.licence, "origin": s.origin} for s in sources()]
    if arguments.json:
        print(json.dumps(described, ensure_ascii=False))
        return 0
    for entry in described:
        print(f"{entry['name']:<10}{entry['what']}\n{'':<10}{entry['size']}; {entry['licence']}\n{'':<10}{entry['origin']}")
    print("\nand any tab-separated UTF-8 file by its path: source, tab, target")
    return 0


def get(arguments: argparse.Namespace) -> int:
    from minirnn import data

    for name in arguments.names:
        paths = data.get(name, arguments.data_dir)
        for path in paths:
            print(path)
        if not paths:
            print(f"{name} is made on this machine: there is nothing to fetch")
    return 0


def show(arguments: argparse.Namespace) -> int:
    import numpy as np

    from minirnn import data

    text = data.source(arguments.name, arguments.data_dir)
    pairs = getattr(text, arguments.split)
    chosen = [pairs[k] for k in np.random.default_rng(0).permutation(len(pairs))[: arguments.count]]
    if arguments.json:
        for source, target in chosen:
            print(json.dumps({"source": source, "target": target}, ensure_ascii=False))
        return 0
    print(f"{text.name}, {' to '.join(text.languages)}: {len(text.train):,} pairs to train, {len(text.valid):,} to validate, {len(text.test):,} to test")
    for line in (text.attribution, text.note):
        if line:
            print(line)
    print()
    for source, target in chosen:
        print(f"{source}\t{target}")
    return 0


def _add_folder(parser: Parser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where downloaded data files lie, beside $MINIRNN_DATA and the cache")
