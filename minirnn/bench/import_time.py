"""How much longer `import minirnn` takes than `import numpy`: the medians over fresh interpreters, taken in turns.

python -m minirnn.bench.import_time [--runs 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

MODULES = ("numpy", "minirnn")


def seconds_to_import(module: str) -> float:
    """The wall-clock time of one import in a new interpreter, without the interpreter's own start."""
    program = f"from time import perf_counter as now; start = now(); import {module}; print(now() - start)"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def measure(runs: int) -> dict[str, float]:
    """Milliseconds by module name, and `difference`."""
    for module in MODULES:  # the first run reads the disk and writes the byte code
        seconds_to_import(module)
    times = [[1e3 * seconds_to_import(module) for module in MODULES] for _ in range(runs)]
    numpy, minirnn = (statistics.median(column) for column in zip(*times, strict=True))
    return {"numpy": numpy, "minirnn": minirnn, "difference": minirnn - numpy}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minirnn.bench.import_time", description="Time an import of minirnn against one of NumPy."
    )
    parser.add_argument("--runs", type=int, default=20, help="fresh interpreters for each (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be 1 or more")
    times = measure(options.runs)
    if options.json:
        print(json.dumps({"unit": "ms", "runs": options.runs, **times}))
    else:
        print(f"import numpy {times['numpy']:.1f} ms, import minirnn {times['minirnn']:.1f} ms: {times['difference']:+.1f} ms")


if __name__ == "__main__":
    main()
