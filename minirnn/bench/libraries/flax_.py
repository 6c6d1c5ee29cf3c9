"""Flax's cells under `jax.lax.scan`, compiled, for the benchmark of recurrent layers (see `layer` beside this file).

The first call compiles, which is not timed. Flax has no packed sequences: of a ragged batch it computes the padding as well, and is told
the lengths. Its two biases are one, but for the candidate of a GRU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minirnn.bench.cases import STATES, Array, Arrays, Case, weight_shapes
from minirnn.bench.libraries.layer import PRODUCTS, Layer, Products, last_states, operands, step_through

TITLE = "Flax"
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": ("",)}
HAS_NO_BIAS = {"lstm": ("i",), "gru": ("hr", "hz"), "rnn": ("h",)}  # prefixes of names


def why_not() -> str | None:
    lacking = [name for name in ("jax", "flax") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(lacking)} {'are' if len(lacking) > 1 else 'is'} not installed" if lacking else None


def environment(dtype: str) -> dict[str, str]:
    return {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_ENABLE_X64": str(int(dtype == "float64"))}


def names(case: Case) -> list[str]:
    return ["cell" if case.stepwise else "layer"]


def make(name: str, case: Case, arrays: Arrays) -> Layer | Products:
    jax = _jax()
    if name == PRODUCTS:
        return _Products(jax, case)
    return _Steps(jax, case, arrays) if case.stepwise else _Whole(jax, case, arrays)


def count_allocations(run: Callable[[], Any]) -> int | None:
    """Nobody counts."""
    return None


def _jax() -> Any:
    """JAX takes as many threads as there are cores, and nothing else limits it."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: int(os.environ["OMP_NUM_THREADS"])])
    return importlib.import_module("jax")


def _cell(case: Case) -> Any:
    linen: Any = importlib.import_module("flax.linen")
    kind = {"lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell, "rnn": linen.SimpleCell}[case.cell]
    return kind(case.H, param_dtype=np.dtype(case.dtype))


def _weights(case: Case, arrays: Arrays, suffix: str) -> dict[str, dict[str, Array]]:
    """A cell's own tree: for each gate an input part and a recurrent part, whose kernels are (in, out)."""
    tree: dict[str, dict[str, Array]] = {}
    for number, gate in enumerate(GATES[case.cell]):
        rows = slice(number * case.H, (number + 1) * case.H)
        w_ih, w_hh, b_ih, b_hh = (arrays[name + suffix][rows] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        alone = case.cell == "gru" and gate == "n"  # the reset gate multiplies b_hn
        for part, weight, bias in (("i", w_ih, b_ih if alone else b_ih + b_hh), ("h", w_hh, b_hh if alone else b_ih + b_hh)):
            name = part + gate
            tree[name] = {"kernel": np.ascontiguousarray(weight.T)}
            if not name.startswith(HAS_NO_BIAS[case.cell]):
                tree[name]["bias"] = bias
    return tree


def _gradients(case: Case, tree: Any, suffix: str) -> Arrays:
    """Back from the tree; a bias that stands for two gives both their gradient."""
    found: dict[str, list[Array]] = {name: [] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    for gate in GATES[case.cell]:
        parts = {part: tree[part + gate] for part in "ih"}
        for part in "ih":
            other = parts["h" if part == "i" else "i"]
            found[f"weight_{part}h"].append(np.asarray(parts[part]["kernel"]).T)
            found[f"bias_{part}h"].append(np.asarray(parts[part].get("bias", other.get("bias"))))
    return {f"gradient of {name}{suffix}": np.concatenate(gates) for name, gates in found.items()}


class _Whole:
    def __init__(self, jax: Any, case: Case, arrays: Arrays) -> None:
        self.jax, self.case, self.arrays = jax, case, arrays
        self.suffixes = [name.removeprefix("weight_ih") for name in weight_shapes(case) if name.startswith("weight_ih")]
        put = jax.device_put
        self.weights = put({suffix: _weights(case, arrays, suffix) for suffix in self.suffixes})
        self.x, self.output_gradient = put(arrays["input"]), put(arrays["output_gradient"])
        self.states = put({name: array for name, array in arrays.items() if name.endswith("_0")})
        self.state_gradients = put([array for name, array in arrays.items() if name.endswith("_n_gradient")])
        self.lengths = put(case.lengths.astype(np.int32)) if case.ragged else None
        linen: Any = importlib.import_module("flax.linen")
        self.rnn = linen.RNN(_cell(case), time_major=True, return_carry=True)
        self.compiled_forward = jax.jit(self._run)
        self.compiled_both = jax.jit(self._both)

    def forward(self) -> Any:
        return self.jax.block_until_ready(self.compiled_forward(self.weights, self.x))

    def both(self) -> Any:
        return self.jax.block_until_ready(self.compiled_both(self.weights, self.x, self.output_gradient))

    def output_alone(self) -> Array:
        return np.asarray(self.forward()[0])

    def results(self, states: bool) -> Arrays:
        if states:
            given = self.weights, self.x, self.states
            (output, last), (weights, x, first) = self.jax.jit(self._with_states)(*given, self.output_gradient, self.state_gradients)
        else:
            (output, last), (weights, x) = self.both()
            first = {}
        found = {"output": output, **last_states(self.case, last if self.case.cell == "lstm" else last[0]), "gradient of input": x}
        found |= {f"gradient of {name}": gradient for name, gradient in first.items()}
        for suffix in self.suffixes:
            found |= _gradients(self.case, weights[suffix], suffix)
        return {name: np.asarray(array) for name, array in found.items()}

    def _both(self, weights: Any, x: Any, output_gradient: Any) -> Any:
        result, back = self.jax.vjp(self._run, weights, x)
        return result, back((output_gradient, self.jax.tree.map(self.jax.numpy.zeros_like, result[1])))

    def _with_states(self, weights: Any, x: Any, states: Any, output_gradient: Any, state_gradients: Any) -> Any:
        result, back = self.jax.vjp(self._run, weights, x, states)
        return result, back((output_gradient, state_gradients))

    def _run(self, weights: Any, x: Any, states: Any = None) -> tuple[Any, list[Any]]:
        """The output and the last states, h (and c), (K directions, N, H) each."""
        finals: list[Any] = []
        for layer in range(self.case.layers):
            outputs = []
            for suffix in [s for s in self.suffixes if s.startswith(f"_l{layer}")]:
                first = None if states is None else self._carry([states[f"{name}_0"][len(finals)] for name in STATES[self.case.cell]])
                options = {"seq_lengths": self.lengths, "initial_carry": first, "reverse": suffix.endswith("reverse"), "keep_order": True}
                carry, output = self.rnn.apply({"params": {"cell": weights[suffix]}}, x, **options)
                outputs.append(output)
                finals.append(self._carry(carry) if self.case.cell == "lstm" else [carry])
            x = self.jax.numpy.concatenate(outputs, axis=-1)
        if self.lengths is not None:
            x = self.jax.numpy.where((np.arange(self.case.T)[:, None] < self.lengths)[..., None], x, 0)
        return x, [self.jax.numpy.stack(states) for states in zip(*finals, strict=True)]

    def _carry(self, states: Any) -> Any:
        """h, c to Flax's c, h and back; of other cells h."""
        return (states[1], states[0]) if self.case.cell == "lstm" else states[0]


class _Steps:
    """A compiled cell, called for each step."""

    def __init__(self, jax: Any, case: Case, arrays: Arrays) -> None:
        self.jax, self.case = jax, case
        cell = _cell(case)
        weights = jax.device_put({"params": _weights(case, arrays, "_l0")})
        zeros = jax.numpy.zeros((case.N, case.H), case.dtype)

        @jax.jit  # type: ignore[untyped-decorator]
        def step(weights: Any, x: Any, state: Any) -> Any:
            carry, _ = cell.apply(weights, (state[1], state[0]) if case.cell == "lstm" else state, x)
            return (carry[1], carry[0]) if case.cell == "lstm" else carry

        first = (zeros, zeros) if case.cell == "lstm" else zeros
        self.module = lambda x, state: step(weights, x, first if state is None else state)
        self.steps = [jax.device_put(x) for x in arrays["input"]]

    def forward(self) -> Any:
        return self.jax.block_until_ready(step_through(self.module, False, self.case.cell, self.steps))

    def both(self) -> Any:
        raise NotImplementedError("steps have no gradients here")

    def output_alone(self) -> Array:
        return self.results(states=False)["output"]

    def results(self, states: bool) -> Arrays:
        outputs, last = self.forward()
        found = {name: np.asarray(state)[None] for name, state in last_states(self.case, last).items()}
        return {"output": np.stack([np.asarray(output) for output in outputs]), **found}


class _Products:
    """One compiled function for each pass."""

    def __init__(self, jax: Any, case: Case) -> None:
        self.jax = jax
        self.compiled = jax.jit(jax.numpy.matmul)
        self.passes = {pass_: [jax.device_put((a, b)) for a, b, _ in operands(case, pass_)] for pass_ in case.passes}

    def forward(self) -> None:
        self._run("forward")

    def both(self) -> None:
        self._run("both")

    def _run(self, pass_: str) -> None:
        self.jax.block_until_ready([self.compiled(a, b) for a, b in self.passes[pass_]])
