"""The page as people use it: in a real browser without a screen, with keys and pointer.

What the page shows is held against the example in Python. The checks are functions, and the last tests break a page on purpose and demand
that they notice.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.study import page as pages
from minirnn.study.example import Example
from tests.study import made_up

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright.sync_api import Browser, Locator, Page, sync_playwright
except ImportError:
    pytest.skip("needs Playwright to drive a browser (pip install 'minirnn[browser]')", allow_module_level=True)
if BROWSER is None:
    pytest.skip("needs Chromium: none of chromium, chromium-browser, google-chrome is on the path", allow_module_level=True)

WIDE, NARROW = 1200, 360
WORDS = ["", " ", "עברית", "🙂👩‍🔬", "</script>", "\u202eback", "a-word-that-goes-on-and-on-and-on", "&amp;", "\x00", "'\""]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        found = driver.chromium.launch(executable_path=BROWSER, args=options)
        yield found
        found.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Write a page and open it from disk. Nothing may be written to its console, and nothing but its file asked for."""
    troubles: list[str] = []
    contexts = []

    def show(example: Example | bytes, width: int = WIDE, scheme: Any = "light", **options: Any) -> Page:
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_bytes(example if isinstance(example, bytes) else pages.render(example))
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        opened.on("console", lambda message: troubles.append(f"console: {message.text}"))
        opened.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        opened.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(f"request: {request.url}"))
        opened.goto(path.as_uri())
        opened.wait_for_selector("footer")
        return opened

    yield show
    for context in contexts:
        context.close()
    assert troubles == []


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


def check_numbers(opened: Page, example: Example) -> None:
    """At several cells and loss steps, every figure shows what Python has."""
    rng = np.random.default_rng(0)
    axes = example.lengths()
    for step in (0, 1, len(example.outputs)):
        choose(opened, step)
        for name, norms in example.influence.items():
            axis = next(axis for axis in example.inputs if axis.name == name)
            _, columns = axis.grid or (1, axes[name])
            for t in rng.integers(axes[name], size=3):
                assert said(plane(opened, f"Influence of each item of {name}"), *divmod(int(t), columns)) == rounded(norms[step, t])
        for layer in example.layers:
            select(opened, "Layer", layer.name)
            gradients = {name: array[step] for name, array in layer.backward.items()}
            for quantity, numbers in (gradients if step else layer.forward | gradients).items():
                select(opened, "Quantity", quantity)
                for _ in range(3):
                    t, unit = (int(rng.integers(n)) for n in numbers.shape)
                    assert said(plane(opened, "Units by time"), unit, t) == rounded(numbers[t, unit])
            gates = list(layer.saturation)
            row, t = int(rng.integers(2 * len(gates))), int(rng.integers(axes[layer.axis]))
            expected = layer.saturation[gates[row // 2]][t, row % 2]
            assert said(plane(opened, "Saturation of the gates by time"), row, t) == rounded(expected)
        for attention in example.attention:
            row, t = (int(rng.integers(n)) for n in attention.weights.shape)
            assert said(plane(opened, f"{attention.name}: outputs by {attention.axis}"), row, t) == rounded(attention.weights[row, t])


def check_slider(opened: Page, example: Example) -> None:
    """Keys and pointer move the slider, and with it the figures and the words."""
    slider, first = opened.get_by_role("slider"), example.layers[0]
    norms, grid = first.norms["dh"], plane(opened, "Norm of the gradient, by layer and time")
    L, outlines = len(example.outputs), set()
    last = example.lengths()[first.axis] - 1

    def check(step: int) -> None:
        assert slider.input_value() == str(step)
        assert said(grid, 0, last if step == 0 else 0) == rounded(norms[step, last if step == 0 else 0])
        outlines.add(opened.locator(f'path.ribbon[data-layer="{first.name}"]').get_attribute("d"))
        assert opened.get_by_role("radio", checked=True).evaluate("chip => [...chip.parentNode.children].indexOf(chip)") == step
        name = f"“{example.outputs.labels[step - 1]}”" if step else "the whole loss"
        assert opened.get_by_role("heading", name=f"Which inputs made {name}?", exact=True).is_visible()

    check(0)
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("End", L), ("ArrowLeft", L - 1), ("Home", 0)):
        slider.focus()
        slider.press(key)
        check(step)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    check(L)
    opened.get_by_role("radio").nth(3).click()
    check(3)
    assert len(outlines) >= min(4, L)


def check_orders(opened: Page, example: Example) -> None:
    """The rows of a heat map are the units, sorted as is said."""
    layer, step = example.layers[0], min(2, len(example.outputs))
    choose(opened, step)
    select(opened, "Layer", layer.name)
    gradient = layer.backward["dh"][step].astype(np.float32).astype(float)
    grid = plane(opened, "Units by time")
    for quantity in ("h", "dh"):
        select(opened, "Quantity", quantity)
        numbers = gradient if quantity == "dh" else layer.forward[quantity].astype(np.float32).astype(float)
        keys = {
            "unit number": np.zeros(numbers.shape[1]),
            "mean, high to low": -numbers.mean(0),
            "variance over time, high to low": -numbers.var(0),
            "norm of dh, high to low": -np.linalg.norm(gradient, axis=0),
            "time of the largest value": np.abs(numbers).argmax(0),
        }
        for order, key in keys.items():
            select(opened, "Order of rows", order)
            shown = []
            for row in range(len(key)):
                label = go(grid, row, 0)
                shown.append(int(re.findall(r"unit (\d+)", label)[0]))
                assert number(label.rpartition(": ")[2]) == rounded(numbers[0, shown[-1]])
            assert shown == np.argsort(key, kind="stable").tolist()
    select(opened, "Order of rows", "unit number")


@pytest.mark.parametrize("make", [made_up.translator, made_up.captioner, lambda: made_up.forecaster(T=12, H=5)])
def test_numbers_are_those_of_python(show: Callable[..., Page], make: Callable[[], Example]) -> None:
    example = make()
    opened = show(example)
    assert opened.get_by_role("heading", level=1).inner_text() == example.title
    check_numbers(opened, example)


@pytest.mark.parametrize("make", [made_up.translator, lambda: made_up.forecaster(T=12, H=5)])
def test_the_slider_changes_what_is_shown(show: Callable[..., Page], make: Callable[[], Example]) -> None:
    example = make()
    check_slider(show(example), example)


def test_sorting_permutes_the_rows(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    check_orders(show(example), example)


def test_of_a_long_example_the_nearest_step_that_is_kept_is_shown(show: Callable[..., Page]) -> None:
    made = made_up.translator()
    layers = [replace(layer, parts=[0, 3, 8], backward={n: g[[0, 3, 8]] for n, g in layer.backward.items()}) for layer in made.layers]
    opened = show(replace(made, layers=layers, note="by unit for 2 of 8 words"))
    assert opened.get_by_text("by unit for 2 of 8 words").is_visible()
    select(opened, "Quantity", "dc")
    for step, kept in ((0, 0), (1, 3), (3, 3), (5, 3), (6, 8), (8, 8)):
        choose(opened, step)
        assert said(plane(opened, "Units by time"), 4, 2) == rounded(made.layers[0].backward["dc"][kept, 2, 4])
        words = opened.locator("section", has=opened.get_by_role("heading", name="Unit by unit")).locator(".note").first.inner_text()
        here, there = (f"“{made.outputs.labels[k - 1]}”" if k else "the whole loss" for k in (kept, step))
        assert (f"Here for {here}." if kept == step else f"Here for {here}, the nearest to {there} that is kept unit by unit.") in words


def test_what_was_expected_of_a_series_is_beside_it(show: Callable[..., Page]) -> None:
    made = made_up.forecaster(T=12, H=5)
    (axis,) = made.inputs
    values = np.asarray(axis.values)
    expected = np.where(np.isnan(values), 0.0, values) + np.linspace(0.1, 0.2, values.size).reshape(values.shape)
    opened = show(replace(made, inputs=[replace(axis, expected=expected)]))
    assert opened.locator(".curve.expected").count() == values.shape[1]
    label = go(plane(opened, f"Influence of each item of {axis.name}"), 0, 5)
    found = re.findall(r"expected ([^·]*) · ", label)[0].split(", ")
    assert [number(text) for text in found] == [rounded(value) for value in expected[5]]
    assert opened.get_by_text("the wide pale line: what the model expected").is_visible()


def test_many_values_a_frame_are_a_map(show: Callable[..., Page]) -> None:
    made = made_up.forecaster(T=12, H=5)
    roll = (np.random.default_rng(0).random((12, 9)) < 0.3).astype(float)
    roll[:, 2] = 0  # a value that never changes is left out
    keys = list("ABCDEFGHI")
    axis = replace(made.inputs[0], values=roll, expected=np.where(roll, 0.75, 0.25), columns=keys)
    opened = show(replace(made, inputs=[axis]))
    grid = plane(opened, f"Influence of each item of {axis.name}")
    assert grid.locator("rect.came").count() == roll.sum()
    assert grid.locator("canvas").evaluate("map => [map.width, map.height]") == [12, 8]
    t = int(roll.sum(1).argmax())
    names = " ".join(key for key, value in zip(keys, roll[t], strict=True) if value)
    assert f" · value {names} · expected {names} · " in go(grid, 0, t)


def test_the_pointer_reads_the_cell_under_it(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    weights = example.attention[0].weights
    L, T = weights.shape
    grid = plane(opened, "attention: outputs by source")
    height = grid.locator("canvas").bounding_box()["height"] / grid.bounding_box()["height"]  # type: ignore[index]
    for row, t in [(0, 0), (L - 1, T - 1), (2, 5), (5, 1)]:
        assert pointed(grid, (t + 0.5) / T, height * (row + 0.5) / L) == rounded(weights[row, t])
    opened.mouse.down()
    opened.mouse.up()
    assert opened.get_by_role("slider").input_value() == "6"  # a click on a row chooses its word


def test_the_ribbon_is_as_wide_as_the_norm(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    choose(opened, 4)
    layer = example.layers[2]
    norm = layer.norms["dh"][4]
    widest = max(each.norms["dh"][4].max() for each in example.layers)

    def halves() -> np.ndarray:
        outline = opened.locator('path.ribbon[data-layer="decoder.l0"]').get_attribute("d")
        upper = re.findall(r"([\d.]+),([\d.]+)(?: |$)", (outline or "").partition(" L")[0].replace("C", " C"))
        y = np.array([float(point[1]) for point in upper])
        return y.max() - y

    share = norm / widest
    linear = halves()
    for t in range(len(norm)):
        assert np.isclose(linear / 33, share[t], atol=1e-3).any()
    assert np.isclose(linear.max() / 33, share.max(), atol=1e-3)
    select(opened, "Gradients", "logarithmic")
    expected = np.clip(1 + np.log10(share.max()) / 4, 0, 1)
    assert np.isclose(halves().max() / 33, expected, atol=1e-3)


def test_the_colours_of_a_heat_map_are_those_of_its_legend(show: Callable[..., Page]) -> None:
    example = made_up.translator(H=5)
    opened = show(example)
    select(opened, "Quantity", "f")
    pixels = opened.evaluate(
        """() => { const map = document.querySelector('[aria-label="Units by time"] canvas.heat');
        return [map.width, map.height, [...map.getContext("2d").getImageData(0, 0, map.width, map.height).data]]; }"""
    )
    stops = opened.evaluate("() => getComputedStyle(document.querySelector('.legend .bar.gate')).backgroundImage")
    colours = np.array([[int(c) for c in stop.split(",")] for stop in re.findall(r"rgb\(([^)]*)\)", stops)])
    width, height, data = pixels
    shown = np.array(data).reshape(height, width, 4)[..., :3]
    places = np.linspace(0, 1, len(colours))
    forget = example.layers[0].forward["f"].T
    expected = np.stack([np.interp(forget, places, colours[:, k]) for k in range(3)], -1)
    assert np.abs(shown - expected).max() <= 2  # 256 steps of colour, and rounding


@pytest.mark.parametrize("make", [made_up.translator, made_up.captioner, made_up.forecaster])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(show: Callable[..., Page], make: Callable[[], Example], scheme: str) -> None:
    opened = show(make(), scheme=scheme)
    opened.locator("summary").click()
    choose(opened, 2)
    assert opened.evaluate(DIM) == []


def test_the_switch_of_colours_overrules_the_system(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator(), scheme="dark")
    colours = """() => {
        const map = document.querySelector("canvas.heat"), copy = new OffscreenCanvas(1, 1).getContext("2d");
        copy.drawImage(map, 0, 0);
        return [getComputedStyle(document.documentElement).backgroundColor, ...copy.getImageData(0, 0, 1, 1).data].join();
    }"""
    dark = opened.evaluate(colours)
    select(opened, "Colours", "light")
    light = opened.evaluate(colours)
    assert not set(light.split(",")[:6]) & set(dark.split(",")[:6])  # neither the paper's nor the heat map's
    select(opened, "Colours", "dark")
    assert opened.evaluate(colours) == dark
    opened.emulate_media(color_scheme="light")
    select(opened, "Colours", "as the system")
    assert opened.evaluate(colours) == light
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(f"dark => ({colours})() === dark", arg=dark)


@pytest.mark.parametrize(
    "make",
    [
        made_up.translator,
        made_up.captioner,
        made_up.forecaster,
        lambda: made_up.translator(WORDS * 3, WORDS[::-1] * 2),
        lambda: replace(made_up.translator(), title="x" * 80, text="y" * 300, run="z" * 120),
    ],
)
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_page_never_scrolls_sideways(show: Callable[..., Page], make: Callable[[], Example], width: int) -> None:
    opened = show(make(), width)
    opened.locator("summary").click()
    for step in (0, 2):
        choose(opened, step)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        sizes = opened.evaluate("() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.frame')).map(e => e.scrollWidth)")
        assert max(sizes) <= width


def test_every_control_and_figure_has_a_name(show: Callable[..., Page]) -> None:
    for make in (made_up.translator, made_up.captioner, made_up.forecaster):
        opened = show(make())
        opened.locator("summary").click()
        named = {"combobox", "figure", "grid", "gridcell", "heading", "image", "radio", "radiogroup", "region", "slider"}
        nodes = opened.context.new_cdp_session(opened).send("Accessibility.getFullAXTree")["nodes"]
        found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        assert {role for role, _ in found} >= named - ({"image"} if made_up.captioner != make else set())
        assert [role for role, name in found if role in named and not name.strip()] == []
        grids = [name for role, name in found if role == "grid"]
        assert len(grids) == len(set(grids))
        for grid in opened.get_by_role("grid").all():
            described = grid.get_attribute("aria-describedby")
            assert len(opened.locator(f"#{described}").inner_text()) > 20
            assert int(grid.get_attribute("aria-rowcount") or 0) * int(grid.get_attribute("aria-colcount") or 0) > 0


def test_keys_alone_reach_everything_and_show_where_they_are(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator())
    everything = opened.evaluate(
        "() => document.querySelectorAll('select, input, summary, [role=gridcell]').length + 1"  # and one of the words
    )
    seen = []
    for _ in range(everything + 5):
        opened.keyboard.press("Tab")
        here = opened.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
            if (at === document.body) return null;
            const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return { outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
                     id: [...document.querySelectorAll("*")].indexOf(at),
                     visible: over !== null && (at.contains(over) || over.contains(at)) }; }"""
        )
        if here is None:
            break
        assert here["outline"]
        assert here["visible"], f"the element in focus number {len(seen)} is hidden"
        seen.append(here["id"])
    assert len(seen) == len(set(seen)) == everything


def test_keys_move_the_cursor_of_a_plane(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    weights = example.attention[0].weights
    L, T = weights.shape
    grid = plane(opened, "attention: outputs by source")
    cell = grid.get_by_role("gridcell")
    cell.focus()
    for key, row, t in [
        ("ArrowUp", 0, 0),
        ("ArrowRight", 0, 1),
        ("ArrowDown", 1, 1),
        ("End", 1, T - 1),
        ("ArrowRight", 1, T - 1),
        ("Control+End", L - 1, T - 1),
        ("PageUp", L - 2, T - 1),
        ("ArrowLeft", L - 2, T - 2),
        ("Home", L - 2, 0),
        ("Control+Home", 0, 0),
    ]:
        opened.keyboard.press(key)
        assert opened.evaluate("document.activeElement.getAttribute('role')") == "gridcell"
        label = cell.get_attribute("aria-label") or ""
        assert number(label.rpartition(": ")[2]) == rounded(weights[row, t])
        assert (cell.get_attribute("aria-colindex"), cell.locator("..").get_attribute("aria-rowindex")) == (str(t + 1), str(row + 1))
        box, map_ = cell.bounding_box(), grid.locator("canvas").bounding_box()
        assert box is not None
        assert map_ is not None
        assert np.isclose(box["x"] - map_["x"], t * map_["width"] / T, atol=1)
        assert np.isclose(box["y"] - map_["y"], row * map_["height"] / L, atol=1)


def test_words_are_chosen_with_keys(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    opened.get_by_role("radio", checked=True).focus()
    for key, step in [("ArrowRight", 1), ("End", 8), ("ArrowLeft", 7), ("Home", 0), ("ArrowLeft", 0)]:
        opened.keyboard.press(key)
        assert opened.get_by_role("slider").input_value() == str(step)
        assert opened.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    go(plane(opened, "attention: outputs by source"), 4, 0)
    opened.keyboard.press("Enter")
    assert opened.get_by_role("slider").input_value() == "5"


def test_the_tables_hold_the_numbers(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    opened.locator("summary").click()
    choose(opened, 3)
    tables = opened.evaluate(
        """() => [...document.querySelectorAll("table")].map((table) => [...table.tBodies[0].rows].map((row) =>
        [...row.cells].map((cell) => cell.textContent)))"""
    )
    losses, influence, first = tables[:3]
    assert [row[1] for row in losses] == example.outputs.labels
    assert [number(row[3]) for row in losses] == [rounded(x) for x in example.outputs.losses]
    assert [number(row[2]) for row in influence] == [rounded(x) for x in example.influence["source"][3]]
    assert [number(row[2]) for row in first] == [rounded(x) for x in example.layers[0].norms["dh"][3]]


def test_training_is_shown(show: Callable[..., Page]) -> None:
    example = made_up.translator()
    opened = show(example)
    grid = plane(opened, "norm of the gradient over the updates")
    row = example.history["train"][7]
    where, _, value = go(grid, 0, 7).rpartition(": ")
    assert where == f"update {row['step']}"
    exact = Decimal(row["norm"])
    assert number(value) == exact.quantize(Decimal(1).scaleb(exact.adjusted() - 3), ROUND_HALF_UP)


def test_nothing_moves_where_motion_is_not_wanted(show: Callable[..., Page]) -> None:
    def moving(preference: str) -> int:
        opened = show(made_up.translator(), reduced_motion=preference)
        return opened.evaluate(
            "() => [...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0).length"
        )

    assert moving("no-preference") > 0
    assert moving("reduce") == 0


def test_awkward_words_are_shown_and_run_nothing(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator(WORDS, WORDS))
    tokens = opened.locator(".token").all_inner_texts()
    assert [tokens[k] for k in (0, 2, 3, 4, 7, 8, 9)] == ["∅", "עברית", "🙂👩‍🔬", "</script>", "&amp;", "␀", "'\""]
    assert tokens[1] == "␣"


def test_an_example_with_nothing_but_words_is_a_page(show: Callable[..., Page]) -> None:
    made = made_up.translator()
    opened = show(replace(made, layers=[], influence={}, attention=[], history={}))
    assert opened.get_by_role("heading").count() == 2


# The checks are checked: each of these pages is broken in one place.


def swapped(example: Example) -> bytes:
    """The page of an example in which two numbers have changed places."""
    weights = example.layers[0].forward["f"].copy()
    weights[[0, 1]] = weights[[1, 0]]
    layers = [replace(example.layers[0], forward={**example.layers[0].forward, "f": weights}), *example.layers[1:]]
    return pages.render(replace(example, layers=layers))


def changed(monkeypatch: pytest.MonkeyPatch, example: Example, old: str, new: str) -> bytes:
    """The page of an example with an error in its script."""
    read = pages._asset
    assert sum(read(f"{name}.js").count(old) for name in pages.SCRIPTS) == 1
    monkeypatch.setattr(pages, "_asset", lambda name: read(name).replace(old, new))
    return pages.render(example)


def test_two_numbers_in_each_others_place_are_noticed(show: Callable[..., Page]) -> None:
    example = made_up.translator(["a", "b"], ["c"], H=1)
    with pytest.raises(AssertionError):
        check_numbers(show(swapped(example)), example)


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_slider, "  chosen.step = step;\n", ""),
        (check_slider, "  chosen.step = step;\n  redraw();", "  chosen.step = step;"),
        (check_slider, "norms[chosen.norm]?.at(chosen.step)", "norms[chosen.norm]?.at(0)"),
        (check_numbers, "backward[chosen.quantity].at(chosen.step)", "backward[chosen.quantity].at(0)"),
        (check_numbers, "x.toPrecision(4)", "x.toPrecision(3)"),
        (check_orders, "keys[a] - keys[b] || a - b", "keys[b] - keys[a] || a - b"),
        (check_orders, "shown(numbers()[c * order.length + order[r]])", "shown(numbers()[c * order.length + r])"),
    ],
)
def test_a_broken_page_is_noticed(show: Callable[..., Page], monkeypatch: pytest.MonkeyPatch, check: Any, old: str, new: str) -> None:
    example = made_up.translator(["a", "b", "c"], ["d", "e", "f"], H=4)
    with pytest.raises(AssertionError):
        check(show(changed(monkeypatch, example, old, new)), example)


# Texts whose contrast with what lies behind them is below 4.5 (WCAG 2.2, 1.4.3).
DIM = """() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number), alpha = numbers[3] ?? 1;
    return [...(text.startsWith("color(") ? numbers.slice(0, 3).map((x) => 255 * x) : numbers.slice(0, 3)), alpha];
  };
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a]) => [r, g, b].map((x, k) => a * x + (1 - a) * under[k]), [255, 255, 255]);
  };
  const light = (rgb) => rgb.slice(0, 3).map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, k) => sum + x * [0.2126, 0.7152, 0.0722][k], 0);
  const dim = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) dim.push([walk.currentNode.data, (a + 0.05) / (b + 0.05)]);
  }
  return dim;
}"""
