"""The comparison with the reference, with errors planted: each is found, and named with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minirnn.bench.cases import Arrays, Case, draw
from minirnn.bench.reference import reference
from minirnn.bench.report import to_json
from minirnn.bench.validation import allowed, as_json, compare

CASE = Case("lstm", 7, 5, 3, 4, ragged=True)


@pytest.fixture
def right() -> Arrays:
    return reference(CASE, draw(CASE), states=True)


def faults(found: Arrays, right: Arrays) -> list[str]:
    return [d.fault() for d in compare(CASE, found, right) if not d.right]


def test_what_is_rounded_to_float32_is_right(right: Arrays) -> None:
    assert faults({name: array.astype(np.float32) for name, array in right.items()}, right) == []


@pytest.mark.parametrize("quantity", ["output", "h_n", "c_n", "gradient of input", "gradient of weight_hh_l0", "gradient of c_0"])
def test_a_thousandth_too_much_is_found_in_every_quantity(right: Arrays, quantity: str) -> None:
    (fault,) = faults({**right, quantity: 1.001 * right[quantity]}, right)
    assert fault.startswith(f"{quantity} differs from the float64 reference by 0.001 of its largest element")


def test_a_shift_by_one_step_begins_where_the_pass_begins(right: Arrays) -> None:
    (fault,) = faults({**right, "output": np.roll(right["output"], 1, axis=0)}, right)
    assert "first at time step 0, sequence 0, unit 0" in fault
    late = right["gradient of input"].copy()
    late[2, 3, 1] += 1
    late[5, 0, 2] += 1  # the backward pass comes here first
    (fault,) = faults({**right, "gradient of input": late}, right)
    assert fault.endswith("first at time step 5, sequence 0, feature 2")


def test_a_number_that_is_none_is_found(right: Arrays) -> None:
    spoilt = right["h_n"].copy()
    spoilt[0, 2, 1] = np.nan
    (fault,) = faults({**right, "h_n": spoilt}, right)
    assert fault == "h_n is not finite, first at layer 0, sequence 2, unit 1"
    (wrong,) = [d for d in as_json(compare(CASE, {**right, "h_n": spoilt}, right)) if not d["right"]]
    assert json.loads(to_json(wrong))["difference"] is None


def test_what_is_missing_or_has_another_shape_is_an_error(right: Arrays) -> None:
    with pytest.raises(ValueError, match="expected output, h_n"):
        compare(CASE, {"output": right["output"]}, right)
    with pytest.raises(ValueError, match="h_n has the shape"):
        compare(CASE, {**right, "h_n": right["h_n"][:, :1]}, right)


def test_what_is_allowed_is_far_from_a_thousandth() -> None:
    large = Case("lstm", 1000, 64, 1024, 1024, layers=2, bidirectional=True)
    assert 1e-5 == allowed(CASE) < allowed(large) < 5e-4
    assert allowed(Case("lstm", 1000, 64, 1024, 1024, dtype="float64")) == 1e-10
