"""What the tests of the page do with it: choose, move and read, as its users do."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from minirnn.study import page as pages
from minirnn.study.example import Example

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def rounded(number: float) -> Decimal:
    """The float32 nearest to a number, to four significant digits."""
    exact = Decimal(float(np.float32(number)))
    return exact if exact == 0 else exact.quantize(Decimal(1).scaleb(exact.adjusted() - 3), ROUND_HALF_UP)


def number(text: str) -> Decimal:
    return Decimal(text.replace("−", "-"))


def plane(opened: Page, name: str) -> Locator:
    return opened.get_by_role("grid", name=name, exact=True)


def choose(opened: Page, step: int) -> None:
    """Choose the loss step with the slider's keys."""
    slider = opened.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    for _ in range(step):
        slider.press("ArrowRight")


# Keys that a plane gets, all at once: sent one by one from here they would take most of the time of these tests.
PRESS = """(cell, [row, column]) => {
  const press = (key, ctrlKey = false) => cell.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey, bubbles: true }));
  cell.focus();
  press("Home", true);
  for (let k = 0; k < row; k++) press("ArrowDown");
  for (let k = 0; k < column; k++) press("ArrowRight");
  return [cell.getAttribute("aria-label"), cell.closest("figure").querySelector("output").textContent];
}"""


def go(grid: Locator, row: int, column: int) -> str:
    """Move the cursor of a plane to a cell; what is then said of it, by the cell and by the readout alike."""
    label, readout = grid.get_by_role("gridcell").evaluate(PRESS, [row, column])
    assert label.replace(": ", " ") == readout.replace(": ", " ")
    return label


def said(grid: Locator, row: int, column: int) -> Decimal:
    return number(go(grid, row, column).rpartition(": ")[2])


def pointed(grid: Locator, x: float, y: float) -> Decimal:
    """What the readout says where the pointer is, x and y in shares of the plane."""
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    assert box is not None
    grid.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    return number(grid.locator("xpath=ancestor::figure").locator("output .number").inner_text())


def select(opened: Page, label: str, option: str) -> None:
    opened.get_by_role("combobox", name=label, exact=True).select_option(label=option)


def changed(monkeypatch: pytest.MonkeyPatch, example: Example, old: str, new: str) -> bytes:
    """The page of an example with an error in its scripts or its style."""
    read = pages._asset
    assert sum(read(name).count(old) for name in ("page.css", *(f"{name}.js" for name in pages.SCRIPTS))) == 1
    monkeypatch.setattr(pages, "_asset", lambda name: read(name).replace(old, new))
    return pages.render(example)
