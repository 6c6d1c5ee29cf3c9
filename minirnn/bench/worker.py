"""A process of its own for each library that is measured, driven over a pipe, a line of JSON each way.

    with Worker("minirnn.bench.libraries.torch_", threads=2) as torch:
        torch.call("prepare", case=case)      # torch_.prepare(case=case), there; what it returns comes back

Libraries that share a process share its heap, its threads and its settings, and the one that was loaded first decides. Here each has the
same number of threads, by environment variables that are set before it is loaded. Arguments and results are what JSON can carry; arrays are
drawn from the same seed on both sides, or go through files.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from minirnn.errors import MinirnnError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerError(MinirnnError):
    """What was called in a worker raised an exception, `trace` has where; or its process has ended."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Worker:
    """A new process in which functions of `module` are called.

    Args:
        module: its dotted name; it is imported there, and not here.
        threads: how many each library may use.
        environment: further variables, set before anything is imported.
    """

    def __init__(self, module: str, threads: int, environment: Mapping[str, str] | None = None) -> None:
        self.module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minirnn.bench.worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})},
            encoding="utf-8",
        )

    def call(self, function: str, /, **arguments: Any) -> Any:
        """What `module.function(**arguments)` returns there. Its MinirnnError is raised here; anything else is a WorkerError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.module}: its process ended in {function}, {_ending(self.process.wait())}")
        answer = json.loads(line)
        if "error" not in answer:
            return answer["result"]
        if answer["usage"]:
            raise MinirnnError(answer["error"])
        raise WorkerError(f"{self.module}.{function}: {answer['error']}", answer["trace"])

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def serve(module: str) -> None:
    """Answer calls until standard input ends. What the libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    functions: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            functions = functions or importlib.import_module(module)
            answer = {"result": getattr(functions, asked["function"])(**asked["arguments"])}
        except Exception as error:
            said = str(error) if isinstance(error, MinirnnError) else f"{type(error).__name__}: {error}"
            answer = {"error": said, "usage": isinstance(error, MinirnnError), "trace": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
