"""The page as people use it, in a real browser, with keys and pointer: it shows what the example in Python holds.

The checks are functions, and the last tests break a page on purpose and demand that they notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from minirnn.study import page as pages
from minirnn.study.example import Example
from tests.study import made_up
from tests.study.browsing import changed, choose, go, number, plane, pointed, rounded, said, select

if TYPE_CHECKING:
    from playwright.sync_api import Page


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


# The checks are checked: each of these pages is broken in one place.


def swapped(example: Example) -> bytes:
    """The page of an example in which two numbers have changed places."""
    weights = example.layers[0].forward["f"].copy()
    weights[[0, 1]] = weights[[1, 0]]
    layers = [replace(example.layers[0], forward={**example.layers[0].forward, "f": weights}), *example.layers[1:]]
    return pages.render(replace(example, layers=layers))


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
