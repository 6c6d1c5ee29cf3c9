r"""Formulas (`:math:`, `.. math::`) as MathML, which browsers draw themselves: no script, no font and no LaTeX is needed.

docutils translates. A formula that it does not understand fails the build.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(formula: str, node: nodes.Element, display: bool) -> str:
    try:
        return latex2mathml.tex2mathml(formula, as_block=display)
    except MathError as error:
        logger.warning("this formula cannot be shown: %s: %s", formula, error, location=node, type="minirnn", subtype="math")
        return ""


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), node, display=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Formulas that a blank line sets apart stand below each other."""
    parts = [part for part in node.astext().split("\n\n") if part.strip()]
    self.body.append(self.starttag(node, "div", CLASS="math") + "\n".join(mathml(part, node, display=True) for part in parts) + "</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
