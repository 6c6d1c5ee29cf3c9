"""The docstrings of minirnn in the reference: `prose` says what they look like, this module hands them over, with links."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import is_dataclass
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.inspect import signature, stringify_signature

from .prose import fields, render, table

logger = logging.getLogger(__name__)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    rows = fields(obj) if inspect.isclass(obj) and (issubclass(obj, tuple) or is_dataclass(obj)) else []
    lines[:] = [*render(lines), *(table(rows) if rows else [])]


def sign(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, shown: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Signatures as they are meant: what a Module is made with, and aliases of types by their names.

    For whoever asks Python, a Module's `__new__`, which takes anything, stands before its `__init__`.
    """
    if what == "class" and (shown or "").startswith("(*args"):
        if obj.__init__ is object.__init__:
            return "()", None
        made_with = signature(obj.__init__, bound_method=True, type_aliases=app.config.autodoc_type_aliases)
        shown = stringify_signature(made_with, show_return_annotation=False)
    return _aliases(shown), _aliases(returns)


def _aliases(text: str | None) -> str | None:
    """`TypeAliasForwardRef('Array')`, which Sphinx writes for an alias inside of another type, is Array."""
    return text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)


def skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a NamedTuple stand in the table of `fields`; as members they would say "Alias for field number 0"."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def name_role(role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = None) -> Any:
    """`name` in a docstring: code, which leads to what it names where the reference has it."""
    env = inliner.document.settings.env
    literal = nodes.literal(rawtext, text, classes=["xref"])
    target = re.fullmatch(r"([A-Za-z_][\w.]*)(\(.*\))?", text)
    if target is None:
        return [nodes.literal(rawtext, text)], []
    name = re.sub(r"^mr\.", "minirnn.", target[1])
    where = {"py:module": env.ref_context.get("py:module"), "py:class": env.ref_context.get("py:class")}
    link = addnodes.pending_xref(rawtext, literal, refdomain="py", reftype="obj", reftarget=name, refdoc=env.docname, prose=True, **where)
    return [link], []


def plain_where_missing(app: Sphinx, env: Any, node: addnodes.pending_xref, contnode: nodes.Element) -> nodes.Node | None:
    """A name that the reference does not have stays code. One of minirnn's that does not exist at all is a mistake in the docstring."""
    if not node.get("prose"):
        return None
    target = node["reftarget"]
    if target.startswith("minirnn.") and not exists(target):
        logger.warning("a docstring names `%s`, which does not exist", target, location=node, type="minirnn", subtype="name")
    return nodes.literal(contnode.rawsource, contnode.astext())


def exists(name: str) -> bool:
    """Whether a dotted name is a module or what can be reached from one."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for part in parts[k:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("minirnn", name_role)
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", plain_where_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
