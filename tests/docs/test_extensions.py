"""The site's extensions on a site of a few pages: what runs shows what it says, and each mistake planted in a page is found."""

from __future__ import annotations

import ast
import importlib
import io
import re
import sys
import types
from pathlib import Path

import pytest

sphinx = pytest.importorskip("sphinx.application", reason="Sphinx is not installed: make docs installs it")
pytest.importorskip("myst_parser", reason="MyST is not installed: make docs installs it")

from extensions.complete import missing, undescribed  # noqa: E402
from extensions.executed import RUNNABLE, commands_of, run, shell  # noqa: E402
from extensions.quoted import relinked, section  # noqa: E402

from minirnn.cli import make_parser  # noqa: E402

CONF = """
extensions = ["myst_parser", "sphinx.ext.autodoc", "extensions.docstrings", "extensions.complete", "extensions.executed",
              "extensions.mathml", "extensions.quoted"]
html_theme = "basic"
html_math_renderer = "mathml"
nitpicky = True
minirnn_public = PUBLIC
minirnn_pages = {"notes/other.md": "index"}
"""


def build(folder: Path, page: str, public: tuple[str, ...] = (), **files: str) -> tuple[str, str]:
    """The page as HTML without tags, and the warnings of its build."""
    source = folder / "docs"
    source.mkdir(parents=True)
    (source / "conf.py").write_text(CONF.replace("PUBLIC", repr(list(public))))
    (source / "index.md").write_text("# Page\n\n" + page)
    for name, text in files.items():
        (folder / "notes").mkdir(exist_ok=True)
        (folder / "notes" / f"{name}.md").write_text(text)
    warnings = io.StringIO()
    app = sphinx.Sphinx(source, source, folder / "built" / "html", folder / "built" / "trees", "html", status=None, warning=warnings)
    app.build()
    html = (folder / "built" / "html" / "index.html").read_text()
    return re.sub(r"<[^>]+>", "", html), re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue())


GOOD = """
```{run}
x = 2
print("printed", x)
x + 40
```

```{run}
:hide:
print("names last", x); 1;
```

```{shell}
:lines: 1
minirnn --version && echo hidden
python -c "import sys; print(sys.argv)" one
```

```{shell}
:exit: 2
minirnn train nothing
```

```{shell}
:lines: -2
printf 'early\\nover\\rwritten\\n%s\\n' $PWD
ls
```

```{math}
a_t = W_{hh} h_{t-1}
```

    literal code, of no language

{{ notes/quoted.md: Second }}
"""


def test_code_runs_and_is_followed_by_what_it_says(tmp_path: Path) -> None:
    text = "# Title\n\nfirst\n\n## Second\n\n    kept  as it is\n\nSee [other](other.md).\n\n## Third\n\nnot this\n"
    page, warnings = build(tmp_path, GOOD, quoted=text)
    assert warnings == ""
    assert "printed 2\n42" in page
    assert "names last 2" in page
    assert 'print("names last"' not in page
    assert "$ minirnn --version" in page
    assert page.count("hidden") == 1  # in the command, and not in what is left of its output
    assert "['-c', 'one']" in page
    assert "...\nwritten\n/home/me" in page
    assert "early\n" not in page
    assert "examples" in page
    assert "kept  as it is" in page
    assert "not this" not in page
    assert "<msub>" in (tmp_path / "built" / "html" / "index.html").read_text()
    assert 'href="#"' in (tmp_path / "built" / "html" / "index.html").read_text()  # other.md is shown by this page


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```{run}\n1 / 0\n```", "ZeroDivisionError"),
        ("```{run}\nthis is no Python\n```", "SyntaxError"),
        ("```{run}\nraise SystemExit(0)\n```", "SystemExit"),
        ("```{shell}\nminirnn nonsense\n```", "exit code 2"),
        ("```{shell}\n:exit: 2\nminirnn --version\n```", "exit code 0"),
        ("```{shell}\nfalse\ntrue\n```", "exit code 1"),
        ("```{shell}\n:page: none.html\ntrue\n```", "there is no none.html"),
        ("```python\nprint(1)\n```", "a code block in python that nobody runs"),
        ("```bash\nls\n```", "a code block in bash that nobody runs"),
        ("```{run}\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);\n```", "a figure needs :alt:"),
        ("```{math}\n\\nonsense{x}\n```", "this formula cannot be shown"),
        ("{{ notes/missing.md }}", "No such file"),
        ("{{ notes/there.md: Nothing }}", "there is no section 'Nothing'"),
        ("{{ notes/there.md }}", "links to notes/lost.md, which no page shows"),
        ("[a link](nowhere.md)", "nowhere.md"),
        ("```{eval-rst}\n:minirnn:`minirnn.nn.LSTN`\n```", "`minirnn.nn.LSTN`, which does not exist"),
    ],
)
def test_a_mistake_in_a_page_is_found(tmp_path: Path, page: str, said: str) -> None:
    if "matplotlib" in page:
        pytest.importorskip("matplotlib")
    assert said in build(tmp_path, page, there="# There\n\n[lost](lost.md)\n")[1]


def test_an_error_is_traced_to_the_page_and_no_further(tmp_path: Path) -> None:
    warnings = build(tmp_path, "```{run}\nfine = 1\nfine / 0\n```")[1]
    assert "line 3>" in warnings
    assert "executed.py" not in warnings


def test_a_public_name_without_a_docstring_or_without_a_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("planted_names")
    exec(
        "class Plain:\n    'Said.'\n    def method(self): pass\n    def _private(self): pass\n"
        "def told():\n    'Said.'\ndef untold(): pass\ndef _hidden(): pass\nVALUE = 3\n",
        module.__dict__,
    )
    for name in ("Plain", "told", "untold", "_hidden"):
        vars(module)[name].__module__ = module.__name__
    assert undescribed(module) == ["planted_names.Plain.method", "planted_names.untold"]
    assert missing([module], {"planted_names.Plain", "planted_names.told"}) == ["planted_names.untold"]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    warnings = build(tmp_path, "```{eval-rst}\n.. autofunction:: planted_names.told\n```", (module.__name__,))[1]
    assert "planted_names.untold has no docstring" in warnings
    assert "planted_names.Plain is not in the reference" in warnings
    assert "told is not in the reference" in warnings
    assert "planted_names.told" not in warnings


def public_modules() -> list[str]:
    """`minirnn_public` of the real site."""
    tree = ast.parse((Path(__file__).parents[2] / "docs" / "conf.py").read_text(encoding="utf-8"))
    values = {
        node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return list(ast.literal_eval(values["minirnn_public"]))


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert undescribed(importlib.import_module(name)) == []


def test_a_name_that_another_public_name_stands_for_is_in_the_reference() -> None:
    import minirnn
    import minirnn.kernels

    assert missing([minirnn.kernels], {"minirnn.kernels.registry.choose"}).count("minirnn.kernels.choose") == 0
    assert "minirnn.kernels.kernel" not in missing([minirnn, minirnn.kernels], {"minirnn.kernel"})


def test_what_is_run_keeps_its_names_and_says_what_it_is_worth() -> None:
    names: dict[str, object] = {}
    assert run("a = [1]\nprint(a)\na", names, "<here>") == ("[1]\n", [1])
    assert run("a;", names, "<here>") == ("", None)
    assert names["a"] == [1]


def test_a_command_runs_in_this_environment(tmp_path: Path) -> None:
    said, code = shell("python -c 'import sys; print(sys.prefix)'; exit 3", tmp_path)
    assert (said.strip(), code) == (sys.prefix, 3)


def test_a_command_that_never_ends_is_stopped(tmp_path: Path) -> None:
    assert shell("sleep 100; true", tmp_path, seconds=0.2) == ("sleep 100; true was stopped after 0.2 seconds\n", 124)


def test_every_command_is_found() -> None:
    found = [" ".join(words) for words in commands_of(make_parser(), ["minirnn"])]
    assert {"minirnn train", "minirnn study", "minirnn bench lstm", "minirnn data show"} & set(found) >= {
        "minirnn train",
        "minirnn bench lstm",
    }
    assert len(set(found)) == len(found)


def test_links_come_to_lead_to_pages() -> None:
    text = "[a](../x/README.md#part) [b](https://b.org) ![c](../c.png) [d](gone.md) [e](#here)"
    expected = "[a](/pages/x#part) [b](https://b.org) ![c](../../c.png) d [e](#here)"
    assert relinked(text, "kernels/README.md", "pages/y", {"x/README.md": "pages/x"}) == (expected, ["kernels/gone.md"])


def test_a_section_ends_where_the_next_begins() -> None:
    text = "# One\n\na\n\n## Two\n\n    b\n\n### Three\n\nc\n\n## Four\n\nd\n"
    assert section(text, "Two") == "    b\n\n### Three\n\nc\n"
    assert section(text, "Four") == "d\n"


def test_shell_and_python_are_languages_that_can_be_run() -> None:
    assert {"python", "bash", "console"} <= RUNNABLE
