"""The set-up goes on where it was cut off and runs again when its sources change."""

import json

import pytest

from bootstrap import Stop, install, lock, venv


@pytest.fixture
def environment(tmp_path):
    """The shape of an environment, with three packages in three states."""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, file in (("done", "INSTALLER"), ("half", "METADATA"), ("~old", "METADATA")):
        (site / f"{name}-1.0.dist-info").mkdir(parents=True)
        (site / f"{name}-1.0.dist-info" / file).touch()
    return tmp_path


def test_unfinished_packages_are_forgotten_and_finished_ones_kept(environment):
    assert sorted(venv.drop_unfinished(environment)) == ["half-1.0.dist-info", "~old-1.0.dist-info"]
    site = venv.site_packages(environment)[0]
    assert [p.name for p in site.iterdir()] == ["done-1.0.dist-info"]


def test_environment_without_pip_does_not_work(tmp_path):
    assert not venv.works(tmp_path)
    binaries = venv.python_of(tmp_path).parent
    binaries.mkdir()
    venv.python_of(tmp_path).symlink_to("/bin/false")
    assert not venv.works(tmp_path)


@pytest.fixture
def fake_install(monkeypatch, tmp_path):
    """An environment in a temporary folder, and a pip that only notes what it is asked."""
    folder, asked = tmp_path / ".venv", []
    monkeypatch.setattr(venv, "VENV", folder)
    monkeypatch.setattr(venv, "python_of", lambda venv=folder: venv / "bin" / "python")
    monkeypatch.setattr(venv, "works", lambda: (folder / "bin" / "python").exists())
    monkeypatch.setattr(venv, "drop_unfinished", list)

    def make():
        asked.append("venv")
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(venv, "make", make)
    monkeypatch.setattr(install, "install_torch", lambda pin: asked.append("torch"))
    monkeypatch.setattr(install, "_pip", lambda *arguments: asked.append(len(arguments)))
    return asked


LAB_PIP = ["torch", len(lock.read().lab), 4]
TESTS_PIP = ["torch", len(lock.read().pins("tests")), 4]


def test_second_set_up_does_nothing(fake_install, capsys):
    install.ready("lab")
    install.ready("lab")
    assert fake_install == ["venv", *LAB_PIP]
    assert capsys.readouterr().out.endswith("The environment .venv is ready.\n")


def test_tests_add_to_the_lab_and_serve_it_too(fake_install):
    install.ready("lab")
    install.ready("tests")
    install.ready("lab")
    assert fake_install == ["venv", *LAB_PIP, *TESTS_PIP]


def test_stamp_is_written_only_at_the_end(fake_install, monkeypatch):
    def stopped(*arguments):
        raise Stop(install.INTERRUPTED)

    with monkeypatch.context() as broken:
        broken.setattr(install, "_pip", stopped)
        with pytest.raises(Stop, match="goes on from here"):
            install.ready("lab")
    install.ready("lab")
    assert fake_install == ["venv", "torch", *LAB_PIP]


@pytest.mark.parametrize("what", ["lock", "project", "platform", "settings"])
def test_whatever_the_environment_is_made_from_brings_it_up_to_date(
    what, fake_install, monkeypatch, tmp_path
):
    install.ready("lab")
    if what == "lock":
        monkeypatch.setattr(install.lock, "read", lambda: lock.Lock(("torch==2.13.0",), ()))
    elif what == "platform":
        monkeypatch.setattr(install.platform, "machine", lambda: "another")
    elif what == "settings":
        monkeypatch.setattr(install, "JUPYTER_CONFIG", tmp_path / "none")
        (tmp_path / "none").mkdir()
    else:
        monkeypatch.setattr(
            install.tomllib,
            "loads",
            lambda text: dict.fromkeys(("build-system", "project"), "another"),
        )
    fake_install.clear()
    install.ready("lab")
    assert fake_install[0] == "torch"


def test_moved_folder_gets_a_new_environment(fake_install, monkeypatch, tmp_path):
    install.ready("lab")
    moved = {"root": "/elsewhere", "lab": install.key("lab")[::-1]}
    (venv.VENV / install.STAMP).write_text(json.dumps(moved))
    fake_install.clear()
    install.ready("lab")
    assert fake_install[0] == "venv"
