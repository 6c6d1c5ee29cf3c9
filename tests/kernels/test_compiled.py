"""What a compiled kernel takes: the reports are read right, what must not be is found, and the table lists what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from minirnn.kernels.cuda import compiled, without_driver
from minirnn.kernels.cuda.resources import Resources, float64_instructions, launch_bounds, parse, shared_in

REPORT = """\
ptxas info    : 6461 bytes gmem, 10768 bytes cmem[4]
ptxas info    : Compiling entry function 'first' for 'sm_75'
ptxas info    : Function properties for first
ptxas         .     48 bytes stack frame, 32 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 48 bytes cumulative stack size, 1056 bytes smem, 412 bytes cmem[0]
ptxas info    : Compile time = 57.387 ms
ptxas info    : Compiling entry function 'second' for 'sm_75'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 376 bytes cmem[0]
"""

PTX = """\
.version 9.5
.target sm_90
.visible .shared .align 4 .b8 tile[1024];
.shared .align 16 .b8 rest[32];

.func  (.param .b64 func_retval0) apart(
	.param .b64 apart_param_0
)
{
	.reg .f64 	%fd<3>;
	ld.param.f64 	%fd1, [apart_param_0];
	st.param.f64 	[func_retval0], %fd1;
	ret;
}
.visible .entry bounded(
	.param .u64 bounded_param_0
)
.maxntid 32, 8, 1
{
	.reg .f64 	%fd<3>;
	.reg .f32 	%f<3>;
	// begin inline asm
	{.reg .b16 low;
	mov.b16 low, 0;
}
	// end inline asm
	cvt.f64.f32 	%fd1, %f1;
	ret;
}
.visible .entry free()
{
	add.f32 	%f1, %f2, %f3;
	ret;
}
"""

# A thread's array that a variable indexes cannot lie in registers, and 150 numbers that are all needed at once do not fit into 32 of them.
AT_FAULT = """
extern "C" __global__ void __launch_bounds__(64) local_array(const float* x, float* y, int n) {
  float kept[16] = {};
  for (int i = 0; i < n; ++i) kept[(i * i) & 15] += x[i];
  y[threadIdx.x] = kept[n & 15];
}
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(const float* x, float* y) {
  float kept[150];
#pragma unroll
  for (int i = 0; i < 150; ++i) kept[i] = x[threadIdx.x + 1024 * i];
#pragma unroll
  for (int i = 0; i < 150; ++i) y[threadIdx.x + 1024 * i] = kept[149 - i] * kept[(i * 7) % 150];
}
extern "C" __global__ void __launch_bounds__(64) wide(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] * 0.1; }
extern "C" __global__ void __launch_bounds__(64) clean(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] * 0.1f; }
"""


@pytest.fixture
def _nvrtc() -> None:
    reason = without_driver.why_not_cupy()
    if reason:
        pytest.skip(reason)


def test_a_report_is_read() -> None:
    assert parse(REPORT) == {
        "first": Resources(registers=64, stack=48, spill_stores=32, spill_loads=16, shared=1056, barriers=1),
        "second": Resources(registers=12, stack=0, spill_stores=0, spill_loads=0, shared=0, barriers=0),
    }
    with pytest.raises(ValueError, match="ptxas: the report on first does not say how many registers it uses"):
        parse(REPORT.replace("Used 64 registers", "no idea"))


def test_ptx_is_read() -> None:
    assert float64_instructions(PTX) == {"apart": 2, "bounded": 1, "free": 0}
    assert launch_bounds(PTX) == {"bounded": 256, "free": None}
    assert shared_in(PTX) == 1056


def test_registers_are_handed_out_to_whole_warps_in_eights() -> None:
    takes = Resources(registers=64, stack=0, spill_stores=0, spill_loads=0, shared=0, barriers=0)
    assert takes.fits(1024)  # 64 x 1,024 = 65,536
    assert not Resources(65, 0, 0, 0, 0, 0).fits(1024)
    assert Resources(255, 0, 0, 0, 0, 0).fits(256)
    assert not Resources(255, 0, 0, 0, 0, 0).fits(257)


@pytest.mark.usefixtures("_nvrtc")
def test_planted_faults_are_found() -> None:
    found = {c.kernel: c.faults() for c in compiled.compile_source("planted.cu", AT_FAULT, ("--std=c++17",), "float32", [90])}
    assert set(found) == {"local_array", "spilling", "wide", "clean"}
    assert found["local_array"] == ["keeps 64 bytes in local memory"]
    assert found["spilling"][0].startswith("spills ")
    assert found["wide"][0].startswith("has ")
    assert found["wide"][0].endswith(" float64 instructions")
    assert found["clean"] == []


@pytest.mark.usefixtures("_nvrtc")
def test_float64_may_stand_in_a_float64_kernel() -> None:
    kernels = compiled.compile_source("planted.cu", AT_FAULT, ("--std=c++17",), "float64", [80])
    (wide,) = (c for c in kernels if c.kernel == "wide")
    assert wide.float64 > 0
    assert wide.faults() == []


@pytest.mark.usefixtures("_nvrtc")
@pytest.mark.parametrize("path", ["layer_norm/layer_norm.cu", "cross_entropy/cross_entropy.cu"])
def test_a_file_compiles_clean(path: str) -> None:
    found = list(compiled.compile_unit(path, "float32", [90]))
    assert {(c.file, c.kernel, c.dtype) for c in found} == {entry for entry in compiled.listed_in_sources([path]) if entry[2] == "float32"}
    assert [fault for c in found for fault in c.faults()] == []


@pytest.mark.usefixtures("_nvrtc")
def test_what_does_not_compile_is_named() -> None:
    with pytest.raises(Exception, match="error: identifier") as caught:
        list(compiled.compile_source("planted.cu", "__global__ void f() { undefined(); }", (), "float32", [90]))
    assert "undefined" in compiled.first_error(caught.value)


def test_a_table_is_read_as_it_was_written() -> None:
    takes = Resources(registers=40, stack=0, spill_stores=0, spill_loads=0, shared=128, barriers=1)
    rows = [
        compiled.Compiled(file, kernel, dtype, architecture, threads, 7 * (dtype == "float64"), takes)
        for file, kernel, threads in (("gru/gru.cu", "gru_step_forward", 256), ("lstm/numba_cuda.py", "lstm_step_forward", None))
        for dtype in ("float32", "float64")
        for architecture in (75, 90)
    ]
    table = compiled.markdown(rows)
    assert "| `gru_step_forward` | float64 | 256 | 40 | 40 | 128 | 0 | 0 | 1 | 7 |" in table
    assert "| `lstm_step_forward` | float32 | any | 40 | 40 | 128 | 0 | 0 | 1 | 0 |" in table
    assert "one block fits a multiprocessor:\n8 combinations" in table
    assert compiled.read(table) == rows
    assert compiled.markdown(compiled.read(table)) == table
    assert "**1 faults** in 1 combinations" in compiled.markdown([compiled.Compiled("a.cu", "k", "float32", 75, 256, 3, takes)])


@pytest.mark.usefixtures("_nvrtc")
def test_a_file_by_name_replaces_its_part_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    takes = Resources(registers=999, stack=0, spill_stores=0, spill_loads=0, shared=0, barriers=0)
    rows = [compiled.Compiled(f"{name}/{name}.cu", "k", "float32", 90, 32, 0, takes) for name in ("adam", "lstm")]
    monkeypatch.setattr(compiled, "TABLE", tmp_path / "COMPILED.md")
    monkeypatch.setattr(compiled, "ARCHITECTURES", (90,))
    compiled.TABLE.write_text(compiled.markdown(rows))
    assert compiled.main(["adam/adam.cu"]) == 0
    written = compiled.read(compiled.TABLE.read_text())
    assert [c for c in written if c.file == "lstm/lstm.cu"] == rows[1:]
    assert {c.kernel for c in written if c.file == "adam/adam.cu"} == {e[1] for e in compiled.listed_in_sources(["adam/adam.cu"])}


def test_an_outdated_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    takes = Resources(registers=40, stack=0, spill_stores=0, spill_loads=0, shared=0, barriers=0)
    rows = [compiled.Compiled(*entry[:2], entry[2], 90, 256, 0, takes) for entry in sorted(compiled.listed_in_sources())]
    monkeypatch.setattr(compiled, "TABLE", tmp_path / "COMPILED.md")
    compiled.TABLE.write_text(compiled.markdown(rows))
    assert compiled.main(["--check"]) == 0
    gone = compiled.Compiled("gone/gone.cu", "gone", "float32", 90, 256, 0, takes)
    compiled.TABLE.write_text(compiled.markdown([*rows[1:], gone]))
    assert compiled.main(["--check"]) == 1
    complaint = capsys.readouterr().err
    assert f"{rows[0].file}: {rows[0].kernel} ({rows[0].dtype}) is not in COMPILED.md" in complaint
    assert "gone/gone.cu: gone (float32) is gone, but in COMPILED.md" in complaint
    assert "out of date; make compiled writes it anew" in complaint


def test_the_types_of_a_numba_kernel_come_from_its_documentation() -> None:
    def kernel(z: object, h: object, c: object, first: object, skip: int, relu: bool) -> None:
        """A kernel.

        z        (S, 4H)    read
        h, c     (S, H)     written
        first    (T + 1,)   int32, read: the first row of every step
        skip     columns to leave out (none if 0)
        """

    kernel.__annotations__ = {"skip": "int", "relu": "bool"}
    expected = "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], int32[::1], int64, boolean)"
    assert compiled.signature_of(kernel, "float32") == expected
    kernel.__doc__ = "z   (S, H)"
    with pytest.raises(ValueError, match="kernel: the docstring says no shape for z"):
        compiled.signature_of(kernel, "float32")


def test_a_numba_kernel_compiles_clean() -> None:
    reason = without_driver.why_not_numba()
    if reason:
        pytest.skip(reason)
    (found,) = compiled.compile_numba("cuda/numba_rows.py", "column_sum", "float32", [80])
    assert found.resources.shared == 8 * 32 * 4
    assert found.resources.barriers == 1
    assert found.faults() == []


def test_the_table_of_this_tree_lists_every_kernel_and_no_fault() -> None:
    assert compiled.main(["--check"]) == 0
    assert [fault for c in compiled.read(compiled.TABLE.read_text()) for fault in c.faults()] == []
