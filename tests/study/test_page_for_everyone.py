"""The page in a real browser, for whoever reads it: with keys alone, by ear, in the dark, on a phone, and with any words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from minirnn.study.example import Axis, Example, Steps
from tests.study import made_up
from tests.study.browsing import changed, choose, go, number, plane, rounded, select

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDE, NARROW = 1200, 360
WORDS = ["", " ", "עברית", "🙂👩‍🔬", "</script>", "\u202eback", "a-word-that-goes-on-and-on-and-on", "&amp;", "\x00", "'\""]

# The colours of the paper, and of a cell of a heat map.
COLOURS = """() => {
  const map = document.querySelector("canvas.heat"), copy = new OffscreenCanvas(1, 1).getContext("2d");
  copy.drawImage(map, 0, 0);
  return [getComputedStyle(document.documentElement).backgroundColor, copy.getImageData(0, 0, 1, 1).data.join()];
}"""

# Which element has the focus, whether a line around it says so, and whether anything lies over it.
FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  if (at === document.body) return null;
  const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return {
    id: [...document.querySelectorAll("*")].indexOf(at),
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    visible: over !== null && (at.contains(over) || over.contains(at)),
  };
}"""

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


def awkward() -> Example:
    return made_up.translator(WORDS * 3, WORDS[::-1] * 2)


def endless() -> Example:
    return replace(made_up.translator(), title="x" * 80, text="y" * 300, run="z" * 120)


def check_contrast(opened: Page) -> None:
    """Every text can be read, in light and dark."""
    opened.locator("summary").click()
    for scheme in ("light", "dark"):
        select(opened, "Colours", scheme)
        choose(opened, 2)
        assert opened.evaluate(DIM) == []


def check_widths(opened: Page) -> None:
    """The page never scrolls sideways, and nothing but the frames of figures and tables does."""
    opened.locator("summary").click()
    for width in (NARROW, WIDE):
        opened.set_viewport_size({"width": width, "height": 800})
        for step in (0, 2):
            choose(opened, step)
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            outside = "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.frame'))"
            assert opened.evaluate(f"Math.max(...{outside}.map((e) => e.scrollWidth))") <= width


def check_names(opened: Page) -> None:
    """Every control and figure has a name, planes have one of their own and a description."""
    opened.locator("summary").click()
    named = {"combobox", "figure", "grid", "gridcell", "heading", "radio", "radiogroup", "region", "slider"}
    nodes = opened.context.new_cdp_session(opened).send("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in found} >= named
    assert [role for role, name in found if role in named | {"image"} and not name.strip()] == []
    grids = [name for role, name in found if role == "grid"]
    assert len(grids) == len(set(grids))
    for grid in opened.get_by_role("grid").all():
        described = grid.get_attribute("aria-describedby")
        assert len(opened.locator(f"#{described}").inner_text()) > 20
        assert int(grid.get_attribute("aria-rowcount") or 0) * int(grid.get_attribute("aria-colcount") or 0) > 0


def check_keys(opened: Page) -> None:
    """Tab leads to everything once, and Shift+Tab back; where the focus is can be seen."""
    everything = 1 + opened.locator("select, input, summary, [role=gridcell]").count()  # and one of the words
    ways = []
    for key in ("Tab", "Shift+Tab"):
        ways.append([])
        for _ in range(everything - len(ways) + 1):
            opened.keyboard.press(key)
            here = opened.evaluate(FOCUS)
            assert here is not None
            assert here["outline"]
            assert here["visible"], f"after {len(ways[-1])} times {key} the focus is hidden"
            ways[-1].append(here["id"])
    there, back = ways
    assert len(set(there)) == everything
    assert there[-2::-1] == back


EXAMPLES = [made_up.translator, made_up.captioner, made_up.forecaster]


@pytest.mark.parametrize("make", EXAMPLES)
def test_every_text_can_be_read(show: Callable[..., Page], make: Callable[[], Example]) -> None:
    check_contrast(show(make()))


@pytest.mark.parametrize("make", EXAMPLES)
def test_every_control_and_figure_has_a_name(show: Callable[..., Page], make: Callable[[], Example]) -> None:
    opened = show(make())
    check_names(opened)
    assert (opened.get_by_role("img").count() > 0) == (make is made_up.captioner)


@pytest.mark.parametrize("make", [*EXAMPLES, awkward, endless])
def test_the_page_never_scrolls_sideways(show: Callable[..., Page], make: Callable[[], Example]) -> None:
    check_widths(show(make(), NARROW))


def test_keys_alone_reach_everything_and_show_where_they_are(show: Callable[..., Page]) -> None:
    check_keys(show(made_up.translator()))


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_contrast, "--soft: light-dark(#595e68", "--soft: light-dark(#8a909c"),
        (check_contrast, "--wash: light-dark(#f6ab5c, #8a4a0c)", "--wash: light-dark(#f6ab5c, #d89050)"),
        (check_widths, "max-width: 100%; scrollbar-width: thin; }", "width: 400px; scrollbar-width: thin; }"),
        (check_names, 'el("label", {}, `${label} `, control)', 'el("label", {}, control)'),
        (check_names, 'role: "grid", "aria-label": label', 'role: "grid"'),
        (check_keys, 'role: "gridcell", tabindex: 0', 'role: "gridcell"'),
        (check_keys, ":focus-visible { outline: 2px", ":focus-visible { outline: 0px"),
        (check_keys, "scroll-padding: 110px 0 40px", "scroll-padding: 0"),
    ],
)
def test_a_page_that_shuts_somebody_out_is_noticed(
    show: Callable[..., Page], monkeypatch: pytest.MonkeyPatch, check: Any, old: str, new: str
) -> None:
    with pytest.raises(AssertionError):
        check(show(changed(monkeypatch, made_up.translator(), old, new)))


def test_the_switch_of_colours_overrules_the_system(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator(), color_scheme="dark")
    dark = opened.evaluate(COLOURS)
    select(opened, "Colours", "light")
    light = opened.evaluate(COLOURS)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    select(opened, "Colours", "dark")
    assert opened.evaluate(COLOURS) == dark
    opened.emulate_media(color_scheme="light")
    select(opened, "Colours", "as the system")
    assert opened.evaluate(COLOURS) == light
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(f"dark => ({COLOURS})().every((colour, k) => colour === dark[k])", arg=dark)


def test_a_figure_that_is_too_wide_scrolls_to_the_chosen_word(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator([f"w{k}" for k in range(60)], made_up.ENGLISH, H=2), NARROW)
    frame = opened.locator(".frame", has=plane(opened, "Norm of the gradient, by layer and time"))
    assert frame.evaluate("(frame) => frame.scrollLeft") == 0
    for step in (3, 8):
        choose(opened, step)
        word, around = frame.locator(".label.marked").bounding_box(), frame.bounding_box()
        assert word is not None
        assert around is not None
        assert around["x"] <= word["x"] <= around["x"] + around["width"]
    frame.evaluate("(frame) => { frame.scrollLeft = 0; }")
    select(opened, "Gradients", "logarithmic")
    assert frame.evaluate("(frame) => frame.scrollLeft") == 0  # whoever has looked elsewhere is left there


def test_print_is_dark_on_light(show: Callable[..., Page]) -> None:
    opened = show(made_up.translator(), color_scheme="light")
    light = opened.evaluate(COLOURS)
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(f"light => ({COLOURS})().every((colour, k) => colour !== light[k])", arg=light)
    opened.emulate_media(media="print")
    opened.wait_for_function(f"light => ({COLOURS})().every((colour, k) => colour === light[k])", arg=light)


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
    assert (tokens[1], tokens[5]) == ("␣", "⇄back")


def test_a_number_that_is_none_is_shown_as_none(show: Callable[..., Page]) -> None:
    made = made_up.translator(H=3)
    forget, influence = (array.copy() for array in (made.layers[0].forward["f"], made.influence["source"]))
    forget[1, 2] = influence[0, 1] = np.nan
    layers = [replace(made.layers[0], forward=made.layers[0].forward | {"f": forget}), *made.layers[1:]]
    opened = show(replace(made, layers=layers, influence={"source": influence}))
    select(opened, "Quantity", "f")
    assert go(plane(opened, "Units by time"), 2, 1).endswith("f: none")
    assert go(plane(opened, "Influence of each item of source"), 0, 1).endswith("gradient norm: none")
    alpha = """() => [...document.querySelector('[aria-label="Units by time"] canvas.heat').getContext("2d").getImageData(0, 0, 8, 3).data]
        .filter((_, k) => k % 4 === 3)"""
    assert [k for k, a in enumerate(opened.evaluate(alpha)) if a == 0] == [2 * 8 + 1]


def test_a_loss_without_parts_has_no_slider(show: Callable[..., Page]) -> None:
    axis = Axis("source", "tokens", ["one", "two"])
    influence = {"source": np.array([[0.5, 0.25]])}
    opened = show(Example("t", "", "m", "r", "0", [axis], Steps([], np.zeros(0), whole=2.0), influence=influence))
    assert opened.get_by_role("slider").count() == opened.get_by_role("radio").count() == 0
    assert opened.get_by_role("heading", name="Which inputs made the whole loss?").is_visible()
    assert go(plane(opened, "Influence of each item of source"), 0, 1).endswith("gradient norm: 0.2500")


def test_an_example_with_nothing_but_words_is_a_page(show: Callable[..., Page]) -> None:
    made = made_up.translator()
    opened = show(replace(made, layers=[], influence={}, attention=[], history={}))
    assert opened.get_by_role("heading").count() == 2
