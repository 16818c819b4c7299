"""From the hand to the picture: a slider of the panel, beside the naive way, in a real browser.

python benchmarks/slider.py [--rounds 6]

Opens a real JupyterLab in headless Chromium. Both ways trace the same training step of the same
failure (exploding_logvar) and show the same things: verdict, propagation graph, timeline,
gradients. `naive_panel.py` is the naive way.

A step lasts from the key press to the animation frame after the last change that it makes on the
page, trace included. Steps of both ways take turns, so that a busy machine is busy for both.
A drag pulls the handle over the whole track. *pictures* counts how often the picture changed,
*settle* is from the last move of the hand to the last picture, *gap* the longest wait between two
pictures, *blank* the animation frames without a picture, *heights* how many heights the picture
had. Exit status 1 where the panel is less than four times faster.
"""

import argparse
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from hand import run_code  # noqa: E402
from real_lab import KERNEL, Lab, command, open_notebook, run_all  # noqa: E402

from bootstrap import chromium  # noqa: E402

BAR, AIM = 4, 8  # times faster than naive: must be, should be
STEPS = 5  # of one way before it is the other's turn
MOVES = 100  # of a drag
PANEL = """
from labkit.bench import Bench
from labkit.panel import Panel
Panel(Bench("exploding_logvar"))
"""
RUN = """
import statistics, time
from labkit.failures import exploding_logvar as failure
spent = []
for shift in [60.0, 60.5] * 10:
    time.sleep(0.2)
    start = time.perf_counter()
    failure.run(failure.Settings(shift=shift))
    spent.append(1000 * (time.perf_counter() - start))
print(statistics.median(spent))
"""
PARTS = {  # the picture, the handle, the track, and for how many ms nothing changes at the end
    "panel": (".lk-timeline", ".lk-panel input", ".lk-panel input", 250),
    "naive": (
        ".widget-interact .jp-OutputArea",
        ".widget-interact .noUi-handle",
        ".widget-interact .noUi-connects",
        700,
    ),
}
WATCH = """(part) => {
  const area = document.querySelector(part);
  const seen = window.seen = {changes: [], hands: [], frames: 0, blank: 0, heights: new Set()};
  let dirty = false;
  const all = {subtree: true, childList: true, attributes: true, characterData: true};
  new MutationObserver(() => { dirty = true; }).observe(area, all);
  for (const kind of ['keydown', 'pointermove', 'pointerup'])
    window.addEventListener(kind, () => seen.hands.push(performance.now()), true);
  const picture = (node) => node.matches('svg, img') && node.getBoundingClientRect().height > 50
    && (node.complete ?? node.childElementCount > 0);
  const look = () => {
    if (window.seen !== seen) return;
    if (dirty) seen.changes.push(performance.now());
    dirty = false;
    seen.frames += 1;
    seen.heights.add(Math.round(area.getBoundingClientRect().height));
    if (![area, ...area.querySelectorAll('*')].some(picture)) seen.blank += 1;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  return true;
}"""
SETTLED = """(quiet) => {
  const { hands, changes } = window.seen;
  const last = changes.at(-1);
  return last > hands.at(-1) && performance.now() - last > quiet;
}"""
TOLD = """() => {
  const told = {...window.seen, heights: window.seen.heights.size};
  window.seen = null;
  return told;
}"""


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder) / "lab")
        options = {"executable_path": chromium.find(), "args": ["--no-sandbox", "--disable-gpu"]}
        browser = playwright.chromium.launch(**options)
        try:
            measure({way: opened(browser, lab, way) for way in PARTS}, rounds)
        finally:
            browser.close()
            lab.close()


def opened(browser: Browser, lab: Lab, way: str) -> Page:
    """A page with a notebook and a kernel of its own, run: neither way clears up for the other."""
    source = PANEL if way == "panel" else (Path(__file__).parent / "naive_panel.py").read_text()
    cells = [nbformat.v4.new_code_cell(source.strip())]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, lab.notebooks / f"{way}.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    open_notebook(page, lab, f"{way}.ipynb", way)
    command(page, "application:toggle-left-area")
    run_all(page)
    page.wait_for_selector(PARTS[way][1], timeout=60_000)
    return page


def measure(pages: dict[str, Page], rounds: int) -> None:
    """Take steps in turns, then drag, then tell."""
    steps: dict[str, list[float]] = {way: [] for way in pages}
    for _ in range(rounds):
        for way, page in pages.items():
            page.bring_to_front()
            steps[way] += [step(page, way) for _ in range(STEPS)]
    drags = {}
    for way, page in pages.items():
        page.bring_to_front()
        drags[way] = drag(page, way)
    report(steps, drags, float(run_code(pages["panel"], RUN)))


def step(page: Page, way: str) -> float:
    """One key press: ms until the whole new picture stands."""
    picture, handle, _, quiet = PARTS[way]
    page.locator(handle).first.focus()
    page.evaluate(WATCH, picture)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(SETTLED, arg=quiet, polling=100)
    told = page.evaluate(TOLD)
    return told["changes"][-1] - told["hands"][0]


def drag(page: Page, way: str) -> dict[str, float]:
    """A fast drag over the whole track: how it follows, and how soon it stands still."""
    picture, handle, track, quiet = PARTS[way]
    page.locator(handle).first.press("Home")
    page.wait_for_timeout(3000)
    box = page.locator(track).first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, y)
    page.evaluate(WATCH, picture)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 8, y, steps=MOVES)
    page.mouse.up()
    page.wait_for_timeout(5 * quiet)
    told = page.evaluate(TOLD)
    start, end = told["hands"][0], told["hands"][-1]
    pictures = [start, *(t for t in told["changes"] if t > start)]
    gaps = [later - sooner for sooner, later in pairwise(pictures)]
    return {
        "pictures": len(gaps),
        "settle": f"{max(pictures[-1] - end, 0):.0f} ms",
        "gap": f"{max(gaps):.0f} ms",
        "blank": f"{told['blank']} of {told['frames']}",
        "heights": told["heights"],
    }


def report(steps: dict[str, list[float]], drags: dict[str, dict], run: float) -> None:
    """The table, and whether the bar is met."""
    middle = {way: statistics.median(times) for way, times in steps.items()}
    names = next(iter(drags.values()))
    print(f"{'':8}{'one step':>10}{'p95':>10}" + "".join(f"{name:>12}" for name in names))
    for way, times in steps.items():
        high = sorted(times)[max(0, round(0.95 * len(times)) - 1)]
        told = "".join(f"{value:>12}" for value in drags[way].values())
        print(f"{way:8}{middle[way]:>7.0f} ms{high:>7.0f} ms{told}")
    ratio = middle["naive"] / middle["panel"]
    print(
        f"{len(times)} steps each; a drag of {MOVES} moves; in each step the run takes {run:.0f} ms"
    )
    print(f"ratio {ratio:.1f}: at least {BAR}, aim {AIM}")
    if ratio < BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
