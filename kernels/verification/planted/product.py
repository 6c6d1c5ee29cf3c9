"""Changes to what the cells share: the product on chip, tensor cores, rows of the packed layout, and the plan."""

from __future__ import annotations

from minirnn.kernels.verification.planted.change import Change

_SLICE = "cuda/slice.cuh"
_TENSOR = "cuda/tensor_core.cuh"
_PACKED = "cuda/packed.cu"

_ORDERED = "for (int other = 1; other < 32; ++other) sum += sums[other][lane];"
_ATOMIC = """if (slot == 0) sums[0][lane] = 0;
  __syncthreads();
  atomicAdd(&sums[0][lane], sum);
  __syncthreads();
  if (slot > 0 || j >= columns) return;
  sum = sums[0][lane];"""

CHANGES = (
    Change("no barrier before a product", _SLICE, "__syncthreads();  // all have read the sums", "// all have read the sums", "lstm"),
    Change("no barrier after a product", _SLICE, "region());\n    __syncthreads();\n  }", "region());\n  }", "lstm"),
    Change("no barrier of the warp before x is staged", _SLICE, "__syncwarp();", "", "lstm", of=3),
    Change("no barrier of the warp after x is staged", _SLICE, "__syncwarp();", "", "lstm", nth=2, of=3),
    Change("no barrier of the warp before its sums are written", _SLICE, "__syncwarp();", "", "lstm", nth=3, of=3),
    Change(
        "a barrier of the block in a loop that warps leave at different times", _SLICE, "__syncwarp();", "__syncthreads();", "lstm", of=3
    ),
    Change(
        "the tail of K is not multiplied",
        _SLICE,
        "const int chunks = (K + CHUNK * VECTOR - 1) / (CHUNK * VECTOR);",
        "const int chunks = K / (CHUNK * VECTOR);",
        "lstm",
    ),
    Change(
        "the sums of the last warp are left out",
        _SLICE,
        "for (int warp = 0; warp < WARPS; ++warp)",
        "for (int warp = 0; warp < WARPS - 1; ++warp)",
        "lstm",
    ),
    Change(
        "each warp takes its first chunk only",
        _SLICE,
        "chunk < chunks; chunk += WARPS",
        "chunk < WARPS && chunk < chunks; chunk += WARPS",
        "lstm",
    ),
    Change("the chunk that was fetched ahead is the wrong one", _SLICE, "fetch(chunk + WARPS);", "fetch(chunk + 1);", "lstm"),
    Change("rows beyond the batch are read", _SLICE, "if (r < n && k < K) vector", "if (k < K) vector", "lstm"),
    Change("K beyond its end is read", _SLICE, "r < n && k + e < K ?", "r < n ?", "lstm"),
    Change(
        "w is not filled with zeros beyond K", _SLICE, "const int vectors = width() / VECTOR;", "const int vectors = K / VECTOR;", "lstm"
    ),
    Change("units that do not exist get rows of w_hh, which nobody asks for", _SLICE, "j < H ? G * H : 0", "G * H", "lstm", harmless=True),
    Change("the columns of the first block in all blocks", _SLICE, "first + e % vectors * VECTOR", "e % vectors * VECTOR", "rnn"),
    Change(
        "the region of a warp is too small for its sums",
        _SLICE,
        "regions + warp * Of8::region()",
        "regions + warp * (Of8::region() - 16)",
        "lstm",
    ),
    Change("a vector is read where rows start anywhere", _SLICE, "if (!rows_start_at_vectors(x, K))", "if (false)", "lstm"),
    Change("the order of a sum depends on the rows of the tile", _SLICE, "else if (n > 4)", "else if (n > 4 && false)", "lstm"),
    Change("loops that the compiler may unroll or not", _SLICE, "#pragma unroll", "", "lstm", harmless=True, of=15),
    Change("halves of 128 bytes as they are: slower, not wrong", _TENSOR, "(k ^ (m & 1) << 5)", "k", "lstm", "float16", harmless=True),
    Change("the fragments of w in the wrong row", _TENSOR, "place(8 * j + g, CHUNK", "place(8 * j + t, CHUNK", "lstm", "float16"),
    Change(
        "the lower rows of x in place of the upper ones",
        _TENSOR,
        "vector_of<WHOLE>(x, 16 * band + g + 8,",
        "vector_of<WHOLE>(x, 16 * band + g,",
        "lstm",
        "float16",
    ),
    Change(
        "two registers of a fragment exchanged",
        _TENSOR,
        "{(unsigned)p.x, (unsigned)q.x,",
        "{(unsigned)q.x, (unsigned)p.x,",
        "lstm",
        "float16",
    ),
    Change(
        "both instructions take the same half of w",
        _TENSOR,
        "mma_m16n8k16<Real>(sum[band][j], a[1], b[1]);",
        "mma_m16n8k16<Real>(sum[band][j], a[1], b[0]);",
        "lstm",
        "bfloat16",
    ),
    Change("the sums of a fragment read from the wrong lane", _TENSOR, "r % 8 * 4 + m % 8 / 2", "r % 8 * 4 + m % 4", "gru", "float16"),
    Change(
        "the tail of K is not multiplied, on tensor cores",
        _TENSOR,
        "const int chunks = (K + CHUNK - 1) / CHUNK;",
        "const int chunks = K / CHUNK;",
        "lstm",
        "float16",
    ),
    Change("a chunk beyond the last is multiplied", _TENSOR, "if (chunk < chunks) {", "{", "lstm", "float16"),
    Change("nothing is fetched after the first four chunks", _TENSOR, "fetch(d, chunk + AHEAD * WARPS);", "", "lstm", "float16", wide=True),
    Change(
        "half of the lanes leave before an instruction of the warp",
        _TENSOR,
        "if (chunk < chunks) {",
        "if (lane >= 16) return;\n        if (chunk < chunks) {",
        "lstm",
        "float16",
    ),
    Change("the step of a row is found one too late", _PACKED, "if (first[middle] <= row)", "if (first[middle] < row)", "lstm"),
    Change("rows gathered from the same step", _PACKED, "state + at(row - first[t] + first[t - 1], H)", "state + at(row, H)", "gru"),
    Change("no bound on the rows that are gathered", _PACKED, "if (row >= first[T]) return;", "", "rnn"),
    Change("no barrier in the sum over rows", _PACKED, "__syncthreads();", "", "gru"),
    Change("the sum over rows lacks one thread's share", _PACKED, "other < 32", "other < 31", "gru"),
    Change(
        "floats are added atomically, in the order in which threads come",
        _PACKED,
        "if (slot > 0 || j >= columns) return;\n  " + _ORDERED,
        _ATOMIC,
        "gru",
        "float32",
    ),
    Change("the plan forgets that rows of w are padded", "cuda/plan.py", "pad, chunk = 8 // lanes, 8", "pad, chunk = 0, 8", "rnn"),
    Change(
        "the plan has a block of units too few",
        "cuda/plan.py",
        "slices = -(-H // units) if units else 0",
        "slices = max(1, H // units) if units else 0",
        "lstm",
    ),
)
