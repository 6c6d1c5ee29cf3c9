"""What a drawn graph consists of: the operations on the tape, unrolled into their time steps or folded into their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from minirnn.autograd import Function
from minirnn.study.drawing import Edge, Kind, Node
from minirnn.tensor import Tensor


class Collected:
    """Nodes and edges, each once, as they are found."""

    def __init__(self, parameters: bool) -> None:
        self.parameters = parameters
        self.nodes: dict[str, Node] = {}
        self.shapes: dict[tuple[str, str, bool], dict[str, None]] = {}  # of each edge, in their order
        self.number: dict[int, int] = {}  # of operations and leaves, in the order of their discovery

    def add(self, function: Function) -> None:
        raise NotImplementedError

    def finish(self) -> tuple[list[Node], list[Edge], list[str]]:
        """All nodes in the order of computation, the edges, and the names of the columns."""
        raise NotImplementedError

    def connect(self, source: str, target: str, shape: Any, in_time: bool = False, names: str = "") -> None:
        self.shapes.setdefault((source, target, in_time), {})[names + _shape(shape)] = None

    def edges(self) -> list[Edge]:
        return [Edge(source, target, ", ".join(shapes), in_time) for (source, target, in_time), shapes in self.shapes.items()]

    def key(self, thing: Any) -> str:
        return f"n{self.number.setdefault(id(thing), len(self.number))}"

    def leaf(self, t: Tensor, consumer: Function, column: int | None = None, shared: str = "") -> str | None:
        """The node of a tensor that no operation made, in the column of what reads it; None for one that is not drawn.

        shared  the key of an input that stands for others, too
        """
        name = getattr(t, "name", "")
        if name and not self.parameters:
            return None
        if not name and not t.requires_grad and t.size == 1:  # a constant of an equation
            return None
        key = self.key(t)
        if name:
            module = consumer.place.module
            path = module.path() if module is not None else ""
            label = ".".join(filter(None, (path, name))) + f"\n{t.shape}"
            self.nodes.setdefault(key, Node(key, label, kind="parameter", note=f"{name} {t.shape}"))
        else:
            key = shared or key
            layer = "" if column is None else consumer.place.name
            self.nodes.setdefault(key, Node(key, "input", layer, column, "input", f"input {t.shape} {t.dtype}"))
        return key


def _shape(shape: Any) -> str:
    return str(tuple(int(n) for n in shape))


def _note(function: Function) -> str:
    """What the tool tip of an operation says: where, what, from and to which shapes, with which parameters."""
    names = [f"{t.name} {t.shape}" for t in function.inputs if getattr(t, "name", "")]  # type: ignore[attr-defined]
    shapes = ", ".join(_shape(t.shape) for t in function.inputs if not getattr(t, "name", ""))
    results = ", ".join(_shape(shape) for shape, _ in function.output_types)
    where = f"{function.place}: " if function.place.name else ""
    return f"{where}{type(function).__name__} {shapes} -> {results}" + (f"; {', '.join(names)}" if names else "")


class _Run:
    """Calls of a layer that go on after each other, as those of a cell do."""

    T = 0  # steps of all of them


_Moment: TypeAlias = tuple[_Run, int]
SEVERAL: _Moment = (_Run(), -1)


class _Time:
    """A fused recurrence on the tape: its steps, and which of its inputs and outputs have rows for each.

    A cell that is called for one step after the other is a recurrence each time; its steps come after those of the call `before`.
    """

    def __init__(self, function: Function, before: _Time | None = None) -> None:
        sizes: np.ndarray[Any, Any] = function.batch_sizes  # type: ignore[attr-defined]
        self.sizes = sizes.tolist()
        self.T, self.N, self.S = len(sizes), int(sizes[0]), int(sizes.sum())
        self.backwards = function.place.part.endswith("reverse")
        self.run: _Run = _Run() if before is None else before.run
        self.start: int = 0 if before is None else before.start + before.T
        self.run.T = max(self.run.T, self.start + self.T)

    def is_rows(self, shape: tuple[int, ...]) -> bool:
        """Whether an array has a row for each sequence and step: (S, ...) or (T, N, ...)."""
        return len(shape) > 1 and (shape[0] == self.S or shape[:2] == (self.T, self.N)) and not (self.T == 1 and len(shape) > 2)

    def row_shape(self, t: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of such an array what belongs to step t."""
        return self.sizes[t], shape[-1]


class Unrolled(Collected):
    """One column for each time step."""

    def __init__(self, steps: int, parameters: bool, order: Iterable[Function]) -> None:
        super().__init__(parameters)
        self.steps = steps
        self.times: dict[int, _Time] = {}
        for f in order:
            if hasattr(f, "batch_sizes"):
                self.times[id(f)] = _Time(f, self.before(f))
        self.lengths: dict[str, int] = {}  # of what runs step by step, by layer
        for f in order:
            if f.place.step is not None:
                self.lengths[f.place.name] = max(self.lengths.get(f.place.name, 0), f.place.step + 1)
        self.moments: dict[int, _Moment | None] = {}  # of each operation that depends on the steps of a cell, the one that it does
        for f in order:
            if (time := self.times.get(id(f))) is not None:
                self.moments[id(f)] = (time.run, time.start) if time.T == 1 < time.run.T else None
            else:
                found = {self.moments[id(t.creator)] for t in f.inputs if t.creator is not None} - {None}
                self.moments[id(f)] = found.pop() if len(found) == 1 else SEVERAL if found else None
        self.T = max([time.run.T for time in self.times.values()] + list(self.lengths.values()), default=0)

    def column(self, step: int, T: int) -> tuple[int, bool]:
        """The column of a step of T, and whether that is the one of the steps that are left out."""
        if self.steps >= T:
            return step, False
        first = self.steps // 2
        last = self.steps - 1 - first
        if step < first:
            return step, False
        return (first, True) if step < T - last else (first + 1 + step - (T - last), False)

    def before(self, function: Function) -> _Time | None:
        """The call of the same layer whose states a recurrence begins with, or what was made of them."""
        place, found = function.place, None
        seen: set[int] = set()
        states = function.inputs[-_last_states(function) :] if getattr(function, "stateful", True) and place.module is not None else ()
        stack = [t.creator for t in states]
        while stack and not place.part.endswith("reverse"):
            other = stack.pop()
            if other is None or id(other) in seen:
                continue
            seen.add(id(other))
            if id(other) not in self.times:
                stack += [t.creator for t in other.inputs]
            elif other.place.module is place.module and other.place.part == place.part:
                time = self.times[id(other)]
                found = time if found is None or time.start > found.start else found
        return found

    def cell(self, function: Function, time: _Time, s: int) -> str:
        """The node of step s of a fused recurrence, counted as its kernel goes."""
        column, left_out = self.column(time.start + (time.T - 1 - s if time.backwards else s), time.run.T)
        key = f"{self.key(time.run if left_out else function)}_{column}"
        if key not in self.nodes:
            name = type(function).__name__.removesuffix("Layer")
            label, kind = ("\u2026", "more") if left_out else (name, "cell")
            group = self.key(function)
            self.nodes[key] = Node(key, label, function.place.name, column, kind, _note(function), group)  # type: ignore[arg-type]
        return key

    def plain(self, function: Function) -> str:
        """The node of any other operation."""
        place = function.place
        key, column = self.key(function), None
        if place.step is not None:
            column, left_out = self.column(place.step, self.lengths[place.name])
            if left_out:
                key = f"more_{place.name}"
                self.nodes.setdefault(key, Node(key, "\u2026", place.name, column, "more", f"{place.name}: the steps between"))
                return key
        elif (moment := self.moments[id(function)]) not in (None, SEVERAL):
            run, step = moment
            column, left_out = self.column(step, run.T)
            if left_out:
                return f"{self.key(run)}_{column}"
        self.nodes.setdefault(key, Node(key, type(function).__name__, place.name, column, note=_note(function)))
        return key

    def column_of_leaf(self, t: Tensor, consumer: Function) -> tuple[int | None, str]:
        """That of the one step which reads a tensor; None for what several steps may read. And the key that it shares with the inputs of
        other steps that are left out."""
        time, step = self.times.get(id(consumer)), consumer.place.step
        if time is not None:
            first = time.start + (time.T - 1 if time.backwards else 0)
            if time.is_rows(t.shape) and time.T > 1:
                return None, ""
            column, left_out = self.column(first, time.run.T)
            return column, f"{self.key(time.run)}_inputs" if left_out else ""
        return (None if step is None else self.column(step, self.lengths[consumer.place.name])[0]), ""

    def sources(self, t: Tensor, consumer: Function) -> Callable[[int | None], list[tuple[str, Any]]]:
        """For a step, counted as time goes, or None for all: the nodes that a tensor comes from, and the shapes of what comes."""
        function = t.creator
        if function is None:
            leaf = self.leaf(t, consumer, *self.column_of_leaf(t, consumer))
            return lambda step: [] if leaf is None else [(leaf, t.shape)]
        time = self.times.get(id(function))
        if time is None:
            key = self.plain(function)
            return lambda step: [(key, t.shape)]
        if not time.is_rows(t.shape) or t.slot >= len(function.output_types) - _last_states(function):
            last = self.cell(function, time, time.T - 1)
            return lambda step: [(last, t.shape)]

        def rows(step: int | None) -> list[tuple[str, Any]]:
            wanted = range(time.T) if step is None or step >= time.T else [time.T - 1 - step if time.backwards else step]
            return [(self.cell(function, time, s), time.row_shape(s, t.shape)) for s in wanted]

        return rows

    def add(self, function: Function) -> None:
        time = self.times.get(id(function))
        if time is None:
            key = self.plain(function)
            for t in function.inputs:
                for source, shape in self.sources(t, function)(None):
                    self._connect(source, key, shape)
            return
        names = ", ".join("hc"[: _last_states(function)])
        for s in range(1, time.T):
            shape = time.sizes[s], function.output_types[-1][0][-1]
            self._connect(self.cell(function, time, s - 1), self.cell(function, time, s), shape, f"{names} ")
        for t in function.inputs:
            sources, is_parameter = self.sources(t, function), bool(getattr(t, "name", ""))
            in_rows = time.is_rows(t.shape) and not is_parameter
            before = self.times.get(id(t.creator))
            what = f"{names} " if before is not None and before.run is time.run else ""
            for s in range(time.T if in_rows or is_parameter else 1):  # a state goes to the first step alone
                for source, shape in sources(time.T - 1 - s if time.backwards else s):
                    over_all_steps = in_rows and self.nodes[source].column is None
                    self._connect(source, self.cell(function, time, s), time.row_shape(s, t.shape) if over_all_steps else shape, what)

    def _connect(self, source: str, target: str, shape: Any, names: str = "") -> None:
        a, b = self.nodes[source].column, self.nodes[target].column
        if source != target:
            self.connect(source, target, shape, a is not None and b is not None and a != b, names)

    def finish(self) -> tuple[list[Node], list[Edge], list[str]]:
        names = [f"step {step}" for step in range(min(self.T, self.steps))]
        if self.steps < self.T:
            first = self.steps // 2
            names = [f"step {t}" for t in range(first)] + [f"{self.T - self.steps + 1} more"]
            names += [f"step {t}" for t in range(self.T - (self.steps - 1 - first), self.T)]
        return list(self.nodes.values()), self.edges(), names


def _last_states(function: Function) -> int:
    """How many of the outputs of a fused recurrence, at their end, are states after the last step."""
    return getattr(function, "states", 0) or len(function.output_types) // 2


class Folded(Collected):
    """One node for each layer; operations outside of any module stand for themselves."""

    def __init__(self, parameters: bool) -> None:
        super().__init__(parameters)
        self.names: dict[str, dict[str, int]] = {}  # of each node: its operations, and how often they run
        self.key_of: dict[int, str] = {}  # of each operation, the node that it went into
        self.latest: dict[str, str] = {}  # of each layer, the node that takes its operations
        self.below: dict[str, set[str]] = {}  # of each node, those that it is computed from

    def node(self, function: Function) -> str:
        """The node of an operation whose inputs have one: its layer's. Where a layer without parameters of its own goes on after others
        that it has fed (a packing before, a concatenation after them), it gets another node."""
        if id(function) in self.key_of:
            return self.key_of[id(function)]
        layer = function.place.name
        key = self.latest.get(layer, f"layer_{layer}") if layer else self.key(function)
        sources = {self.node(t.creator) for t in function.inputs if t.creator is not None} - {key}
        if not any(getattr(t, "name", "") for t in function.inputs) and any(key in self.below[source] for source in sources):
            key = f"{key}'"
        if layer:
            self.latest[layer] = key
        self.key_of[id(function)] = key
        self.nodes.setdefault(key, Node(key, layer or type(function).__name__, layer, note=_note(function)))
        self.below.setdefault(key, set()).update(sources, *(self.below[source] for source in sources))
        return key

    def add(self, function: Function) -> None:
        key = self.node(function)
        kinds = self.names.setdefault(key, {})
        name = type(function).__name__
        time = _Time(function) if hasattr(function, "batch_sizes") else None
        kinds[name] = kinds.get(name, 0) + (time.T if time else 1)
        if time:
            names = ", ".join("hc"[: _last_states(function)])
            self.connect(key, key, (time.N, function.output_types[-1][0][-1]), True, f"{names} ")
        for t in function.inputs:
            source = self.leaf(t, function) if t.creator is None else self.node(t.creator)
            if source is None:
                continue
            if source != key:
                self.connect(source, key, t.shape)
            elif t.creator is not None and _steps_between(t.creator, function):
                self.connect(key, key, t.shape, in_time=True)

    def finish(self) -> tuple[list[Node], list[Edge], list[str]]:
        nodes = []
        for key, node in self.nodes.items():
            kinds = self.names.get(key, {})
            note = node.note if sum(kinds.values()) == 1 or not kinds else f"{node.layer or node.label}: {_counted(kinds)}"
            kind: Kind = "cell" if (key, key, True) in self.shapes else node.kind
            label = node.label
            if node.layer:
                label += f"\n{_counted(kinds) if len(kinds) <= 2 else f'{sum(kinds.values())} operations'}"
            nodes.append(Node(key, label, node.layer, None, kind, note))
        return nodes, self.edges(), []


def _steps_between(a: Function, b: Function) -> bool:
    """Whether two operations belong to different time steps."""
    return None not in (a.place.step, b.place.step) and a.place.step != b.place.step


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(name if count == 1 else f"{name} \u00d7 {count}" for name, count in kinds.items())
