"""A real Chromium for tests, which `deploy/scripts/tools chromium` finds or installs.

One that is not there is an error, in a person's checkout and in continuous integration alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAM = Path(__file__).resolve().parents[2] / ".cache" / "tools" / "bin" / "chromium"
ACTION_MS_MAX = 20_000
"""For a page, or for what is on it, to be there."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser without a window."""
    if not PROGRAM.exists():
        raise FileNotFoundError("Chromium is not there; run deploy/scripts/tools chromium")
    # It has no sandbox of its own for root, whom containers of continuous integration often are.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(PROGRAM), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def fresh_page(browser: Browser) -> Iterator[Page]:
    """A page of a person who was nowhere before: no cookies, no cache."""
    context = browser.new_context(service_workers="block")
    context.set_default_timeout(ACTION_MS_MAX)
    try:
        yield context.new_page()
    finally:
        context.close()
