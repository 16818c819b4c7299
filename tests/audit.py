"""What WCAG 2.2 AA asks of a page, measured in the browser that shows it."""

from pathlib import Path

from playwright.sync_api import Locator, Page

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")

TEXT, LARGE = 4.5, 3.0  # contrast of text and of large text (WCAG 2.2, 1.4.3)
CONTROLS = {"slider", "button", "radio", "link", "application", "radiogroup", "checkbox"}
PICTURES = {"image", "img", "graphics-document"}


def unreadable(part: Locator) -> list[str]:
    """Words whose contrast with what is painted below them is too low; fails if there are none."""
    found = part.evaluate(f"(root, limits) => ({SCRIPT}).contrast(root, limits)", [TEXT, LARGE])
    assert found["seen"] > 5, "no words were looked at"
    return found["faults"]


def unnamed(page: Page, selector: str = "body") -> list[str]:
    """Controls and pictures in a part of a page that a screen reader cannot name."""
    browser = page.context.new_cdp_session(page)
    part = browser.send("Runtime.evaluate", {"expression": f"document.querySelector('{selector}')"})
    where = {"objectId": part["result"]["objectId"]}
    tree = browser.send("Accessibility.queryAXTree", where)["nodes"]
    told = [(node["role"]["value"], node) for node in tree if not node["ignored"]]
    asked = [(role, node) for role, node in told if role in CONTROLS | PICTURES]
    assert asked, "no controls were looked at"
    return [role for role, node in asked if not node.get("name", {}).get("value", "").strip()]


def tabbed(page: Page, most: int) -> list[dict]:
    """What gets the focus, from here on, by the Tab key alone."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        here = page.evaluate(f"() => ({SCRIPT}).focus()")
        if here is None:
            break
        found.append(here)
    return found


def moving(page: Page, selector: str = "html") -> int:
    """How many elements in a part of a page move by themselves or slide when they change."""
    return page.locator(selector).first.evaluate(f"(root) => ({SCRIPT}).moving(root)")
