"""Changes to the fused operations and to the sums over a block that they share."""

from __future__ import annotations

from minirnn.kernels.verification.planted.change import Change

_ROWS = "cuda/rows.cuh"
_ENTROPY = "cross_entropy/cross_entropy.cu"
_NORM = "layer_norm/layer_norm.cu"

CHANGES = (
    Change(
        "a barrier more than is needed",
        _ROWS,
        "return value;\n}",
        "__syncthreads();\n  return value;\n}",
        "layer_norm",
        harmless=True,
        nth=2,
        of=2,
    ),
    Change("float16 is summed in float16", _ROWS, "{ return a + b; }", "{ return widen(narrow(a + b)); }", "layer_norm", "float16"),
    Change("no barrier before the warps' sums are read", _ROWS, "__syncthreads();", "", "layer_norm", of=2),
    Change("no barrier before the warps' sums are written again", _ROWS, "__syncthreads();", "", "layer_norm", nth=2, of=2),
    Change(
        "a barrier of the block that the first warp alone reaches",
        _ROWS,
        "__syncthreads();",
        "if (threadIdx.x < 32) __syncthreads();",
        "layer_norm",
        of=2,
    ),
    Change("sums of warps that do not exist", _ROWS, "lane < blockDim.x / 32 ? warps[lane] : identity", "warps[lane]", "layer_norm"),
    Change("room for the sums of seven warps", _ROWS, "__shared__ Wide warps[32];", "__shared__ Wide warps[2];", "cross_entropy"),
    Change(
        "a shuffle that half of the warp does not reach",
        _ROWS,
        "for (int distance = 16;",
        "if (threadIdx.x % 32 >= 16) return value;\n  for (int distance = 16;",
        "cross_entropy",
    ),
    Change("the term of label smoothing dropped", _ENTROPY, "if (on_all > 0) value -= on_all * shifted;", "", "cross_entropy"),
    Change(
        "the target counts once more for smoothing",
        _ENTROPY,
        "k == target ? on_all + on_target : on_all",
        "k == target ? on_target : on_all",
        "cross_entropy",
    ),
    Change("lse without the maximum", _ENTROPY, "= m + log_total;", "= log_total;", "cross_entropy"),
    Change(
        "classes from the first warp on are skipped",
        _ENTROPY,
        "for (int k = threadIdx.x; k < V; k += blockDim.x) {",
        "for (int k = threadIdx.x; k < V; k += 2 * blockDim.x) {",
        "cross_entropy",
        of=2,
    ),
    Change(
        "Adam's correction of v counts a step too many",
        "adam/cupy_.py",
        "math.sqrt(1 - beta2**t)",
        "math.sqrt(1 - beta2 ** (t + 1))",
        "adam",
    ),
    Change("decay is coupled where it should be decoupled", "adam/cupy_.py", "0.0 if decoupled else weight_decay", "weight_decay", "adam"),
    Change("a parameter beyond the last is updated", "adam/adam.cu", "if (j >= size) return;", "", "adam"),
    Change(
        "an integer overflows", "adam/adam.cu", "if (j >= size) return;", "if (j >= size || 0x7fffffff + (int)size == 7) return;", "adam"
    ),
    Change("v is the mean of g", "adam/adam.cu", "(g * g - before_v)", "(g - before_v)", "adam"),
    Change("a round of Philox is missing", "dropout/dropout.cu", "n < 10;", "n < 9;", "dropout"),
    Change("the tail of x has no bound", "dropout/dropout.cu", "if (e + n < size) y[e + n]", "y[e + n]", "dropout"),
    Change("a vector is read from any address", "dropout/dropout.cu", "if (aligned && e + 4 <= size)", "if (e + 4 <= size)", "dropout"),
    Change("the last row is left out of its sum", "embedding/embedding.cu", "n + a < S && ids", "n + a + 1 < S && ids", "embedding"),
    Change(
        "each row of a run writes the sum from itself on",
        "embedding/embedding.cu",
        "first > 0 && ids[first - 1] == v || d >= D",
        "d >= D",
        "embedding",
    ),
    Change("a run ends after sixteen rows", "embedding/embedding.cu", "more == AHEAD; n += AHEAD", "n == first; n += AHEAD", "embedding"),
    Change("columns beyond the last are summed", "embedding/embedding.cu", "== v || d >= D) return;", "== v) return;", "embedding"),
    Change("no barrier before a column's sums are added", _NORM, "__syncthreads();", "", "layer_norm"),
    Change("rows of the next block are counted twice", _NORM, "s < S && s < first + ROWS; s += LANES", "s < S; s += LANES", "layer_norm"),
    Change("the path through the variance dropped", _NORM, "(g - flat - n * along)", "(g - flat)", "layer_norm"),
    Change(
        "the path through the variance times 1.001", _NORM, "(g - flat - n * along)", "(g - flat - n * along * Wide(1.001))", "layer_norm"
    ),
    Change(
        "an array of another type",
        "layer_norm/cupy_.py",
        "xp.empty((2, P, D), wide(x.dtype))",
        "xp.empty((2, P, D), x.dtype)",
        "layer_norm",
        "float16",
    ),
)
