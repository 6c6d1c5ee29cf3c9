"""What the README says: its code runs, its commands are understood, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.cli import make_parser

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in re.findall(r"^    (minirnn .*?)(?:  +#.*)?$", TEXT, re.MULTILINE)]


def test_the_code_runs_and_does_what_its_comments_say() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    dx = names["x"].grad.numpy()
    assert (dx[:2, 1] != 0).all()
    assert (dx[2:, 1] == 0).all()
    assert names["d2x"].shape == dx.shape
    assert np.isfinite(names["d2x"].numpy()).all()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    arguments = make_parser().parse_args(shlex.split(command)[1:])
    assert callable(arguments.handler)


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
