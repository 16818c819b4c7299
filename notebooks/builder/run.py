"""Run a notebook from top to bottom in a fresh kernel, as the tests will."""

import os
import re
from pathlib import Path

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

ROOT = Path(__file__).resolve().parents[2]
SAME_AGAIN = {  # for a kernel whose outputs are compared
    "OMP_NUM_THREADS": "1",  # same sums, same bits
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",  # a progress bar tells the time
    "LABKIT_RECORD": "off",  # nobody learns here
}
PATIENCE = 120  # seconds until a cell that hangs is given up; a busy machine may be slow
WIDGET = "application/vnd.jupyter.widget-view+json"


class ThisEnvironment(AsyncKernelManager):
    """Starts the kernel of this very environment, whatever else is installed on the machine."""

    def __init__(self, **options):
        super().__init__(kernel_spec_manager=NbvalKernelspecManager(), **options)


def run(notebook: NotebookNode, folder: Path) -> dict[int, float]:
    """Execute every code cell in place and return the CPU seconds that each took.

    Args:
        notebook: its outputs and execution counts are replaced.
        folder: the kernel's working directory.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed without the tag
            ``raises-exception``.
        nbclient.exceptions.CellTimeoutError: a cell hangs.
        nbclient.exceptions.DeadKernelError: the kernel died.
    """
    clock: dict[int, float] = {}

    def start(cell: NotebookNode, cell_index: int) -> None:
        clock[cell_index] = -_busy(client)

    def stop(cell: NotebookNode, cell_index: int, **_) -> None:
        clock[cell_index] += _busy(client)

    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisEnvironment,
        kernel_name=CURRENT_ENV_KERNEL_NAME,
        timeout=PATIENCE,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=start,
        on_cell_executed=stop,
    )
    client.execute(env={**os.environ, **SAME_AGAIN})
    return clock


def _busy(client: NotebookClient) -> float:
    """CPU seconds of the kernel and what it started; a busy machine does not change them."""
    times = psutil.Process(client.km.provisioner.pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def tidy(notebook: NotebookNode) -> None:
    """Take out what differs from run to run and machine to machine.

    A live widget's view goes where a picture and a text stand beside it. Without the kernel
    that made it, JupyterLab shows "Error displaying widget: model not found" in place of the
    picture as soon as the notebook is trusted.
    """
    notebook.metadata.language_info.pop("version", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if {"image/png", "text/plain"} <= data.keys():
                data.pop(WIDGET, None)
                output.metadata.pop(WIDGET, None)
            if output.output_type == "error":
                output.traceback = [_portable(line) for line in output.traceback]


def _portable(line: str) -> str:
    """A traceback's line with paths that mean something on every machine."""
    line = line.replace(f"{ROOT}/", "").replace(f"{ROOT}".replace(str(Path.home()), "~") + "/", "")
    return re.sub(r"[^\s\x1b]*/(?:site-packages|lib/python3\.\d+)/", "", line)


def dumps(notebook: NotebookNode) -> str:
    """The notebook as the text of its file."""
    return nbformat.writes(notebook, version=4) + "\n"
