"""What a person sees on a page."""

from __future__ import annotations

from selenium.webdriver import Chrome

from tests.services import wait_for

STATUS = "return performance.getEntriesByType('navigation')[0]?.responseStatus"
VIEWPORT = "return document.querySelector('meta[name=viewport]')?.content"


def text(browser: Chrome, selector: str) -> str:
    """Text of the element, empty when there is none at this instant."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector))


def see(browser: Chrome, selector: str, words: str) -> None:
    """Wait until the element has these words: a click returns before the next page is there."""
    wait_for(lambda: words in text(browser, selector), what=f"{words!r} in {selector}")


def fits(browser: Chrome, width: int) -> None:
    """Wait until the page is no wider than this: its scripts and a new size of the window may
    change the layout after it has been loaded."""
    script = "return document.scrollingElement.scrollWidth"
    try:
        wait_for(
            lambda: browser.execute_script(script) <= width,
            10,
            what=f"{browser.current_url} to fit into {width} pixels",
        )
    except AssertionError as error:
        # A page without a viewport of its own, as that of an error, has 980 on a telephone.
        error.add_note(
            f"It has {browser.execute_script(script)}, status {browser.execute_script(STATUS)}, "
            f"viewport {browser.execute_script(VIEWPORT)}:\n{text(browser, 'body')[:2000]}"
        )
        raise


def overflow(browser: Chrome, selector: str, width: int) -> list[str]:
    """The elements that can be seen, and are cut off or begin outside of a window so wide."""
    script = """
        const [selector, width] = arguments;
        return [...document.querySelectorAll(selector)].filter((element) => {
            const {left, right} = element.getBoundingClientRect();
            return element.checkVisibility() && right > left && (right > width + 1 || left < -1);
        }).map((element) => element.outerHTML.slice(0, 160));
    """
    found: list[str] = browser.execute_script(script, selector, width)
    return found
