"""What the README says: its code runs, its commands are understood, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.cli import make_parser
from minirnn.kernels.emulator import build

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.strip() for line in re.findall(r"^    (minirnn .*?)(?:  +#.*)?$", TEXT, re.MULTILINE)]


def test_the_code_runs_and_does_what_its_comments_say() -> None:
    names: dict[str, Any] = {}
    for block in CODE[:2]:
        exec(block, names)
    dx = names["x"].grad.numpy()
    assert (dx[:2, 1] != 0).all()
    assert (dx[2:, 1] == 0).all()
    assert names["d2x"].shape == dx.shape
    assert np.isfinite(names["d2x"].numpy()).all()


def test_the_code_of_the_trace_shows_what_its_comments_say() -> None:
    names: dict[str, Any] = {}
    for block in (CODE[0], CODE[2]):
        exec(block, names)
    t = names["t"]
    assert t.layers == ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert t["l0"].dh[3].shape == (3, 8)
    assert np.isnan(t["l0"].dh[3]).all(axis=1).tolist() == [False, True, False]
    assert t["l1"].contribution("w_hh").shape == (7,)


@pytest.mark.skipif(build.missing() is not None, reason=f"the emulated device cannot be used: {build.missing()}")
def test_the_code_for_a_device_gives_what_the_cpu_gives() -> None:
    assert len(CODE) == 4
    names: dict[str, Any] = {}
    exec(CODE[3], names)
    gradient = names["lstm"].weight_hh_l0.grad
    assert gradient.device == "emulated"
    there: dict[str, Any] = {}
    exec(CODE[3].replace('"emulated"', '"cpu"'), there)
    expected = there["lstm"].weight_hh_l0.grad.numpy()
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    arguments = make_parser().parse_args(shlex.split(command)[1:])
    assert callable(arguments.handler)


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
