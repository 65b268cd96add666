"""What a person sees on a page."""

from __future__ import annotations

from selenium.webdriver import Chrome

from tests.services import wait_for


def text(browser: Chrome, selector: str) -> str:
    """Text of the element, empty when there is none at this instant."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector))


def see(browser: Chrome, selector: str, words: str) -> None:
    """Wait until the element has these words: a click returns before the next page is there."""
    wait_for(lambda: words in text(browser, selector), what=f"{words!r} in {selector}")
