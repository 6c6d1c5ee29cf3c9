"""How a module of Numba-CUDA kernels is executed on a CPU, and what is changed in it before: its literals get Numba's types.

Python and NumPy hold a literal for whatever type its neighbour has: `float32_value * 0.5` stays float32 there. Numba gives `0.5` the
type float64 and `2` the type int64, and either turns a float32 beside it into a float64, at a fraction of the speed on a device. So in
the body of a function decorated with `cuda.jit`

    x * 0.5, 1 - x        become a call that raises a PromotionError where x is a float32
    a / b                 becomes a call, for two integers divided are a float64
    0.5 elsewhere         becomes a float64

A float32 that meets an integer variable is promoted by Numba as well; that is found where the kernels are compiled, not here.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from minirnn.kernels.emulator.numba_memory import SOURCES, PromotionError, here

SOURCES.add(__file__)
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def compiled(source: str, path: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of a module, and the names that it needs besides its own."""
    tree = ast.parse(source, path)
    names: dict[str, Any] = {f"__{kind.__name__}": _checked(function) for kind, function in _OPERATORS.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any("cuda.jit" in ast.unparse(decorator) for decorator in node.decorator_list):
            _Literals(names).generic_visit(node)
    return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True), names


class _Literals(ast.NodeTransformer):
    def __init__(self, names: dict[str, Any]):
        self.names = names

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is not float:
            return node
        name = f"__float64_{node.value!r}"
        self.names[name] = np.float64(node.value)
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self.checked(node, node.left, node.op, node.right) or node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        call = self.checked(node, ast.copy_location(ast.Name(node.target.id, ast.Load()), node), node.op, node.value)
        return ast.copy_location(ast.Assign([node.target], call), node) if call else node

    def checked(self, node: ast.AST, left: ast.expr, op: ast.operator, right: ast.expr) -> ast.expr | None:
        if type(op) not in _OPERATORS or not (isinstance(op, ast.Div) or self.literal(left) or self.literal(right)):
            return None
        return ast.copy_location(ast.Call(ast.Name(f"__{type(op).__name__}", ast.Load()), [left, right], []), node)

    @staticmethod
    def literal(node: ast.expr) -> bool:
        if isinstance(node, ast.UnaryOp):
            node = node.operand
        return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.startswith("__float64_"))


def _checked(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    divides = function is operator.truediv

    def call(left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if one.__class__ is np.float32 and other.__class__ is not np.float32:
                raise PromotionError(
                    f"{here()}: a float32 meets {other}, which is {_numba(other)}: Numba makes a float64 of both; write real({other})"
                )
        result = function(left, right)
        return np.float64(result) if divides and result.__class__ is float else result

    return call


def _numba(value: Any) -> str:
    return "float64" if isinstance(value, float) else "int64"


class Loader:
    """Executes modules, each once. Of what they import, modules with Numba-CUDA code in them are executed in the same way."""

    def __init__(self, sources: Mapping[str, str], replaced: Mapping[str, Any]):
        self.sources = sources  # by module name: what is executed in the place of the module's file
        self.replaced = replaced  # by module name: what an import of it gives
        self.modules: dict[str, ModuleType] = {}

    def load(self, name: str) -> ModuleType:
        if name not in self.modules:
            path, source = self.find(name)
            module = self.modules[name] = ModuleType(name)
            module.__file__ = path
            code, names = compiled(source, path)
            module.__dict__.update(names, __builtins__={**vars(builtins), "__import__": self.import_})
            try:
                exec(code, module.__dict__)
            except BaseException:
                del self.modules[name]
                raise
        return self.modules[name]

    def find(self, name: str) -> tuple[str, str]:
        """Path and source."""
        path = _path(name)
        if name in self.sources:
            return str(path or f"{name}.py"), self.sources[name]
        if path is None:
            raise ModuleNotFoundError(f"no module named {name!r}")
        return str(path), path.read_text(encoding="utf-8")

    def import_(self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0) -> Any:
        if name in self.replaced:
            return self.replaced[name]
        if name.split(".")[0] == "numba":
            raise ImportError(f"the engine has no {name}")
        if level == 0 and fromlist and (name in self.sources or (name.startswith("minirnn.kernels.") and _is_cuda(name))):
            return self.load(name)
        return builtins.__import__(name, globals, locals, fromlist or (), level)


@cache
def _path(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


@cache
def _is_cuda(name: str) -> bool:
    path = _path(name)
    return path is not None and path.suffix == ".py" and "from numba import cuda" in path.read_text(encoding="utf-8")
