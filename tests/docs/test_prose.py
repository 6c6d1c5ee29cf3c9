"""Docstrings as the reference shows them: no word is lost or changed, and each part is shown as what it is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
from extensions.prose import aligned, blocks, fields, inline, is_equation, is_python, render
from hypothesis import given
from hypothesis import strategies as st

import minirnn as mr

core = pytest.importorskip("docutils.core", reason="docutils is not installed: make docs installs it")
nodes = pytest.importorskip("docutils.nodes")
roles = pytest.importorskip("docutils.parsers.rst.roles")

ROOT = Path(__file__).parents[2]


def shown(text: str) -> Any:
    """What a docstring becomes, as docutils reads it; a warning of its is an error."""
    roles.register_local_role("minirnn", lambda role, raw, text, *_: ([nodes.literal(raw, text)], []))
    lines = inspect.cleandoc(text).split("\n")
    return core.publish_doctree("\n".join(render(lines)), settings_overrides={"halt_level": 2, "report_level": 5})


def words(text: str) -> list[str]:
    return text.replace("`", "").split()


def docstrings(folder: str) -> dict[str, str]:
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                found[f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')} {getattr(node, 'lineno', 1)}"] = text
    return found


@pytest.mark.parametrize("folder", ["minirnn", "kernels"])
def test_of_no_docstring_a_word_is_lost_or_changed(folder: str) -> None:
    found = docstrings(folder)
    assert len(found) > 300
    for where, text in found.items():
        assert [word.rstrip(":,") for word in words(shown(text).astext())] == [word.rstrip(":,") for word in words(told(text))], where


def told(text: str) -> str:
    """A docstring without what is shown by other means than words: the marks of list items, and the headings of tables."""
    return re.sub(r"^(?:[-*]|\d+\.) |^(?:Args|Attributes|Fields):$", "", text, flags=re.MULTILINE)


@given(st.text(alphabet="ab_*|\\:<>[]{}()`.-+=#1 ", min_size=1).filter(str.strip))
def test_a_paragraph_of_any_signs_is_shown_as_it_is(text: str) -> None:
    text = " ".join(text.replace("`", "").split()) or "a"
    document = core.publish_doctree(inline(text), settings_overrides={"halt_level": 2, "report_level": 5})
    assert document.astext() == text
    assert [type(child) for child in document.children] == [nodes.paragraph]
    assert [type(child) for child in document.children[0].children] == [nodes.Text]


def test_backticks_are_code() -> None:
    document = shown("Call `f(*x, _y)` or `a.b`s, and `no\\ escape`.")
    assert [node.astext() for node in document.findall(nodes.literal)] == ["f(*x, _y)", "a.b", "no\\ escape"]
    assert document.astext() == "Call f(*x, _y) or a.bs, and no\\ escape."


def test_an_indented_block_keeps_its_columns_and_its_blank_lines() -> None:
    document = shown("""
    Before:

        (1.1)   a = z + h @ w^T      (n, 4H)

        (1.2)   i = sigmoid(a_i)
            and more

    After.
    """)
    (literal,) = document.findall(nodes.literal_block)
    assert literal.astext() == "(1.1)   a = z + h @ w^T      (n, 4H)\n\n(1.2)   i = sigmoid(a_i)\n    and more"
    assert [node.astext() for node in document.findall(nodes.paragraph)] == ["Before:", "After."]


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("with mr.kernel('numpy'):\n    output, state = lstm(x)", True),
        ("output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=None)", True),
        ("s(Y) = ln p(Y | X) / lp(Y)", False),
        ("y = f(x)^2", False),
        ("h = o", False),
    ],
)
def test_a_program_is_told_from_an_equation(text: str, python: bool) -> None:
    assert is_python(text.split("\n")) == python


@pytest.mark.parametrize(
    "text",
    [
        "y = tanh x",
        "y = 1 / (1 + e^-x)",
        "r, u = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)",
        "KL(self || other): (...)",
        "z_t = A z_{t-1} + F u_t + b + B eps_t, x_t = C z_t + G u_t + d + D psi_t",
    ],
)
def test_an_equation_stands_as_it_is_typed(text: str) -> None:
    assert is_equation([text])
    (literal,) = shown(text).findall(nodes.literal_block)
    assert literal.astext() == text


@pytest.mark.parametrize(
    "text",
    [
        "y = x W^T + b over the last axis: x (..., in_features), y (..., out_features).",
        "Uniform on +-gain sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, equation 16.",
        "The transpose: the axes in reverse order.",
        "factor(k) = f(k), any function.",
    ],
)
def test_a_sentence_with_an_equation_in_it_is_a_sentence(text: str) -> None:
    assert not is_equation([text])
    assert [node.astext() for node in shown(text).findall(nodes.paragraph)] == [text]


def test_equations_in_one_line_come_below_each_other() -> None:
    (literal,) = shown("i, f = sigmoid(.) of z;   c_t = f c_{t-1} + i g;   h_t = o tanh c_t").findall(nodes.literal_block)
    assert literal.astext() == "i, f = sigmoid(.) of z;\nc_t = f c_{t-1} + i g;\nh_t = o tanh c_t"


def test_an_aligned_table_has_a_row_for_each_name() -> None:
    block = dedent("""
    queries    (N, L, H)
    bos, eos   the tokens that begin
               and end a sequence
    **options  (S, D)  x
    """).strip()
    assert aligned(block.split("\n")) == [
        ("queries", "(N, L, H)"),
        ("bos, eos", "the tokens that begin and end a sequence"),
        ("**options", "(S, D)  x"),
    ]
    rows = list(shown(block).findall(nodes.row))
    assert [[entry.astext() for entry in row.findall(nodes.entry)] for row in rows][1] == [
        "bos, eos",
        "the tokens that begin and end a sequence",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "g <- scale   (1)\nparam <- (1 - lr)   (2)",
        "a sentence with two  spaces in it",
        "name  text\n elsewhere",
        "y = a   b",
        "one\ntwo  three",
    ],
)
def test_what_only_looks_like_a_table_is_none(text: str) -> None:
    assert aligned(text.split("\n")) is None


def test_arguments_below_a_heading_are_a_table_too() -> None:
    document = shown("""
    What it is.

    Args:
        beam, width: how many; 1 is
            greedy.
        mask: (N, T), `True`: there is something.

    Raises:
        ValueError: otherwise.
    And that is all.
    """)
    rows = [[entry.astext() for entry in row.findall(nodes.entry)] for row in document.findall(nodes.row)]
    assert rows == [["beam, width", "how many; 1 is greedy."], ["mask", "(N, T), True: there is something."], ["ValueError", "otherwise."]]
    assert [node.astext() for node in document.children if isinstance(node, nodes.paragraph)] == [
        "What it is.",
        "Raises:",
        "And that is all.",
    ]


def test_lists_are_lists() -> None:
    document = shown("- one, with\n  a second line\n- two\n\n1. first\n2. second")
    assert [node.astext() for node in document.findall(nodes.list_item)] == ["one, with a second line", "two", "first", "second"]


def test_blocks_are_what_blank_lines_set_apart() -> None:
    lines = ["a", "b", "", "", "    c", "", "    d", "e", "", "Args:", "    f: g", "", "    h: i", "", "j"]
    assert list(blocks(lines)) == [["a", "b"], ["    c", "", "    d"], ["e"], ["Args:", "    f: g", "", "    h: i"], ["j"]]


class Tape(NamedTuple):
    h: Any  # (S, H)   after each row
    c: Any  # (S, H)
    text: str = "# no comment"  # "tanh" or "relu"


def test_the_comments_behind_fields_become_a_table() -> None:
    assert fields(Tape) == [("h", "(S, H) after each row"), ("c", "(S, H)"), ("text", '"tanh" or "relu"')]
    assert fields(int) == []
    assert dict(fields(mr.kernels.contract.LSTMTape))["gates"] == "(S, 4H) i, f, g, o after their nonlinearities"
