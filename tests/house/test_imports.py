"""Arrows run one way, and what does not draw loads nothing that draws."""

import subprocess
import sys
from pathlib import Path

import pytest
from rooms import LABKIT, ROOMS, room_of, wrong_imports

FILES = sorted(LABKIT.rglob("*.py"))
HEAVY = "matplotlib ipywidgets anywidget torchviz graphviz IPython jupyterlab h5py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LABKIT)))
def test_a_file_imports_what_its_room_may(path):
    assert wrong_imports(path.read_text(encoding="utf-8"), room_of(path)) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("probes", "from labkit.models.vae import NBVAE"),
        ("probes", "from labkit import bench"),
        ("probes", "import numpy"),
        ("models", "import labkit.probes"),
        ("models", "from tqdm.auto import tqdm"),
        ("models", "from labkit.training.train import train_vae"),
        ("kernels", "from labkit.models.vae import NBVAE"),
        ("cells", "from labkit.models.vae import NBVAE"),
        ("bench", "from labkit import failures"),
        ("bench", "def f():\n    from labkit.models import vae"),
        ("failures", "from labkit.draw import graph"),
        ("failures", "def f():\n    import matplotlib.pyplot as plt"),
        ("draw", "from labkit.models import vae"),
        ("draw", "import ipywidgets"),
        ("check", "from labkit.panel import Panel"),
        ("panel", "from labkit.check import check"),
        ("", "from labkit.panel import Panel"),
        ("attic", "import math"),
    ],
)
def test_a_wrong_arrow_is_seen(room, source):
    assert len(wrong_imports(source, room)) == 1


def test_a_right_arrow_is_not():
    late = "import math\nimport importlib\ndef f():\n    from labkit import failures"
    assert wrong_imports(late, "bench") == []
    assert wrong_imports("from labkit.probes.report import Report", "draw") == []
    assert wrong_imports("def f():\n    from labkit.panel import Panel", "") == []


def test_only_the_rooms_that_draw_may_import_what_draws():
    drawing = {"draw": "matplotlib torchviz graphviz", "panel": "ipywidgets anywidget"}
    for name, room in ROOMS.items():
        may = set(drawing.get(name, "").split())
        assert may >= room.packages & set(" ".join(drawing.values()).split())


def loaded(statement: str) -> set[str]:
    """Which heavy packages a fresh process loads by a statement."""
    code = f"import sys\n{statement}\nprint(*(set({HEAVY.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_bench_and_its_failures_load_nothing_that_draws():
    modules = [path.stem for path in Path(LABKIT, "failures").glob("[a-z]*.py")]
    names = ["bench", "check", *(f"failures.{module}" for module in sorted(modules))]
    assert loaded("import " + ", ".join(f"labkit.{name}" for name in names)) == set()


def test_what_draws_would_be_seen():
    assert loaded("import matplotlib") == {"matplotlib"}
