"""One JupyterLab and one Chromium for all browser tests."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pytest
from hand import SCREENSHOTS
from real_lab import KERNEL, Lab, command, open_notebook, run_all

ROOT = Path(__file__).resolve().parents[2]
SIZE = {"width": 1280, "height": 800}
PANEL = 'Panel(Bench("{}"))'
CELLS = (
    "from labkit.bench import Bench\n"
    "from labkit.panel import Panel\n"
    'bench = Bench("exploding_logvar")\n'
    "panel = Panel(bench)",
    "panel",
    'Panel(Bench(__import__("toy_bench")))',
)


def write(path: Path, sources: Iterable[str]) -> None:
    """A notebook of these cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A server with a copy of the notebooks, and a notebook with nothing but panels."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, server.notebooks)
    write(server.notebooks / "only_panels.ipynb", CELLS)
    write(server.notebooks / "spread.ipynb", [CELLS[0], PANEL.format("watch_it_spread")])
    write(
        server.notebooks / "deep.ipynb",
        [CELLS[0], PANEL.format("bad_initialisation"), PANEL.format("risky_operations")],
    )
    shutil.copy(ROOT / "tests" / "panel" / "toy_bench.py", server.notebooks)
    yield server
    server.close()


@pytest.fixture(scope="session")
def contexts():
    """Every browser context that was opened; the last page is the one at work."""
    return []


@pytest.fixture(scope="session")
def new_page(browser, contexts):
    """Opens a page of its own; errors of the page's scripts are kept in ``page.errors``."""

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
    return with_panels(new_page(), lab, "only_panels", 2)


@pytest.fixture(scope="session")
def spread(lab, new_page):
    """A notebook with the panel that walks through a run, run."""
    return with_panels(new_page(), lab, "spread", 1)


@pytest.fixture(scope="session")
def deep(lab, new_page):
    """A notebook with the panels of a model of many layers and of many cases, run."""
    return with_panels(new_page(), lab, "deep", 2)


def with_panels(page, lab, name: str, number: int):
    """Open a notebook, run it and wait until its panels are there."""
    open_notebook(page, lab, f"{name}.ipynb", name)
    command(page, "application:toggle-left-area")
    run_all(page)
    count = "(number) => document.querySelectorAll('.lk-panel').length === number"
    page.wait_for_function(count, arg=number)
    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep what the eye saw when a test failed."""
    report = yield
    if report.failed:
        SCREENSHOTS.mkdir(exist_ok=True)
        pages = [page for context in item.funcargs.get("contexts", ()) for page in context.pages]
        for number, page in enumerate(pages):
            page.screenshot(path=SCREENSHOTS / f"failed_{item.name}_{number}.png")
    return report
