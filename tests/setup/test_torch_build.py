"""The small build of torch: from its index where that answers, else after a warning."""

import http.server
import threading

import pytest

from bootstrap import install

POLL = 0.01  # seconds until the server of a test sees that it is to stop


@pytest.fixture
def index(tmp_path):
    """A package index on the loopback address that has a page for torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "index.html").write_text("torch")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_index_that_answers_is_taken(index, monkeypatch):
    monkeypatch.setenv("LAB_TORCH_INDEX", index)
    assert install.torch_index() == (index, "")


@pytest.mark.parametrize("dead", ["http://127.0.0.1:9", "no address", "{index}/missing"])
def test_index_that_does_not_answer_is_passed_over(dead, index, monkeypatch):
    monkeypatch.setenv("LAB_TORCH_INDEX", dead.format(index=index))
    assert install.torch_index()[0] is None
    assert "did not answer" in install.torch_index()[1]


def test_empty_variable_means_no_index(monkeypatch):
    monkeypatch.setenv("LAB_TORCH_INDEX", "")
    monkeypatch.setattr(install, "answers", lambda index: pytest.fail("asked an index"))
    assert install.torch_index()[0] is None


@pytest.mark.parametrize(("system", "asked"), [("linux", [install.CPU_INDEX]), ("win32", [])])
def test_only_linux_needs_the_index(system, asked, monkeypatch):
    seen = []
    monkeypatch.delenv("LAB_TORCH_INDEX", raising=False)
    monkeypatch.setattr(install.sys, "platform", system)
    monkeypatch.setattr(install, "answers", lambda index: bool(seen.append(index)))
    assert install.torch_index()[0] is None
    assert seen == asked


@pytest.mark.parametrize(("status", "calls"), [(0, 1), (1, 2)])
def test_torch_comes_alone_from_the_index_and_else_from_pip(
    status, calls, tmp_path, monkeypatch, capsys
):
    asked = []

    def call(*arguments, venv):
        asked.append(arguments)
        return status if "--index-url" in arguments else 0

    monkeypatch.setattr(install, "torch_index", lambda: ("http://index", ""))
    monkeypatch.setattr(install.venv, "call", call)
    monkeypatch.setattr(install.sys, "platform", "linux")
    install.install_torch("torch==2.13.0", tmp_path)
    assert len(asked) == calls
    assert asked[0][2:] == ("install", "--no-deps", "--index-url", "http://index", "torch==2.13.0")
    assert ("several GB" in capsys.readouterr().out) == (calls == 2)
