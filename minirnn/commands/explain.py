"""`minirnn explain`: which kernel would run a recurrence, how it is laid out on the chip, and what bounds its time."""

from __future__ import annotations

import argparse

from minirnn.commands.bench import SHAPE, shape
from minirnn.commands.parser import Commands, add_command, device
from minirnn.errors import MinirnnError

GPUS = ("H100", "A100", "RTX 4090")  # whose published figures minirnn.kernels.cuda.devices has


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "explain",
        explain,
        "show which kernel would run a recurrence and why, and on a GPU its plan, its floor and a predicted time",
        "minirnn explain --shape 1024,16,768,768 --dtype float16 --device h100",
    )
    parser.add_argument("--shape", metavar=SHAPE, type=shape, required=True, help="steps, sequences, features, hidden units")
    parser.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm", help="which recurrence (default: lstm)")
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32", "float64"], default="float32", help="(default: float32)")
    parser.add_argument(
        "--device",
        metavar="NAME",
        type=_device,
        default="cpu",
        help=f"cpu, cuda, cuda:1, emulated; or {', '.join(GPUS)}, which need not be here (default: cpu)",
    )
    parser.add_argument("--measure", action="store_true", help="on a CPU: time the layer's own matrix products, which are the floor")


def explain(arguments: argparse.Namespace) -> int:
    from minirnn import kernels

    T, N, D, H = arguments.shape
    try:
        text = kernels.explain(T, N, D, H, dtype=arguments.dtype, device=arguments.device, cell=arguments.cell, measure=arguments.measure)
    except (RuntimeError, TypeError) as error:  # no kernel can run it here; a dtype that NumPy does not know by itself
        raise MinirnnError(str(error)) from None
    print(text)
    return 0


def _device(text: str) -> str:
    known = {"".join(name.lower().split()): name for name in GPUS}
    return known.get("".join(text.lower().replace("-", "").split())) or device(text)
