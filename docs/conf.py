"""The documentation site: `make docs` writes it to build/docs/html, where it can be opened as it lies, without server or network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("MPLBACKEND", "Agg")

import minirnn  # noqa: E402

project = "minirnn"
author = "The minirnn authors"
copyright = "The minirnn authors"
version = release = minirnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "extensions.docstrings",
    "extensions.complete",
    "extensions.executed",
    "extensions.mathml",
    "extensions.quoted",
]
exclude_patterns = ["extensions", "course/*.ipynb", "course/*.py", "course/*.json"]
highlight_language = "none"
pygments_dark_style = "github-dark"
smartquotes = False
nitpicky = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "Axis", "Norm", "Pair", "Rng")}
# In signatures names may lead nowhere: there is no network to look up other projects', and private classes have no page. Names in prose
# must exist (extensions/docstrings.py), and public ones must be there (extensions/complete.py).
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # a class named in a signature without its module, of which there are two: the first is linked
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 130
add_module_names = False
toc_object_entries_show_parents = "hide"

# What the reference must have, whole: extensions/complete.py.
minirnn_public = [
    "minirnn",
    "minirnn.data",
    "minirnn.decoding",
    "minirnn.distributions",
    "minirnn.kernels",
    "minirnn.kernels.contract",
    "minirnn.kernels.registry",
    "minirnn.models",
    "minirnn.nn",
    "minirnn.nn.init",
    "minirnn.nn.utils",
    "minirnn.ops",
    "minirnn.optim",
    "minirnn.study",
    "minirnn.training",
]

# Which page shows a file of the repository to which a quoted document links: extensions/quoted.py.
minirnn_pages = {
    "kernels/COMPILED.md": "derivations/compiled",
    "kernels/VERIFIED.md": "derivations/verified",
    "kernels/contract.py": "reference/kernels",
    "minirnn/models": "reference/models",
    **{f"kernels/{path.parent.name}/README.md": f"derivations/{path.parent.name}" for path in ROOT.glob("kernels/*/README.md")},
}

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "course",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("extensions.chapters.pictures", "matplotlib"),
    "reset_argv": "extensions.chapters.arguments",
    "filename_pattern": r"[\\/]\d\d_",
    "ignore_pattern": r"(^|[\\/])(?!\d\d_)[^\\/]*\.py$",
    "download_all_examples": False,
    "remove_config_comments": True,
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "reset_modules": ("matplotlib",),
    "run_stale_examples": True,
}

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "minirnn"
html_static_path = ["_static"]
html_extra_path = [str(HERE / "drawn" / "pages")]  # pages that commands have written: extensions/executed.py
Path(*html_extra_path).mkdir(parents=True, exist_ok=True)
html_css_files = ["style.css"]
html_favicon = "_static/logo.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo.svg",
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0b6e99", "color-brand-content": "#0b6e99", "color-brand-visited": "#0b6e99"},
    "dark_css_variables": {"color-brand-primary": "#6cc3e8", "color-brand-content": "#6cc3e8", "color-brand-visited": "#6cc3e8"},
}
