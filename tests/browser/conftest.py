"""One JupyterLab and one Chromium for all browser tests."""

import shutil
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import sync_playwright
from real_lab import KERNEL, Lab, command, open_notebook, run_all

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
]
SIZE = {"width": 1280, "height": 800}
CELLS = (
    "from labkit.bench import Bench\n"
    "from labkit.panel import Panel\n"
    'bench = Bench("exploding_logvar")\n'
    "panel = Panel(bench)",
    "panel",
    'Panel(Bench(__import__("toy")))',
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A server with a copy of the notebooks, and a notebook with nothing but panels."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, server.notebooks)
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, server.notebooks / "only_panels.ipynb")
    shutil.copy(ROOT / "tests" / "panel" / "toy.py", server.notebooks)
    yield server
    server.close()


@pytest.fixture(scope="session")
def browser(chromium):
    """Chromium without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def new_page(browser):
    """Opens a page of its own; errors of the page's scripts are kept in ``page.errors``."""
    contexts = []

    def new(scale: float = 1.0):
        context = browser.new_context(viewport=SIZE, device_scale_factor=scale)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        return page

    yield new
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def opened(lab, new_page):
    """The notebook with nothing but panels, run."""
    page = new_page()
    open_notebook(page, lab, "only_panels.ipynb", "panel")
    command(page, "application:toggle-left-area")
    run_all(page)
    page.wait_for_function("document.querySelectorAll('.lk-panel').length === 2")
    return page
