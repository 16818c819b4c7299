"""Take the README's picture of the lab at work: `python tests/browser/take_picture.py`.

Opens the panel of exploding_logvar in a real JupyterLab, breaks it, and writes docs/panel.png with
two pixels for each pixel of the page.
"""

import io
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hand import Hand  # noqa: E402
from real_lab import KERNEL, Lab, command, open_notebook, run_all  # noqa: E402

from bootstrap import chromium  # noqa: E402

TARGET = ROOT / "docs" / "panel.png"
COLOURS = 128
CELL = """
from labkit.bench import Bench
from labkit.panel import Panel
Panel(Bench("exploding_logvar"))
"""


def main() -> None:
    """Write the picture and say how large it is."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder) / "lab")
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
        notebook.cells = [nbformat.v4.new_code_cell(CELL.strip())]
        nbformat.write(notebook, lab.notebooks / "panel.ipynb")
        options = {"executable_path": chromium.find(), "args": ["--no-sandbox", "--disable-gpu"]}
        browser = playwright.chromium.launch(**options)
        size = {"width": 1280, "height": 1000}
        page = browser.new_context(viewport=size, device_scale_factor=2).new_page()
        try:
            open_notebook(page, lab, "panel.ipynb", "picture")
            command(page, "application:toggle-left-area")
            run_all(page)
            page.wait_for_selector(".lk-panel")
            hand = Hand(page)
            hand.press("break")
            hand.sees("inf")
            page.mouse.move(2, 2)
            page.wait_for_timeout(500)
            box = hand.panel.bounding_box()
            clip = {"x": box["x"] - 10, "y": box["y"] - 8} | {
                "width": box["width"] + 20,
                "height": box["height"] + 16,
            }
            shot = page.screenshot(clip=clip)
        finally:
            browser.close()
            lab.close()
    TARGET.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(TARGET, optimize=True)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
