"""A process of its own in which cases run: a sanitizer ends the process, a planted bug may crash it, and neither may reach the next.

Standard input has one JSON object: `cases`, `seeds`, `thorough` and `instead`, the texts of files below kernels/ that are read in place of
the ones on disk. Standard output gets one JSON line for each case: the kernels that it launched, and its error or null. The first error
ends the run.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from minirnn.kernels.cuda import source

COMPILER_SAYS = "the C++ compiler refused"


def read_instead(texts: Mapping[str, str]) -> None:
    """From now on the files at these paths below kernels/ read as these texts, for the compilers and for `import`."""
    if not texts:
        return
    named = {(source.KERNELS / path).resolve(): text for path, text in texts.items()}
    on_disk = source.text
    patch.object(source, "text", lambda path: named.get(path.resolve()) or on_disk(path)).start()
    modules = {"minirnn.kernels." + path.removesuffix(".py").replace("/", "."): path for path in texts if path.endswith(".py")}
    for name, path in modules.items():
        if name in sys.modules:
            raise RuntimeError(f"{name} has been imported before its text could be replaced")
        sys.meta_path.insert(0, _Finder(name, source.KERNELS / path, texts[path]))
    if modules:
        from minirnn.kernels.emulator import numba_engine, numba_shim, numba_source

        loader = numba_source.Loader({name: texts[path] for name, path in modules.items()}, numba_shim.MODULES)
        patch.object(numba_engine, "load", loader.load).start()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, and has its own text of it."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.loader = name, _Loader(name, str(path), text)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self.loader, origin=self.loader.path) if name == self.name else None


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.source = text

    def get_data(self, path: str) -> bytes:
        return self.source.encode()

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec", dont_inherit=True)  # never from the cache of the text on disk


def kind_of(error: Exception) -> str:
    """Which check an error comes from; `broken` where none of them: then the program itself is at fault."""
    from minirnn.kernels.emulator.numba_engine import LaunchError
    from minirnn.kernels.emulator.numba_memory import PromotionError, RaceError
    from minirnn.kernels.emulator.translate import EmulatorError
    from minirnn.kernels.verification.cases import Mismatch

    checks = ((Mismatch, "result"), (RaceError, "race check"), (PromotionError, "type check"), ((EmulatorError, LaunchError), "emulator"))
    kind = next((name for errors, name in checks if isinstance(error, errors)), "broken")
    return "compiler" if COMPILER_SAYS in str(error) else kind


def main() -> int:
    task = json.load(sys.stdin)
    read_instead(task["instead"])
    from minirnn.kernels.emulator.counts import log
    from minirnn.kernels.verification.cases import Case, run

    for values in task["cases"]:
        error = None
        log.clear()
        try:
            run(Case.of(values), tuple(task["seeds"]), task["thorough"])
        except Exception as raised:
            error = {
                "kind": kind_of(raised),
                "message": f"{raised}" if kind_of(raised) != "broken" else f"{type(raised).__name__}: {raised}",
            }
        print(json.dumps({"launched": sorted({launch.name for launch in log}), "error": error}), flush=True)
        if error:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
