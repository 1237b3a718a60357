"""A headless Chromium: the machine's own, or else the one that Playwright downloads.

python -m local.browser      makes sure that there is one
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ROOT_HAS_NO_SANDBOX = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def installed() -> str | None:
    """The path of the machine's own Chromium."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser that is closed in the end. Raises Playwright's Error when there is none to launch."""
    arguments = [*_ROOT_HAS_NO_SANDBOX, "--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed(), args=arguments, timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()


def set_up() -> None:
    """Downloads Playwright's Chromium unless there is one. Where root may, Playwright brings its libraries, too."""
    with sync_playwright() as playwright:
        if installed() or Path(playwright.chromium.executable_path).exists():
            return
    libraries = ["--with-deps"] if _ROOT_HAS_NO_SANDBOX and shutil.which("apt-get") else []
    subprocess.run([sys.executable, "-m", "playwright", "install", *libraries, "chromium"], check=True)


if __name__ == "__main__":
    set_up()
