"""What a learner's hand does to a panel, and what the eye sees."""

from pathlib import Path

from playwright.sync_api import Page, expect

from labkit import failures

FAILURES = failures.names()
SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
TURNED_MS = 15_000  # a turn takes 0.1 s; this is for a machine that does ten other things


class Hand:
    """One panel on a page.

    Args:
        page: a notebook page with at least one panel.
        number: which panel, from the top.
    """

    def __init__(self, page: Page, number: int = 0):
        self.page = page
        self.panel = page.locator(".lk-panel").nth(number)
        self.panel.scroll_into_view_if_needed()
        self.badge = self.panel.get_by_role("status")
        self.code = self.panel.locator("code")

    def slider(self, name: str):
        """The slider of a knob, found as a screen reader finds it."""
        return self.panel.get_by_role("slider", name=name)

    def press(self, case: str) -> None:
        """A button: healthy, break or repair."""
        self.panel.get_by_role("button", name=case, exact=True).click()

    def sees(self, *verdicts: str) -> None:
        """Wait until the badge shows one of these verdicts."""
        found = ", ".join(f'[data-status="{verdict}"]' for verdict in verdicts)
        expect(self.panel.locator(found)).to_have_count(1, timeout=TURNED_MS)

    def rest(self) -> None:
        """Wait until the kernel has answered the last thing that the hand has set."""
        expect(self.badge).to_have_attribute("aria-busy", "false", timeout=TURNED_MS)

    def unwell(self) -> None:
        """Wait until the badge shows anything but healthy, and no error."""
        bad = '[data-status]:not([data-status="healthy"], [data-status="error"])'
        expect(self.panel.locator(bad)).to_have_count(1, timeout=TURNED_MS)

    def controls(self) -> dict[str, float | str]:
        """Where every control stands: a share of the track, or the option that is chosen."""
        return self.panel.evaluate(
            """(panel) => Object.fromEntries(
              [...panel.querySelectorAll('[data-knob]')]
                .filter((it) => it.type === 'range' || it.checked)
                .map((it) => [it.dataset.knob, it.max ? it.value / it.max : it.value]))"""
        )

    def move_to(self, wanted: dict[str, float | str]) -> None:
        """Bring every control by hand to where it shall stand: sliders with the mouse."""
        for knob, value in self.controls().items():
            if value != wanted[knob] and isinstance(value, str):
                group = self.panel.get_by_role("radiogroup", name=knob)
                group.get_by_label(wanted[knob], exact=True).check()
            elif value != wanted[knob]:
                self.drag(knob, value, wanted[knob])

    def grip(self, name: str, share: float) -> tuple[float, float]:
        """A point on a slider's track, in pixels."""
        box = self.slider(name).bounding_box()
        return box["x"] + 8 + share * (box["width"] - 16), box["y"] + box["height"] / 2

    def drag(self, name: str, start: float, end: float, moves: int = 40) -> None:
        """Take the handle at one share of the track, let it go at another, wait for the answer."""
        self.slider(name).scroll_into_view_if_needed()
        (x, y), (to, _) = self.grip(name, start), self.grip(name, end)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(to, y, steps=moves)
        self.page.mouse.up()
        self.rest()

    def shot(self, name: str) -> None:
        """Keep what the eye sees."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


def run_code(page: Page, code: str) -> str:
    """Run code in the notebook's kernel, as another cell would; returns what it printed."""
    return page.evaluate(
        """async (code) => {
          const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
          const future = kernel.requestExecute({ code });
          let said = '';
          future.onIOPub = ({ content }) => {
            said += content.text ?? (content.ename ? `${content.ename}: ${content.evalue}` : '');
          };
          await future.done;
          return said.trim();
        }""",
        code,
    )
