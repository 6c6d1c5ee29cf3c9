"""Graphs as SVG, laid out here, so that nothing has to be installed: data flow upwards, time from left to right.

Nodes stand in rows by their distance from what they are computed from. Unrolled, a row holds one layer in the columns of its steps, and
what runs over all steps is a bar across them. Folded, a layer is one box, with a loop for what it hands from step to step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["operation", "cell", "parameter", "input", "more"]

HEIGHT, ROW, GAP, MARGIN = 34, 74, 22, 28  # of a node, from row to row, between nodes, around the picture
LETTER = 6.4  # width of a letter of a label, about
ASIDE = 40  # by which an edge goes around what stands in its way
BAR = 250  # wider boxes are bars

STYLE = """
  .graph { font: 11px system-ui, sans-serif; }
  .graph rect { fill: #fff; stroke: #667; }
  .graph text { fill: #223; text-anchor: middle; }
  .graph path { fill: none; stroke: #889; }
  .graph .time { stroke: #2b62a8; stroke-width: 1.6; }
  .graph .cell rect { fill: #dbe9fb; stroke: #2b62a8; stroke-width: 1.6; }
  .graph .parameter rect { fill: #fdf0d5; stroke: #a8772b; }
  .graph .input rect { fill: #e3f3e3; stroke: #3c7d3c; }
  .graph .more rect { fill: none; stroke-dasharray: 3 3; }
  .graph .shape { font-size: 9px; fill: #445; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
  .graph .beside, .graph .layer { text-anchor: start; }
  .graph .axis { fill: #667; }
  @media (prefers-color-scheme: dark) {
    .graph { background: #14161a; }
    .graph rect { fill: #20242c; stroke: #99a; }
    .graph text { fill: #dde; }
    .graph path { stroke: #778; }
    .graph .time { stroke: #7fb0f0; }
    .graph .cell rect { fill: #1d3554; stroke: #7fb0f0; }
    .graph .parameter rect { fill: #45361a; stroke: #d9a951; }
    .graph .input rect { fill: #1f3a1f; stroke: #7cc47c; }
    .graph .shape { fill: #bbc; stroke: #14161a; }
    .graph .axis { fill: #aab; }
  }
"""


@dataclass(frozen=True)
class Node:
    """Something in the picture.

    Args:
        key: tells it from the others.
        label: the operation, or the name of a parameter.
        layer: where in the model it runs, as "encoder.l0"; "" outside of any module.
        column: of the picture, for what belongs to a time step; None for what runs over all steps.
        kind: an operation; a cell, one step of a fused layer; a parameter; an input; or "more", the steps that are left out.
        note: more about it, for a tool tip.
        group: nodes of one group stand in one row: the cells of a fused layer.
    """

    key: str
    label: str
    layer: str = ""
    column: int | None = None
    kind: Kind = "operation"
    note: str = ""
    group: str = ""


@dataclass(frozen=True)
class Edge:
    """A tensor on its way from one operation to another.

    Args:
        source, target: keys of nodes, equal for the loop of a folded layer.
        shape: of the tensor, as "(2, 4)"; of several that go the same way, the distinct ones.
        in_time: it goes from one time step to another.
    """

    source: str
    target: str
    shape: str
    in_time: bool = False


@dataclass
class Box:
    """Where a node is drawn: its centre, its width, and the row it stands in."""

    x: float
    y: float
    width: float
    row: int

    def toward(self, other: Box) -> float:
        """Where an edge to or from another box touches this one: below or above it if that lies within, else in the middle."""
        left, right = self.x - self.width / 2 + 6, self.x + self.width / 2 - 6
        if self.width > other.width:
            return min(max(other.x, left), right)
        return self.x


def ranks(nodes: Sequence[Node], edges: Iterable[Edge]) -> dict[str, int]:
    """The row of each node, from below: one above the highest of those that it, or another of its group, is computed from.

    Edges in time, and those that would close a circle, do not count.
    """
    group = {node.key: node.group or node.key for node in nodes}
    order = list(dict.fromkeys(group.values()))  # in the order of computation
    place = {key: k for k, key in enumerate(order)}
    below: dict[str, set[str]] = {key: set() for key in order}
    above: dict[str, set[str]] = {key: set() for key in order}
    for edge in edges:
        source, target = group[edge.source], group[edge.target]
        if not edge.in_time and source != target:
            below[target].add(source)
            above[source].add(target)
    rank: dict[str, int] = {}
    waiting = [key for key in order if not below[key]]  # leaves are named after what reads them, so the order of names is not enough
    left = {key: len(below[key]) for key in order}
    while len(rank) < len(order):
        if not waiting:  # a circle: go on with the first that is left
            waiting = [next(key for key in order if key not in rank)]
        key = waiting.pop(0)
        if key in rank:
            continue
        rank[key] = max((rank[source] + 1 for source in below[key] if source in rank), default=0)
        for target in sorted(above[key], key=place.__getitem__):
            left[target] -= 1
            if left[target] == 0:
                waiting.append(target)
    for key in order:  # a leaf stands right below what it is for
        if not below[key] and above[key]:
            rank[key] = min(rank[target] for target in above[key]) - 1
    return {key: rank[of] for key, of in group.items()}


def _width(label: str) -> float:
    return max(46.0, max(len(line) for line in label.split("\n")) * LETTER + 16)


def unrolled_svg(nodes: Sequence[Node], edges: Sequence[Edge], columns: Sequence[str]) -> str:
    """One column for each of `columns`, bars across all of them for nodes without a column."""
    rank = ranks(nodes, edges)
    # A row for each layer of a rank, in their order, and one for its bars; parameters have a row of their own below those.
    rows: dict[tuple[int, str, bool], list[Node]] = {}
    for node in sorted(nodes, key=lambda node: (rank[node.key], node.kind != "parameter", node.column is not None)):
        stands_in = node.column is not None
        name = node.layer if stands_in else "parameters" if node.kind == "parameter" else ""
        rows.setdefault((rank[node.key], name, stands_in), []).append(node)
    widest = [60.0] * len(columns)
    for row in rows.values():
        for column in {node.column for node in row if node.column is not None}:
            widths = [_width(node.label) + GAP for node in row if node.column == column]
            widest[column] = max(widest[column], sum(widths) + 2 * GAP)
    bars = [sum(_width(node.label) + GAP for node in row) for (_, _, stands_in), row in rows.items() if not stands_in]
    stretch = max(1.0, max(bars, default=0) / sum(widest)) if columns else 1.0
    widest = [width * stretch for width in widest]
    label = max((len(layer) for _, layer, _ in rows), default=0) * LETTER + 12
    left = [MARGIN + label + sum(widest[:column]) for column in range(len(columns) + 1)]
    total = left[-1] - left[0] if columns else max(bars, default=100.0)
    boxes: dict[str, Box] = {}
    for k, ((_, _, stands_in), row) in enumerate(rows.items()):
        y = (len(rows) - 1 - k) * ROW + MARGIN + HEIGHT / 2
        if not stands_in:
            share = total / len(row)
            for j, node in enumerate(row):
                boxes[node.key] = Box(left[0] + share * (j + 0.5), y, share - GAP, k)
            continue
        for column in {node.column for node in row if node.column is not None}:
            members = [node for node in row if node.column == column]
            x = left[column] + (widest[column] - sum(_width(node.label) + GAP for node in members)) / 2
            for node in members:
                boxes[node.key] = Box(x + (_width(node.label) + GAP) / 2, y, _width(node.label), k)
                x += _width(node.label) + GAP
    height = len(rows) * ROW + 2 * MARGIN
    axis = [
        f'<text class="axis" x="{left[k] + widest[k] / 2:.1f}" y="{height - MARGIN:.1f}">{escape(name)}</text>'
        for k, name in enumerate(columns)
    ]
    seen: set[str] = set()
    for (_, layer, stands_in), row in rows.items():
        if stands_in and layer not in seen:
            seen.add(layer)
            axis.append(f'<text class="axis layer" x="{MARGIN}" y="{boxes[row[0].key].y + 4:.1f}">{escape(layer)}</text>')
    return _svg(nodes, edges, boxes, left[0] + total + MARGIN, height, axis)


def folded_svg(nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """Each row in the middle, its nodes near to those they are computed from."""
    rank = ranks(nodes, edges)
    rows: list[list[Node]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for node in nodes:
        rows[rank[node.key]].append(node)
    looped = {edge.source for edge in edges if edge.source == edge.target}

    def room(node: Node) -> float:
        return _width(node.label) + GAP + (90 if node.key in looped else 20)

    total = max((sum(map(room, row)) for row in rows), default=100.0)
    boxes: dict[str, Box] = {}
    for k, row in enumerate(rows):
        sources = {n.key: [boxes[e.source].x for e in edges if e.target == n.key and e.source in boxes] for n in row}
        row.sort(key=lambda node: sum(sources[node.key]) / len(sources[node.key]) if sources[node.key] else total / 2)
        x = MARGIN + (total - sum(map(room, row))) / 2
        for node in row:
            boxes[node.key] = Box(x + room(node) / 2, (len(rows) - 1 - k) * ROW + MARGIN + HEIGHT / 2, _width(node.label), k)
            x += room(node)
    return _svg(nodes, edges, boxes, total + 2 * MARGIN, len(rows) * ROW + MARGIN, [])


def _svg(nodes: Sequence[Node], edges: Sequence[Edge], boxes: dict[str, Box], width: float, height: float, more: Sequence[str]) -> str:
    passing = [_aside(*_ends(edge, boxes)[::2], boxes[edge.source], boxes[edge.target], boxes) for edge in edges]
    width = max([width, *(x + 3 * MARGIN for x in passing)])
    label = f"Autograd graph of {len(nodes)} nodes and {len(edges)} edges; data flow upwards"
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {size} role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse"',
        ' orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" style="fill: #889; stroke: none"/></marker></defs>',
        *(_path(edge, boxes) for edge in edges),
        *more,
    ]
    for node in nodes:
        box = boxes[node.key]
        text = node.label.split("\n")
        top = box.y + 4 - 6.5 * (len(text) - 1)
        lines.append(
            f'<g class="{node.kind}"><title>{escape(node.note or node.label)}</title>'
            f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y - HEIGHT / 2:.1f}" width="{box.width:.1f}" height="{HEIGHT}" rx="6"/>'
            + "".join(f'<text x="{box.x:.1f}" y="{top + 13 * k:.1f}">{escape(line)}</text>' for k, line in enumerate(text))
            + "</g>"
        )
    by_key = {node.key: node for node in nodes}
    lines += [_shape(edge, boxes, by_key) for edge in edges]
    return "\n".join([*lines, "</svg>", ""])


def _ends(edge: Edge, boxes: dict[str, Box]) -> tuple[float, float, float, float]:
    """From where to where an edge goes."""
    a, b = boxes[edge.source], boxes[edge.target]
    if edge.in_time:
        side = 1 if b.x > a.x else -1
        return a.x + side * a.width / 2, a.y, b.x - side * b.width / 2, b.y
    up = 1 if b.row > a.row else -1
    return a.toward(b), a.y - up * HEIGHT / 2, b.toward(a), b.y + up * HEIGHT / 2


def _path(edge: Edge, boxes: dict[str, Box]) -> str:
    a, b = boxes[edge.source], boxes[edge.target]
    kind = ' class="time"' if edge.in_time else ""
    if edge.source == edge.target:
        x, y = a.x + a.width / 2, a.y
        return f'<path{kind} d="M{x:.1f},{y - 8:.1f} c40,-26 40,42 0,16" marker-end="url(#tip)"/>'
    x, y, to_x, to_y = _ends(edge, boxes)
    if edge.in_time:
        bend = 0.4 * (to_x - x) if a.row == b.row else 0.7 * (to_x - x)
        way = f"C{x + bend:.1f},{y:.1f} {to_x - bend:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
    elif abs(a.row - b.row) == 1:
        bend = (y - to_y) / 2
        way = f"C{x:.1f},{y - bend:.1f} {to_x:.1f},{to_y + bend:.1f} {to_x:.1f},{to_y:.1f}"
    else:  # around what stands between
        aside = _aside(x, to_x, a, b, boxes)
        up = ROW / 2 if y > to_y else -ROW / 2
        aside = x + (aside - x) * 4 / 3  # a cubic comes as near as 3/4 to its control points
        way = f"C{aside:.1f},{y - up:.1f} {aside:.1f},{to_y + up:.1f} {to_x:.1f},{to_y:.1f}"
    return f'<path{kind} d="M{x:.1f},{y:.1f} {way}" marker-end="url(#tip)"/>'


def _aside(x: float, to_x: float, a: Box, b: Box, boxes: dict[str, Box]) -> float:
    """How far to the right an edge goes that passes other rows: around the boxes in its way; bars cannot be gone around."""
    low, high = sorted((a.row, b.row))
    between = [box for box in boxes.values() if low < box.row < high and box.width < BAR]
    left, right = min(x, to_x), max(x, to_x)
    ends = [box.x + box.width / 2 for box in between if box.x - box.width / 2 < right + 8 and box.x + box.width / 2 > left - 8]
    return max([right, *ends]) + ASIDE


def _shape(edge: Edge, boxes: dict[str, Box], nodes: dict[str, Node]) -> str:
    a, b = boxes[edge.source], boxes[edge.target]
    if nodes[edge.source].kind == "parameter":  # its shape stands in its box
        return ""
    if edge.source == edge.target:
        return f'<text class="shape beside" x="{a.x + a.width / 2 + 34:.1f}" y="{a.y + 3:.1f}">{edge.shape}</text>'
    x, y, to_x, to_y = _ends(edge, boxes)
    if edge.in_time:
        return f'<text class="shape" x="{(x + to_x) / 2:.1f}" y="{(y + to_y) / 2 - 5:.1f}">{edge.shape}</text>'
    if abs(a.row - b.row) == 1:
        return f'<text class="shape beside" x="{(x + to_x) / 2 + 4:.1f}" y="{(y + to_y) / 2 + 3:.1f}">{edge.shape}</text>'
    aside = x + 0.75 * (_aside(x, to_x, a, b, boxes) - x)
    return f'<text class="shape beside" x="{aside:.1f}" y="{y + (to_y - y) * 0.3 + 3:.1f}">{edge.shape}</text>'
