"""`minirnn compare`: where two kernels of a recurrence differ."""

from __future__ import annotations

import argparse

from minirnn.commands.bench import DTYPES, SHAPE, shape
from minirnn.commands.parser import Commands, add_command, positive, seed


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compare",
        compare,
        "where two kernels of a recurrence differ, by quantity and time step, in units in the last place",
        "minirnn compare numpy examples/my_kernel.py --shape 20,16,64,64 --picture differences.png",
    )
    for which in ("a", "b"):
        parser.add_argument(which, metavar=which.upper(), help="a kernel's name, or a Python file that has forward and backward")
    parser.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm", help="(default: lstm)")
    parser.add_argument("--shape", metavar=SHAPE, type=shape, default=(20, 16, 64, 64), help="(default: 20,16,64,64)")
    parser.add_argument("--ragged", action="store_true", help="lengths from T to 1, evenly spread")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    parser.add_argument("--nonlinearity", choices=["tanh", "relu"], default="tanh", help="of an rnn (default: tanh)")
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of the batch (default: 0)")
    parser.add_argument(
        "--scale",
        choices=["row", "element"],
        default="row",
        help="ulps of the largest number of each row, or of each number itself (default: row)",
    )
    parser.add_argument("--threshold", metavar="ULPS", type=positive, help="that are allowed (default: what rounding explains)")
    parser.add_argument("--device", choices=["cuda", "emulated"], default="cuda", help="where cupy and numba-cuda run (default: cuda)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every time step")
    parser.add_argument("--picture", metavar="FILE", help="draw the worst of every time step into a PNG file")


def compare(arguments: argparse.Namespace) -> int:
    """0 if no difference is larger than allowed, else 1."""
    from minirnn import study
    from minirnn.bench.cases import Case
    from minirnn.bench.report import check_can_write, to_json

    check_can_write(arguments.picture)
    T, N, D, H = arguments.shape
    lengths = Case(arguments.cell, T, N, D, H, ragged=arguments.ragged).lengths.tolist()
    options = {name: getattr(arguments, name) for name in ("cell", "dtype", "seed", "nonlinearity", "scale", "threshold", "device")}
    found = study.compare(arguments.a, arguments.b, {"lengths": lengths, "D": D, "H": H}, **options)
    print(to_json(found.as_dict()) if arguments.json else found)
    if arguments.picture:
        found.draw(arguments.picture)
    return int(found.first is not None)
