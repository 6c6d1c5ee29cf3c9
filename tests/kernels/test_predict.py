"""Predicted step times: a calculation by hand, and what must hold whatever the figures are. And the words that explain them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import explain, kernel
from minirnn.kernels.availability import missing
from minirnn.kernels.cuda import predict
from minirnn.kernels.cuda.devices import A100, BARRIER, H100, LAUNCH, PUBLISHED, RTX_4090, here
from minirnn.kernels.cuda.explain import blocks_of, describe, plan_of
from minirnn.kernels.cuda.plan import form, plan
from minirnn.kernels.cuda.predict import DIRECTIONS, Blocks, Layer, Step, parts, persistent, stepwise

CELLS = st.sampled_from(["lstm", "gru", "rnn"])
DTYPES = st.sampled_from(["float16", "bfloat16", "float32", "float64"])
DEVICES = st.sampled_from(list(PUBLISHED.values()))
SIZES = st.integers(1, 2048)


def test_a_step_of_an_lstm_by_hand() -> None:
    """H=768, N=16, float32 on an H100, 96 blocks of 8 hidden units: see predict.py for the numbers of the equations."""
    step, blocks = Step("lstm", "forward", N=16, H=768, dtype="float32"), Blocks(columns=96, units=8, groups=1, rows=16)
    operations = 2 * 16 * 4 * 768 * 768  # (1)
    assert operations == 75_497_472
    memory = (4 + 4 + 1 + 1) * 16 * 768 * 4  # (2): z; gates, c, h
    assert memory == 491_520
    found = parts(step, blocks, H100)
    assert found["floor"] == pytest.approx(75_497_472 / 66.9e12)  # (3): 1.13 us, more than 491,520 / 3.352e12 = 0.15 us
    assert found["product"] == pytest.approx(2 * 16 * (4 * 8 * 768) / (66.9e12 / 132))  # (4): 1.55 us
    assert found["on chip"] == pytest.approx(4 * 8 * 768 * 4 / (128 * 1.83e9))  # (5): 0.42 us
    assert found["exchange"] == pytest.approx((96 * 16 * 768 * 4 + 491_520) / (5120 * 1.83e9))  # (6): 0.56 us
    assert persistent(step, blocks, H100) == pytest.approx((1.5517e-6 + 0.5e-6, 1.5517e-6 + 3.0e-6), rel=1e-4)  # (7)
    weights = 4 * 768 * 768 * 4  # (8): 9.4 MB, in the L2 cache
    product = max(75_497_472 / 66.9e12, weights / (5120 * 1.83e9))
    pointwise = (2 * 4 * 16 * 768 * 4 + 491_520) / 3.352e12  # a is written and read again
    assert stepwise(step, H100) == pytest.approx((product + pointwise + 2 * 0.9e-6, product + pointwise + 2 * 10e-6))  # (9)


def test_a_layer_by_hand() -> None:
    layer = Layer("lstm", T=10, N=4, D=32, H=64, dtype="float64")
    step, inputs = 2 * 4 * 4 * 64 * 64, 2 * 40 * 32 * 256
    assert layer.operations("forward") == 10 * step + inputs
    assert layer.operations("backward") == 10 * step + 2 * inputs + 2 * 40 * 64 * 256  # dw_ih, dx; dw_hh
    floor = layer.floor("forward", H100)
    moved = 8 * (40 * 32 + 32 * 256 + 40 * 256)  # x, w_ih, z
    assert floor == pytest.approx(10 * Step("lstm", "forward", 4, 64, "float64").floor(H100) + max(inputs / 33.5e12, moved / 3.352e12))
    blocks = Blocks(8, 8, 1, 16)
    predicted = layer.predicted("forward", H100, blocks)
    assert predicted.least == pytest.approx(
        10 * persistent(layer.step("forward"), blocks, H100).least + max(inputs / 33.5e12, moved / 3.352e12)
    )


@given(CELLS, st.sampled_from(DIRECTIONS), SIZES, st.integers(1, 300), DTYPES, DEVICES)
def test_no_prediction_is_below_its_floor(cell: str, direction: str, H: int, N: int, dtype: str, device: predict.Device) -> None:
    blocks, step = blocks_of(plan(cell, direction, H, N, dtype, device)), Step(cell, direction, N, H, dtype)
    predicted = stepwise(step, device) if blocks is None else persistent(step, blocks, device)
    assert step.floor(device) <= predicted.least <= predicted.most
    layer = Layer(cell, 7, N, 33, H, dtype)
    assert layer.floor(direction, device) <= layer.predicted(direction, device, blocks).least


@given(CELLS, st.sampled_from(DIRECTIONS), SIZES, st.integers(1, 300), DTYPES, DEVICES)
def test_more_work_takes_no_less_time(cell: str, direction: str, H: int, N: int, dtype: str, device: predict.Device) -> None:
    def predicted(H: int, N: int) -> tuple[str, float, float]:
        found, step = plan(cell, direction, H, N, dtype, device), Step(cell, direction, N, H, dtype)
        blocks = blocks_of(found)
        return found.form, (stepwise(step, device) if blocks is None else persistent(step, blocks, device)).least, step.floor(device)

    form, least, floor = predicted(H, N)
    for more in (predicted(H + 1, N), predicted(H, N + 1), predicted(H, 2 * N)):
        assert more[2] > floor
        if more[0] == form:
            assert more[1] >= least


def test_one_barrier_a_step_and_none_where_one_block_owns_all_units() -> None:
    for H, barriers in ((8, 0), (9, 1), (1024, 1)):
        for direction in DIRECTIONS:
            found, step = plan("lstm", direction, H, 4, "float32", H100), Step("lstm", direction, 4, H, "float32")
            blocks = blocks_of(found)
            assert blocks is not None
            assert found.barriers == blocks.barriers == barriers
            work = max(parts(step, blocks, H100).values())
            assert persistent(step, blocks, H100) == pytest.approx(tuple(work + barriers * barrier for barrier in BARRIER))


def test_a_device_of_unknown_rates_gets_no_prediction() -> None:
    unknown = replace(H100, name="GPU of tomorrow", tensor=None, float32=None)
    step = Step("lstm", "forward", 4, 64, "float32")
    with pytest.raises(ValueError, match="no floor for GPU of tomorrow: its peak rates are not known; they are for H100, A100 and"):
        step.floor(unknown)
    with pytest.raises(ValueError, match="no prediction for H100: its clock or its L2 bandwidth is not known"):
        persistent(step, Blocks(8, 8, 1, 16), replace(H100, l2_bandwidth=None))


def test_published_figures_agree_with_each_other() -> None:
    """A multiprocessor of these devices does 128 float32 multiply-adds per clock (A100: 64); a figure of a wrong row would not fit."""
    for device, per_clock, clock in ((H100, 128, 1.98e9), (A100, 64, 1.41e9), (RTX_4090, 128, 2.52e9)):
        assert device.float32 == pytest.approx(2 * per_clock * device.multiprocessors * clock, rel=0.01)
        assert device.shared_per_block == device.shared_per_multiprocessor - 1024
    assert H100.tensor == pytest.approx(2 * 2048 * 132 * 1.83e9, rel=0.01)
    assert A100.tensor == pytest.approx(2 * 1024 * 108 * 1.41e9, rel=0.01)
    assert RTX_4090.tensor == pytest.approx(2 * 256 * 128 * 2.52e9, rel=0.01)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("device", list(PUBLISHED))
def test_explanations_say_that_nothing_was_measured(cell: str, dtype: str, device: str) -> None:
    lines = describe(cell, 50, 20, 30, 700, dtype, device)
    assert sum("NOT MEASURED" in line for line in lines) == 3  # of each direction, and above the table
    assert not any(re.search("(?<!NOT )MEASURED|[^t] measured", line) for line in lines)
    assert all(len(line) <= 140 for line in lines)


def test_an_explanation_shows_the_plan_and_what_it_rests_on() -> None:
    text = " ".join(explain(1024, 16, 768, 768, dtype="float32", device="H100").split())
    found = plan("lstm", "forward", 768, 16, "float32", H100)
    blocks = blocks_of(found)
    assert blocks is not None
    grid = f"{blocks.columns} x {blocks.groups} blocks of {found.block[0]} threads"
    assert f"{grid}, one launch for all 1024 steps, one grid barrier a step" in text
    slice_ = f"{blocks.units * 4 * 768 * 4 / 1024:.0f} KiB"
    assert f"on chip {found.shared / 1024:.0f} of 227 KiB of shared memory: its slice of w_hh, {slice_}" in text
    assert f"{8 * found.rows * 4 * blocks.units * 4 / 1024:.3g} KiB of 256 KiB of registers: the sums of a tile" in text
    assert "75.5 MFLOP; reads z 4 and writes gates 4, c 1, h 1 per unit and row" in text
    least, most = (1e6 * seconds for seconds in persistent(Step("lstm", "forward", 16, 768, "float32"), blocks, H100))
    assert f"predicted {least:.3g} to {most:.3g} us a step, NOT MEASURED" in text
    assert f"two launches of {LAUNCH[0] * 1e6:.1f} to {LAUNCH[1] * 1e6:.0f}" in text


def test_an_explanation_says_why_the_persistent_form_was_not_taken() -> None:
    text = " ".join(" ".join(describe("lstm", 10, 4, 8, 4096, "float32", "RTX 4090")).split())
    assert "not persistent: " in text
    assert plan("lstm", "forward", 4096, 4, "float32", RTX_4090).why in text


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(ValueError, match='explain: device must be "cuda", "emulated" or one of H100, A100, RTX 4090, got \'abacus\''):
        describe("lstm", 1, 1, 1, 1, "float32", "abacus")


@pytest.mark.skipif(missing("emulated") is not None, reason="needs what the emulator needs")
def test_a_device_is_read_anew_where_it_can_change() -> None:
    from minirnn.kernels.emulator import device, stand_in

    with device.device_properties(multiprocessors=132, shared_memory=227 * 1024, compute_capability="90"):
        found = here(stand_in)
        assert (found.multiprocessors, found.shared_per_block, found.shared_per_multiprocessor) == (132, 227 * 1024, 228 * 1024)
        assert found.compute_capability == (9, 0)
    assert here(stand_in).multiprocessors == device.Properties().multiprocessors
    assert here(stand_in).float32 is None


def test_the_plan_of_numba_kernels_is_their_own() -> None:
    """Every warp reads x and the w of each gate for itself: at H=768, N=16, 4 warps times 5 numbers for each k, a clock each."""
    step = Step("lstm", "forward", 16, 768, "float32")
    found = plan_of("numba-cuda", step, H100)
    assert (found.form, found.units, found.rows, found.block) == ("persistent", 8, 16, (8, 16))
    blocks = blocks_of(found)
    assert blocks is not None
    assert blocks.loads == 4 * 5
    assert parts(step, blocks, H100)["on chip"] == pytest.approx(4 * 5 * 768 / 1.83e9)
    with form("step"):
        assert plan_of("numba-cuda", step, H100).why == "the step form was asked for"
    with kernel("numba-cuda"):
        assert "96 x 1 blocks of 128 threads, one launch for all 9 steps" in explain(9, 16, 5, 768, device="H100")
    assert "hidden units" in plan_of("numba-cuda", Step("lstm", "forward", 16, 4096, "float32"), H100).why
