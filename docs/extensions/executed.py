"""Code and commands in a page, run while the site is built, each followed by what it says.

    ```{run}                  Python; the blocks of a page share their names. Shown below: what is printed, the value of the last
    :alt: what is seen        line, and the figures that are left open, for which `alt` says what is on them.
    ```
    ```{shell}                commands, one a line, in a folder that belongs to the page, in the environment that builds the site
    :lines: 12                of the output the first 12 lines; -3: the last 3
    :exit: 2                  the exit code that the last one is to have, when it is not 0
    :page: page.html          a page that the commands have written comes to stand below, and into the site; `alt` says what it shows
    ```

Both take `:hide:`, not to show the code, and `:quiet:`, not to show the output. What fails, fails the build, and so does a code block of a
page that names a language in which it could have been run and was not.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

RUNNABLE = {"python", "python3", "py", "pycon", "bash", "sh", "shell", "console", "shell-session"}
SECONDS = 1200  # for one command, on a machine that has much else to do
STOPPED = 124  # the exit code of one that took longer
COMPILING = "minirnn: compiling CPU kernels"  # said once on each machine, and nothing of the page's
COLUMNS = 100


def run(code: str, names: dict[str, Any], file: str) -> tuple[str, Any]:
    """What Python code prints, and the value of its last line where that is an expression without `;`. It finds and leaves `names`."""
    tree = ast.parse(code, file)
    silent = code.rstrip().endswith(";")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) and not silent else None
    value, said = None, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        exec(compile(tree, file, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), file, "eval"), names)
    return said.getvalue(), value


def shell(command: str, folder: Path, seconds: float = SECONDS) -> tuple[str, int]:
    """What a command prints, standard error included, and its exit code. `minirnn` and `python` are those that build the site."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    plain = {"PATH": path, "COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb", "PYTHONHASHSEED": "0", "MPLBACKEND": "Agg"}
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, **plain},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a group of its own, so that what the shell has started can be stopped with it
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"{command} was stopped after {seconds} seconds\n", STOPPED
    return said, process.returncode


class Executed(SphinxDirective):
    """What both directives share."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "alt": directives.unchanged,
        "exit": directives.nonnegative_int,
        "hide": directives.flag,
        "lines": int,
        "page": directives.unchanged,
        "quiet": directives.flag,
    }

    @property
    def folder(self) -> Path:
        """Where this page's code runs, empty when the page begins: what it writes there is no part of the site.

        `examples/` is in it, as for somebody who has the repository.
        """
        folder = Path(self.env.doctreedir).parent / "work" / self.env.docname
        if "minirnn_folder" not in self.env.current_document:
            shutil.rmtree(folder, ignore_errors=True)
            self.env.current_document["minirnn_folder"] = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        examples = folder / "examples"
        if not examples.is_symlink():
            examples.symlink_to(Path(self.env.srcdir).parent / "examples")
        return folder

    def block(self, text: str, language: str, kind: str) -> nodes.literal_block:
        node = nodes.literal_block(text, text, language=language, classes=[kind])
        node["executed"] = True
        self.set_source_info(node)
        return node

    def output(self, text: str) -> list[nodes.Node]:
        """What was printed, of a line that was overwritten only the last state, of many lines those that `lines` says."""
        text = text.replace(str(self.folder), "/home/me")
        lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]
        lines = [line for line in lines if not line.startswith(COMPILING)]
        limit = self.options.get("lines", len(lines))
        if len(lines) > abs(limit):
            lines = [*lines[:limit], "..."] if limit > 0 else ["...", *lines[limit:]]
        return [self.block("\n".join(lines), "none", "output")] if text.strip() and "quiet" not in self.options else []

    def failed(self, text: str) -> list[nodes.Node]:
        logger.warning("this code fails:\n%s", text, location=self.get_location(), type="minirnn", subtype="code")
        return [self.block(text, "none", "output")]


class Run(Executed):
    def run(self) -> list[nodes.Node]:
        code = "\n".join(self.content)
        names = self.env.current_document.setdefault("minirnn_names", {"__name__": "__main__"})
        shown: list[nodes.Node] = [] if "hide" in self.options else [self.block(code, "python", "code")]
        try:
            with contextlib.chdir(self.folder):
                said, value = run(code, names, f"<{self.env.docname}, line {self.lineno}>")
        except BaseException as error:
            return [*shown, *self.failed("".join(traceback.format_exception(error.with_traceback(_from_the_page(error)))))]
        drawn = next((getattr(value, method)() for method in ("_repr_svg_", "_repr_html_") if hasattr(value, method)), None)
        if drawn is not None:
            return [*shown, *self.output(said), nodes.raw("", f'<div class="drawn">{drawn}</div>', format="html")]
        text = said + (repr(value) if value is not None else "")
        return [*shown, *self.output(text), *self.figures()]

    def figures(self) -> list[nodes.Node]:
        """The figures that Matplotlib has open, saved and closed."""
        if "matplotlib.pyplot" not in sys.modules:
            return []
        import matplotlib.pyplot as plt

        folder, shown = Path(self.env.srcdir) / "drawn", []
        for number in plt.get_fignums():
            folder.mkdir(exist_ok=True)
            name = hashlib.sha256(f"{self.env.docname} {self.lineno} {number}".encode()).hexdigest()[:12] + ".png"
            plt.figure(number).savefig(folder / name, dpi=144, bbox_inches="tight")
            if "alt" not in self.options:
                logger.warning("a figure needs :alt:, what is seen on it", location=self.get_location(), type="minirnn", subtype="code")
            shown.append(nodes.image(uri=f"/drawn/{name}", alt=self.options.get("alt", ""), classes=["figure"]))
        plt.close("all")
        return shown


def _from_the_page(error: BaseException) -> TracebackType | None:
    """Where an error came from, without the frames of this file: the first one is the page's own."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame


class Shell(Executed):
    def run(self) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        commands = [line for line in self.content if line.strip()]
        for command in commands:
            said, code = shell(command, self.folder)
            if "hide" not in self.options:
                shown.append(self.block(f"$ {command}", "none", "code"))
            shown += self.output(said)
            if code != (self.options.get("exit", 0) if command is commands[-1] else 0):
                shown += self.failed(f"{command}\n{said}\nexit code {code}")
        return shown + self.page()

    def page(self) -> list[nodes.Node]:
        """The page that was written, in a frame; `html_extra_path` takes it into the site."""
        written = self.folder / self.options.get("page", "")
        if not written.is_file():
            return self.failed(f"there is no {written.name}") if "page" in self.options else []
        name = self.env.docname.replace("/", "-") + "-" + written.name
        shutil.copy(written, Path(self.env.srcdir) / "drawn" / "pages" / name)
        link, title = "../" * self.env.docname.count("/") + name, escape(self.options.get("alt", ""))
        frame = f'<iframe class="page" src="{link}" title="{title}"></iframe><p><a href="{link}">The page by itself</a></p>'
        return [nodes.raw("", frame, format="html")]


class CommandHelp(Executed):
    """`--help` of `minirnn` and of every command that it lists, a section each."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        from minirnn.cli import make_parser

        shown: list[nodes.Node] = []
        for words in [["minirnn"], *commands_of(make_parser(), ["minirnn"])]:
            said, code = shell(shlex.join([*words, "--help"]), self.folder)
            if code:
                return self.failed(said)
            title = " ".join(words)
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title(title, title)
            section += self.block(f"$ {title} --help", "none", "code")
            section += self.output(said)
            shown.append(section)
        return shown


def commands_of(parser: Any, words: list[str]) -> list[list[str]]:
    """The commands below a parser, and those below them, as words."""
    found = []
    for action in parser._actions:
        for name, below in (action.choices or {}).items() if hasattr(action, "_parser_class") else ():
            found += [[*words, name], *commands_of(below, [*words, name])]
    return found


def nothing_unexecuted(app: Sphinx, document: nodes.document) -> None:
    """Code in a page of prose that was not run. What autodoc shows of docstrings, and what the gallery ran, is not prose."""
    page = app.env.docname
    if Path(app.env.doc2path(page)).suffix != ".md":
        return
    for node in document.findall(nodes.literal_block):
        shown_elsewhere = node.get("executed") or "source" in node or _within_description(node)  # run here, a file with tests, a docstring
        if node.get("language") in RUNNABLE and not shown_elsewhere:
            message = "a code block in %s that nobody runs: write it as {run} or {shell}"
            logger.warning(message, node["language"], location=node, type="minirnn", subtype="code")


def _within_description(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if node.tagname == "desc_content":
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("run", Run)
    app.add_directive("shell", Shell)
    app.add_directive("command-help", CommandHelp)
    app.connect("doctree-read", nothing_unexecuted)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
