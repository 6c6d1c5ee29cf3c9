"""The file that a page is: complete, closed to the network, and safe from what its own texts say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.errors import MinirnnError
from minirnn.study import page
from minirnn.study.example import Axis, Example, Steps
from tests.study import made_up

EXAMPLES = {"translator": made_up.translator, "captioner": made_up.captioner, "forecaster": made_up.forecaster}
TAGS = {"html", "head", "meta", "link", "title", "style", "body", "noscript", "p", "div", "script"}
AWKWARD = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>",
    "\"'`\\",
    "&lt;b&gt;",
    "{{data}}",
    "עברית",
    "\u202eback",
    "🙂👩‍🔬",
    "\u2028\x00\n",
    "\ud800",
    "",
]


class Reader(HTMLParser):
    """The elements of a page in order, with their attributes and the text inside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.elements[-1][2].append(data)

    def text(self, tag: str, **attributes: str) -> str:
        found = [text for name, got, text in self.elements if name == tag and attributes.items() <= got.items()]
        assert len(found) == 1
        return "".join(found[0])

    def script(self) -> str:
        (found,) = [text for name, got, text in self.elements if name == "script" and "type" not in got]
        return "".join(found)


def read(example: Example) -> tuple[Reader, dict[str, Any]]:
    reader = Reader(page.render(example).decode())
    return reader, json.loads(reader.text("script", id="data"))


def array(value: dict[str, Any]) -> np.ndarray:
    kind = "float32" if "float32" in value else "uint8"
    return np.frombuffer(base64.b64decode(value[kind]), kind).reshape(value["shape"])


def awkward() -> Example:
    """Every text of the example is one that could do harm."""
    made = made_up.translator(AWKWARD, AWKWARD[::-1])
    return replace(made, title=AWKWARD[0], text=AWKWARD[1], model=AWKWARD[3], run=AWKWARD[10], version=AWKWARD[5])


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_array_lies_in_the_page_as_float32(name: str) -> None:
    example = EXAMPLES[name]()
    _, data = read(example)
    for axis, written in zip(example.inputs, data["inputs"], strict=True):
        assert written["labels"] == axis.labels
        for key in ("values", "image"):
            value = getattr(axis, key)
            if value is not None:
                np.testing.assert_array_equal(array(written[key]), value.astype(np.float32) if key == "values" else value)
    np.testing.assert_array_equal(array(data["outputs"]["losses"]), example.outputs.losses.astype(np.float32))
    for layer, written in zip(example.layers, data["layers"], strict=True):
        for group in ("forward", "backward", "norms", "saturation"):
            given = getattr(layer, group)
            assert list(written[group]) == list(given)
            for key, value in given.items():
                np.testing.assert_array_equal(array(written[group][key]), value.astype(np.float32))
    for key, value in example.influence.items():
        np.testing.assert_array_equal(array(data["influence"][key]), value.astype(np.float32))
    for attention, written in zip(example.attention, data["attention"], strict=True):
        np.testing.assert_array_equal(array(written["weights"]), attention.weights.astype(np.float32))
    assert data["history"] == example.history


@pytest.mark.parametrize("make", [*EXAMPLES.values(), awkward])
def test_nothing_leads_out_of_the_page(make: Any) -> None:
    reader, _ = read(make())
    assert {tag for tag, _, _ in reader.elements} <= TAGS
    attributes = [pair for _, found, _ in reader.elements for pair in found.items()]
    links = [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset", "poster")]
    assert links == ["data:,"]
    style = reader.text("style")
    assert "url(" not in style
    assert "@import" not in style
    script = reader.script()
    for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "innerHTML", "eval(", "new Function"):
        assert word not in script
    assert re.findall(r"\w+://[^\"']*", script) == ["http://www.w3.org/2000/svg"]  # a name, not an address


def test_the_policy_allows_these_scripts_and_this_style_and_nothing_else() -> None:
    reader, _ = read(made_up.translator())
    (policy,) = [a["content"] for tag, a, _ in reader.elements if tag == "meta" and "http-equiv" in a]
    script = reader.script()
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (reader.text("style"), script)]
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"


def test_no_text_becomes_code_and_every_text_comes_back() -> None:
    example = awkward()
    reader, data = read(example)
    tags = [tag for tag, _, _ in reader.elements]
    assert tags == [tag for tag, _, _ in read(made_up.translator())[0].elements]
    assert reader.text("title") == AWKWARD[0]
    assert data["inputs"][0]["labels"] == AWKWARD
    assert data["outputs"]["labels"] == AWKWARD[::-1]
    assert (data["title"], data["text"], data["run"]) == (example.title, example.text, example.run)


def test_a_title_with_half_a_letter_is_written_all_the_same() -> None:
    reader, data = read(replace(made_up.translator(), title="a\ud800b"))
    assert reader.text("title") == "a?b"
    assert data["title"] == "a\ud800b"


def test_numbers_that_are_none_are_written_so_that_a_browser_can_read_them() -> None:
    made = made_up.translator()
    influence = made.influence["source"].copy()
    influence[0, :3] = np.nan, np.inf, 1e300
    _, data = read(replace(made, influence={"source": influence}, history={"train": [{"step": 1, "loss": float("nan"), "best": True}]}))
    np.testing.assert_array_equal(array(data["influence"]["source"])[0, :3], [np.nan, np.inf, np.inf])
    assert data["history"] == {"train": [{"step": 1, "loss": None, "best": True}]}


def test_what_a_page_cannot_say_is_refused() -> None:
    axis = Axis("source", "tokens", [b"bytes"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="page: cannot write a complex"):
        page.render(Example("t", "", "m", "r", "0", [axis], Steps([], np.zeros(0), whole=1j)))  # type: ignore[arg-type]


def test_the_same_example_gives_the_same_bytes_and_another_one_others() -> None:
    assert page.render(made_up.translator()) == page.render(made_up.translator())
    assert page.render(made_up.translator()) != page.render(made_up.translator(seed=1))


def test_a_page_is_its_numbers_and_little_else() -> None:
    example = made_up.forecaster(T=20, H=64)
    layer = example.layers[0]
    groups = (layer.forward, layer.backward, layer.norms, layer.saturation, example.influence)
    numbers = sum(value.size for group in groups for value in group.values())
    size = len(page.render(example))
    assert 4 / 3 * 4 * numbers < size < 4 / 3 * 4 * numbers + 100_000


def test_a_page_is_whole_or_not_there(tmp_path: Path) -> None:
    page.write(made_up.captioner(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == page.render(made_up.captioner())
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(MinirnnError, match=r"cannot write .*there is no folder"):
        page.write(made_up.captioner(), tmp_path / "nowhere" / "page.html")
