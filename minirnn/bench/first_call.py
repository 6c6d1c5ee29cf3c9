"""How long the first training step of a new process takes: with compiled kernels from the cache (warm), and without (cold).

    minirnn bench first-call [--shape T,N,D,H] [--rounds 5] [--no-cold] [--json] [--out FILE]

Every time is taken in a process of its own, in milliseconds; what is shown is the median of the rounds with its quartiles, cold: one round.

    import minirnn   without NumPy, which is imported before
    first call       forward and backward of an LSTM layer, from calling it to having all gradients: imports Numba, and loads or compiles
    of it Numba      importing Numba
    second call      the same once more

Cold is a process whose NUMBA_CACHE_DIR is an empty folder; what it says on standard error meanwhile is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from minirnn.bench import report
from minirnn.bench.progress import Progress
from minirnn.bench.timing import summary
from minirnn.errors import MinirnnError
from minirnn.kernels import workers

MEASURED = {"import": "import minirnn", "first": "first call", "numba": "of it Numba", "second": "second call"}

PROGRAM = """
import json, sys
from time import perf_counter as now
import numpy as np
began = now()
import minirnn as mr
imported = now()
T, N, D, H = json.loads(sys.argv[1])
lstm = mr.nn.LSTM(D, H, rng=0)
x, dy = mr.Tensor(np.zeros((T, N, D), np.float32), requires_grad=True), mr.Tensor(np.ones((T, N, H), np.float32))
def call():
    began = now()
    output, _ = lstm(x)
    output.backward(dy)
    return now() - began
before = now()
import numba
numba = now() - before
first = numba + call()
print(json.dumps({"import": imported - began, "first": first, "numba": numba, "second": call()}))
"""


def measure(shape: tuple[int, int, int, int], cache: str | None = None) -> tuple[dict[str, float], str]:
    """Seconds of each of MEASURED in a new process, and what it said on standard error; `cache` is its NUMBA_CACHE_DIR."""
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})}
    environment.pop("MINIRNN_QUIET", None)
    command = [sys.executable, "-c", PROGRAM, json.dumps(shape)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MinirnnError(f"bench first-call: the new process failed: {done.stderr.strip().splitlines()[-1:]}")
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds, done.stderr.strip()


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    report.check_can_write(arguments.out)
    load = report.load_average()
    result: dict[str, Any] = {
        "benchmark": "first-call",
        "machine": report.machine(workers.count(), load),
        "shape": dict(zip("TNDH", arguments.shape, strict=True)),
        "rounds": arguments.rounds,
        "warm": {},
        "cold": None,
        "said": None,
    }
    with Progress("bench first-call", arguments.rounds + 1 + 10 * (not arguments.no_cold)) as progress:
        measure(arguments.shape)  # compiles what is not compiled yet, and reads it all from the disk once
        progress.advance(1, "warm")
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append(measure(arguments.shape)[0])
            progress.advance(1, "warm")
        result["warm"] = {what: summary([seconds[what] for seconds in rounds]) for what in MEASURED}
        if not arguments.no_cold:
            with tempfile.TemporaryDirectory() as folder:
                result["cold"], result["said"] = measure(arguments.shape, folder)
            progress.advance(10, "cold")
    if arguments.out:
        report.write_json(result, arguments.out)
    if arguments.json:
        print(report.to_json(result))
        return 0
    print(f"the first step of an LSTM layer, {arguments.shape}, in a new process; {report.heading(result['machine'])}")
    if warning := report.load_warning(load):
        print(warning, file=sys.stderr)
    cold = result["cold"]
    rows = [
        (name, report.spread(result["warm"][what], 1e3), report.significant(1e3 * cold[what]) if cold else "-")
        for what, name in MEASURED.items()
    ]
    print(report.table(("ms", "warm", "cold"), rows))
    if cold:
        print(f"\ncold, it says: {result['said'] or 'nothing'}")
    return 0
