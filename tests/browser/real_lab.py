"""A real JupyterLab with folders of its own, and a page of it driven by Playwright."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page

START_S = 60  # a cold start took 3 to 6 s here; three busy loops beside it make it 15
RUN_S = 120_000  # ms for all cells of a notebook
QUIET = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
TOKEN = "labkit-browser-tests"


class Lab:
    """A JupyterLab server on a free port of the loopback address.

    Args:
        folder: an empty folder: configuration, run-time files and notebooks go there.
        settings: JupyterLab settings by plugin name, such as the theme.
    """

    def __init__(self, folder: Path, settings: dict[str, dict] | None = None):
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        self._configure(settings or {})
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            self._command(), env=self._environ(), cwd=folder, stdout=self.log, stderr=self.log
        )
        self._wait()

    def close(self) -> None:
        """Stop the server and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def url(self, name: str, workspace: str) -> str:
        """Address of a notebook in a workspace of its own."""
        return f"http://127.0.0.1:{self.port}/lab/workspaces/{workspace}/tree/{name}?token={TOKEN}"

    def shut_down(self, name: str) -> None:
        """End the kernel of a notebook: thirty of them would take 14 GB."""
        for session in json.loads(self._ask("sessions")):
            if session["path"] == name:
                self._ask(f"sessions/{session['id']}", "DELETE")

    def _ask(self, path: str, method: str = "GET") -> bytes:
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        request = urllib.request.Request(address, method=method)
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def _configure(self, settings: dict[str, dict]) -> None:
        pages = self.folder / "config" / "labconfig"
        pages.mkdir(parents=True)
        (pages / "page_config.json").write_text(json.dumps(QUIET))
        for plugin, values in settings.items():
            path = self.folder / "settings" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))

    def _environ(self) -> dict[str, str]:
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        folders = {name: str(self.folder / folder) for name, folder in own.items()}
        return {**os.environ, **threads, **folders, "JUPYTER_PREFER_ENV_PATH": "1"}

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0",
            "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={self.notebooks}", "--LabApp.expose_app_in_browser=True",
        ]  # fmt: skip

    def _wait(self) -> None:
        address = f"http://127.0.0.1:{self.port}/api/status?token={TOKEN}"
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(address, timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        self.close()
        raise RuntimeError(f"JupyterLab did not start: {(self.folder / 'server.log').read_text()}")


def open_notebook(page: Page, lab: Lab, name: str, workspace: str) -> None:
    """Open a notebook and wait until its kernel is there."""
    page.goto(lab.url(name, workspace))
    page.wait_for_function(
        """() => {
          const panel = window.jupyterapp?.shell.currentWidget;
          return panel?.sessionContext?.isReady && panel.content?.widgets?.length > 0
            && panel.sessionContext.session?.kernel?.status === 'idle';
        }""",
        timeout=RUN_S,
    )
    page.wait_for_timeout(600)  # sent at the first idle, Run All leaves cells unrun


def run_all(page: Page) -> None:
    """Run every cell; run them again if some were left out, as a busy machine does at first.

    Raises:
        AssertionError: cells were left out every time.
    """
    command(page, "notebook:clear-all-cell-outputs")  # stored counts would look like done
    for patience in (3000, 6000, 12_000):
        page.evaluate("() => { window.idleSince = undefined; return true }")
        command(page, "notebook:run-all-cells")
        page.wait_for_function(SETTLED, arg=patience, timeout=RUN_S)
        if all(page.evaluate(COUNTS)):
            return
    raise AssertionError(f"cells were left unrun: {page.evaluate(COUNTS)}")


def command(page: Page, name: str) -> None:
    """A command of JupyterLab's menu; not waited for, since its value cannot be handed over."""
    page.evaluate("(name) => { jupyterapp.commands.execute(name); return true }", name)


CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter((c) => c.model.type === 'code')"
COUNTS = f"() => {CELLS}.map((c) => c.model.executionCount)"
IDLE = "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
ERRORS = f"""() => {CELLS}.flatMap((c) => c.model.outputs.toJSON())
  .filter((o) => o.output_type === 'error').map((o) => `${{o.ename}}: ${{o.evalue}}`)"""
SETTLED = f"""(patience) => {{
  if (!({IDLE})) {{ window.idleSince = undefined; return false; }}
  window.idleSince ??= performance.now();
  const all = ({COUNTS})().every((count) => count !== null);
  return all || performance.now() - window.idleSince > patience;
}}"""
