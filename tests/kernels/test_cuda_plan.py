"""Plans: what fits on which GPU, what a launch asks for, and why a form was not taken."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.cuda import plan as planning
from minirnn.kernels.cuda import source
from minirnn.kernels.cuda.devices import A100, H100, PUBLISHED, RTX_4090, Device
from minirnn.kernels.cuda.plan import GATES, Plan, form, plan

DEVICES = list(PUBLISHED.values())
FLOATS = ["float32", "float64", "float16", "bfloat16"]
CASE = (st.sampled_from(list(GATES)), st.sampled_from(["forward", "backward"]), st.sampled_from(FLOATS), st.sampled_from(DEVICES))


def largest(cell: str, dtype: str, device: Device) -> int:
    """The largest H up to which every size runs in the persistent form, in both directions."""
    return next(
        H - 1
        for H in itertools.count(1)
        if any(plan(cell, direction, H, 16, dtype, device).form == "step" for direction in ("forward", "backward"))
    )


@pytest.mark.parametrize(
    ("cell", "dtype", "device", "H"),
    [
        ("lstm", "float32", H100, 1024),
        ("lstm", "float16", H100, 1536),
        ("lstm", "bfloat16", H100, 1536),
        ("lstm", "float64", H100, 768),
        ("gru", "float16", H100, 2048),
        ("rnn", "float32", H100, 2048),
        ("lstm", "float32", A100, 864),
        ("lstm", "float16", A100, 1024),
        ("lstm", "float32", RTX_4090, 592),
        ("lstm", "float16", RTX_4090, 1024),
    ],
    ids=str,
)
def test_what_stays_on_chip(cell: str, dtype: str, device: Device, H: int) -> None:
    assert largest(cell, dtype, device) >= H


@given(*CASE, st.integers(1, 3000), st.integers(1, 3000))
def test_a_plan_keeps_to_the_limits(cell: str, direction: str, dtype: str, device: Device, H: int, N: int) -> None:
    p = plan(cell, direction, H, N, dtype, device)
    assert np.prod(p.block) == 256
    assert p.why
    if p.form == "step":
        assert p.grid[0] * 256 >= N * H
        assert p.blocks(N) == p.grid
        return
    assert p.slices * p.units >= H > (p.slices - 1) * p.units  # every unit has a block, every block a unit
    assert 1 <= p.groups <= -(-N // p.rows)  # every group has a tile
    assert p.slices * p.groups <= device.multiprocessors  # all at once, each alone on its multiprocessor
    gates, size = GATES[cell], {"float64": 8, "float32": 4}.get(dtype, 2)
    assert gates * p.units * H * size < p.shared <= device.shared_per_block  # the slice is on chip, with room for x and sums
    assert p.barriers == (p.slices > 1)


@given(*CASE, st.integers(1, 1600), st.integers(1, 500))
def test_the_order_of_sums_does_not_depend_on_the_batch(cell: str, direction: str, dtype: str, device: Device, H: int, N: int) -> None:
    """The hidden units of a block and the layout of its slice are those of one sequence alone, whatever form N leads to."""
    try:
        with form("persistent"):
            alone, batch = (plan(cell, direction, H, n, dtype, device) for n in (1, N))
    except RuntimeError:
        return
    assert replace(alone, N=N, grid=batch.grid) == batch
    assert alone.slices == batch.slices


def test_reasons_are_words() -> None:
    def why(H: int, N: int, dtype: str, device: Device, direction: str = "forward") -> str:
        p = plan("lstm", direction, H, N, dtype, device)
        assert p.form == "step"
        return p.why

    assert why(1180, 16, "float32", H100) == (  # 64 rows of 1,188 numbers of 4 bytes, and 8 regions of 4 KiB
        "with 8 hidden units each it needs 148 blocks at once, the device holds 132; "
        "with 16 hidden units a block needs 329 KiB of shared memory for its slice of w_hh, and can have 227 KiB"
    )
    assert why(1024, 1024, "float32", H100) == "a block would take 64 tiles in turn, and the library's product is quicker"
    assert plan("lstm", "forward", 1024, 128, "float32", H100).why == "keeps w_hh on chip, and one launch serves all steps"


def test_a_form_is_asked_for() -> None:
    def formed(N: int = 16) -> Plan:
        return plan("lstm", "forward", 256, N, "float32", H100)

    with form("step"):
        assert (formed().form, formed().why) == ("step", "the step form was asked for")
        with form(None):
            assert formed().form == "persistent"
        assert formed().form == "step"
    with form("persistent"):
        assert (formed(16384).form, formed(16384).why) == ("persistent", "the persistent form was asked for")
        with pytest.raises(
            RuntimeError, match=r"lstm forward, H=2000, float32: the persistent form cannot run on H100: with 8 hidden units"
        ):
            plan("lstm", "forward", 2000, 1, "float32", H100)
    with pytest.raises(ValueError, match='form must be "step" or "persistent", got \'fast\''), form("fast"):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"), [(("lstn", "forward"), "cell must be one of"), (("lstm", "up"), "direction must be one of")]
)
def test_unknown_names_are_errors(arguments: tuple[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(*arguments, 8, 1, "float32", H100)


def test_a_small_layer_uses_the_whole_device_for_a_large_batch() -> None:
    p = plan("lstm", "forward", 128, 512, "float32", H100)
    assert (p.slices, p.groups) == (16, 8)
    assert p.slices * p.groups > 0.9 * H100.multiprocessors


def test_python_and_cuda_agree_on_the_geometry() -> None:
    text = source.read("lstm/lstm.cu")
    assert re.findall(r"#define WARPS (\d+)", text) == [str(planning.WARPS)]
    assert re.findall(r"int ROWS = ([^;]*);", text) == ["THREADS / UNITS", "16"]
    assert [planning.tile_rows(units, cores) for cores in (True, False) for units in planning.UNITS] == [32, 16, 16, 16]


@given(*CASE, st.integers(1, 1500), st.sampled_from(planning.UNITS))
def test_shared_memory_is_what_the_kernel_lays_out(cell: str, direction: str, dtype: str, device: Device, H: int, units: int) -> None:
    """Rows of the slice are whole vectors of 16 bytes, and so are the regions behind them."""
    tensor_cores = planning.has_tensor_cores(dtype, device)
    shared = planning.shared_bytes(cell, direction, H, units, dtype, tensor_cores)
    assert shared % 16 == 0
    assert shared == planning.shared_bytes(cell, direction, H, units, dtype, tensor_cores)
    assert planning.shared_bytes(cell, direction, H + 64, units, dtype, tensor_cores) > shared
