"""`minirnn data`: the data sets, where they come from, and what they look like."""

from __future__ import annotations

import argparse
import json

from minirnn.commands.parser import Commands, Parser, add_command, positive_integer, seed


def add(commands: Commands) -> None:
    parser = add_command(commands, "data", None, "list, fetch and show data sets", "minirnn data show cldr")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=Parser)

    action = add_command(actions, "list", list_all, "list the data sets that have a name", "minirnn data list")
    action.add_argument("--json", action="store_true", help="print a JSON array")

    action = add_command(actions, "get", get, "make sure that data sets are here, and whole", "minirnn data get tatoeba multi30k")
    action.add_argument("names", metavar="NAME", nargs="+", help="a data set")
    _add_folder(action)

    action = add_command(
        actions, "show", show, "show the numbers and some examples of a data set or a file", "minirnn data show cldr -n 20"
    )
    action.add_argument("name", metavar="SOURCE|PATH", help="a data set, a file, or a folder with pictures and captions.txt")
    action.add_argument("-n", "--examples", metavar="N", type=positive_integer, default=8, help="how many examples (default: 8)")
    action.add_argument("--seed", metavar="S", type=seed, default=0, help="which examples, and which splits of a file (default: 0)")
    action.add_argument("--json", action="store_true", help="print one JSON object")
    _add_folder(action)


def list_all(arguments: argparse.Namespace) -> int:
    from minirnn import data

    found = data.all_sources()
    if arguments.json:
        described = [{"name": s.name, "what": s.what, "size": s.size, "licence": s.licence, "origin": s.origin} for s in found]
        print(json.dumps(described, ensure_ascii=False))
    else:
        print(data.table(found))
        print("\nand by path: a tab-separated file (source, tab, target), a text file, a .csv file, a folder with captions.txt")
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
    from minirnn import data

    summary = data.show(arguments.name, arguments.data_dir, arguments.seed, arguments.examples)
    print(json.dumps(summary.to_json(), ensure_ascii=False) if arguments.json else summary)
    return 0


def _add_folder(parser: Parser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where downloaded data files lie, beside $MINIRNN_DATA and the cache")
