"""The graph that autograd recorded, to look at: unrolled in time, one column a step, or folded, one node a layer.

    graph = mr.study.graph(loss)                # before backward(), which frees it
    graph.save("loss.svg")                      # or .dot, for those who have Graphviz

A fused layer is one operation on the tape; unrolled, it is drawn as the cells that its kernel goes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirnn.autograd import Function
from minirnn.files import write_atomically
from minirnn.study.drawing import Edge, Node, folded_svg, unrolled_svg
from minirnn.study.graph_forms import Folded, Unrolled
from minirnn.tensor import Tensor

MOST_NODES = 2000  # that anybody would look at


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of computation, edges, and for the unrolled form what stands under each column."""

    nodes: list[Node]
    edges: list[Edge]
    columns: list[str] = field(default_factory=list)
    folded: bool = False

    def svg(self) -> str:
        """The picture as SVG, laid out here: data flow upwards, time from left to right. It follows the reader's light or dark mode."""
        return folded_svg(self.nodes, self.edges) if self.folded else unrolled_svg(self.nodes, self.edges, self.columns)

    def dot(self) -> str:
        """The picture in Graphviz's language."""
        lines = ["digraph {", "  rankdir=BT;", '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];']
        lines += ['  edge [fontname="sans-serif", fontsize=9];']
        for column, name in enumerate(self.columns):
            lines.append(f"  subgraph cluster_{column} {{ label={_quoted(name)}; color=gray80;")
            lines += [f"    {_dot_node(node)}" for node in self.nodes if node.column == column]
            lines.append("  }")
        lines += [f"  {_dot_node(node)}" for node in self.nodes if node.column is None]
        for edge in self.edges:
            still = ", constraint=false, style=bold" if edge.in_time else ""
            lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={_quoted(edge.shape)}{still}];")
        return "\n".join([*lines, "}", ""])

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file whose name ends in .svg or .dot; the path. Raises ValueError for another ending."""
        path = Path(path)
        forms = {".svg": self.svg, ".dot": self.dot}
        if path.suffix not in forms:
            raise ValueError(f"Graph.save: the file's name must end in .svg or .dot, got {path.name!r}")
        write_atomically(path, forms[path.suffix]().encode())
        return path

    def _repr_svg_(self) -> str:
        """Notebooks show it by itself."""
        return self.svg()


def graph(tensor: Tensor | Sequence[Tensor], *, fold: bool = False, steps: int = 8, parameters: bool = False) -> Graph:
    """The autograd graph below a tensor, or several.

    tensor      a result of recorded operations, whose graph no backward pass has freed yet
    fold        one node for each layer, or for each operation outside of any, with a loop for what goes from step to step;
                else unrolled: one column for each time step
    steps       columns of an unrolled picture at most; of more steps the ones in the middle are left out. At least 3
    parameters  whether parameters are drawn, too; else they stand in the tool tips

    Raises ValueError for a tensor that was not recorded, or whose graph is freed, or is too large to be drawn.
    """
    if not isinstance(tensor, Tensor | Sequence):
        raise TypeError(f"graph: tensor must be a Tensor or a sequence of them, got {type(tensor).__name__}")
    roots = [tensor] if isinstance(tensor, Tensor) else list(tensor)
    if not roots:
        raise ValueError("graph: there is no tensor in the sequence")
    if steps < 3:
        raise ValueError(f"graph: steps must be at least 3, got {steps}")
    order = _inputs_first(roots)
    found = Folded(parameters) if fold else Unrolled(steps, parameters, order)
    for function in order:
        found.add(function)
    if len(found.nodes) > MOST_NODES:
        raise ValueError(f"graph: {len(found.nodes):,} nodes are too many to look at; pass fold=True, or draw the tensor of a smaller part")
    return Graph(*found.finish(), folded=fold)


def _inputs_first(roots: Sequence[Tensor]) -> list[Function]:
    """Every operation below the roots, each after those it depends on."""
    order: list[Function] = []
    seen: set[int] = set()
    stack: list[Any] = []
    for k, root in enumerate(roots):
        if not isinstance(root, Tensor) or root.creator is None:
            what = f"tensor {k} {root.shape}" if isinstance(root, Tensor) else f"a {type(root).__name__}"
            raise ValueError(f"graph: {what} has no graph: it must be the result of recorded operations on tensors that need a gradient")
        stack.append(root.creator)
    while stack:
        top = stack.pop()
        if isinstance(top, tuple):
            order.append(top[0])
        elif id(top) not in seen:
            if top.freed:
                raise ValueError(
                    "graph: a backward pass has freed this graph; draw it before backward(), or call backward(retain_graph=True)"
                )
            seen.add(id(top))
            stack.append((top,))
            stack += [t.creator for t in top.inputs if t.creator is not None]
    return order


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _dot_node(node: Node) -> str:
    extra = ", shape=ellipse" if node.kind in ("parameter", "input") else ", penwidth=2" if node.kind == "cell" else ""
    label = f"{node.layer}\n{node.label}" if node.kind == "cell" and node.column is not None else node.label
    return f"{_quoted(node.key)} [label={_quoted(label)}, tooltip={_quoted(node.note)}{extra}];"
