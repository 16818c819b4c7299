"""JupyterLab starts on loopback, with its token, on a free port, apart from other settings."""

import os
import socket
import sys

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from bootstrap import Stop, copies, jupyter, venv

NOTEBOOKS = ("new.ipynb", "old.ipynb")


@pytest.fixture
def taken():
    """A port of the loopback address that something listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_taken_port_is_named_and_the_next_free_one_used(taken, monkeypatch, capsys):
    monkeypatch.delenv("LAB_PORT", raising=False)
    monkeypatch.setattr(jupyter, "DEFAULT_PORT", taken)
    port = jupyter.choose_port()
    assert port > taken
    said = capsys.readouterr().out
    assert f"Port {taken} is taken, so the lab opens on port {port}." in said
    assert "LAB_PORT=" in said


def test_taken_port_that_was_asked_for_stops(taken, monkeypatch):
    monkeypatch.setenv("LAB_PORT", str(taken))
    with pytest.raises(Stop, match=rf"Port {taken}.*is taken"):
        jupyter.choose_port()


def test_free_port_is_used_in_silence(taken, monkeypatch, capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    monkeypatch.setenv("LAB_PORT", str(free))
    assert jupyter.choose_port() == free
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("given", ["80", "65536", "eight", "-1", "8888.0"])
def test_impossible_port_is_refused(given, monkeypatch):
    monkeypatch.setenv("LAB_PORT", given)
    with pytest.raises(Stop, match="from 1024 to 65535"):
        jupyter.choose_port()


def test_jupyter_listens_on_loopback_and_keeps_its_token(tmp_path):
    said = jupyter.arguments(9000, tmp_path)
    assert "--ServerApp.ip=127.0.0.1" in said
    assert not [a for a in said if "token" in a or "password" in a or "0.0.0.0" in a]


def test_jupyter_opens_the_first_notebook_if_there_is_one(tmp_path):
    assert "--LabApp.default_url=/lab" in jupyter.arguments(9000, tmp_path)
    (tmp_path / jupyter.FIRST).touch()
    assert f"--LabApp.default_url=/lab/tree/{jupyter.FIRST}" in jupyter.arguments(9000, tmp_path)


def test_fresh_copies_are_trusted_and_only_those(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(copies, "MY_LAB", tmp_path)
    for name in ("new", "old"):
        cell = nbformat.v4.new_code_cell(name, id=name)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    jupyter.trust(["new.ipynb"], sys.executable, dict(os.environ))
    notary = NotebookNotary(data_dir=str(tmp_path / "data"))
    trusted = {n: notary.check_signature(nbformat.read(tmp_path / n, 4)) for n in NOTEBOOKS}
    notary.store.close()
    assert trusted == {"new.ipynb": True, "old.ipynb": False}


def test_settings_of_other_jupyters_do_not_reach_the_lab(tmp_path):
    assert jupyter.environ(tmp_path)["JUPYTER_CONFIG_DIR"] == str(tmp_path / ".jupyter")


def test_one_thread_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    variables = venv.environ()
    assert (variables["OMP_NUM_THREADS"], variables["MKL_NUM_THREADS"]) == ("1", "4")


def test_packages_of_other_installations_do_not_reach_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in venv.environ()
    assert venv.environ()["PATH"].startswith(str(venv.python_of().parent))


def test_conda_route_without_jupyter_says_what_to_do(monkeypatch):
    monkeypatch.setattr(jupyter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Stop, match="has no JupyterLab"):
        jupyter.open_here([])
