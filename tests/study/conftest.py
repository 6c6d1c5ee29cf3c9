"""A real browser without a screen, for the tests of the page. Where there is none, or nothing to drive it with, they skip and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirnn.study import page as pages
from minirnn.study.example import Example

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """A window of the browser, in which pages are opened."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser (pip install 'minirnn[browser]')")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs Chromium: none of {', '.join(NAMES)} is on the path")
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root may not have a sandbox
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=options)
        yield browser.new_context()
        browser.close()


@pytest.fixture
def show(context: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Write a page and open it from disk. Nothing may be written to its console, and nothing but its file asked for."""
    troubles: list[str] = []
    opened: list[Any] = []

    def show(example: Example | bytes, width: int = 1200, **media: str) -> Any:
        path = tmp_path / f"page{len(opened)}.html"
        path.write_bytes(example if isinstance(example, bytes) else pages.render(example))
        page = context.new_page()
        opened.append(page)
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(**{"color_scheme": "light", **media})
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        page.wait_for_selector("footer")
        return page

    yield show
    for page in opened:
        page.close()
    assert troubles == []
