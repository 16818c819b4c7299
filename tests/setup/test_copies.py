"""The learner's copies: made once, never overwritten, a newer original is announced."""

import pytest

from bootstrap import copies

NAME = "00_start_here.ipynb"


@pytest.fixture
def folders(tmp_path):
    originals = tmp_path / "notebooks"
    (originals / "text").mkdir(parents=True)
    (originals / "text" / "00_start_here.py").write_text("# the source, not for learners")
    (originals / NAME).write_text("first version")
    return originals, tmp_path / "my_lab"


def test_new_notebook_is_copied(folders):
    originals, mine = folders
    assert copies.refresh(originals, mine) == {NAME: "new"}
    assert (mine / NAME).read_bytes() == (originals / NAME).read_bytes()
    assert sorted(p.name for p in mine.iterdir()) == [copies.MANIFEST, NAME]


def test_a_translation_is_copied_into_its_own_folder(folders):
    originals, mine = folders
    (originals / "zh").mkdir()
    (originals / "zh" / NAME).write_text("第一版")
    assert copies.refresh(originals, mine) == {NAME: "new", f"zh/{NAME}": "new"}
    assert (mine / "zh" / NAME).read_text() == "第一版"
    (originals / "zh" / NAME).write_text("第二版")
    assert copies.refresh(originals, mine) == {NAME: "same", f"zh/{NAME}": "newer"}


def test_unchanged_notebook_is_left_alone(folders):
    copies.refresh(*folders)
    assert copies.refresh(*folders) == {NAME: "same"}


def test_learners_edit_is_kept_and_not_announced(folders):
    originals, mine = folders
    copies.refresh(originals, mine)
    (mine / NAME).write_text("edited")
    assert copies.refresh(originals, mine) == {NAME: "same"}
    assert (mine / NAME).read_text() == "edited"


@pytest.mark.parametrize("mine_now", ["first version", "edited"])
def test_newer_original_is_announced_every_time_and_copied_never(folders, mine_now):
    originals, mine = folders
    copies.refresh(originals, mine)
    (mine / NAME).write_text(mine_now)
    (originals / NAME).write_text("second version")
    for _ in range(2):
        assert copies.refresh(originals, mine) == {NAME: "newer"}
        assert (mine / NAME).read_text() == mine_now


def test_announcement_says_how_to_get_it_and_that_works(folders, capsys):
    originals, mine = folders
    copies.refresh(originals, mine)
    (originals / NAME).write_text("second version")
    copies.tell(copies.refresh(originals, mine))
    assert f"rename or delete my_lab/{NAME}" in capsys.readouterr().out
    (mine / NAME).rename(mine / "mine.ipynb")
    assert copies.refresh(originals, mine) == {NAME: "new"}
    assert (mine / NAME).read_text() == "second version"
    assert (mine / "mine.ipynb").read_text() == "first version"


@pytest.mark.parametrize("manifest", [None, "cut off {"])
def test_copy_outlives_a_lost_manifest(folders, manifest):
    originals, mine = folders
    copies.refresh(originals, mine)
    (mine / copies.MANIFEST).unlink()
    if manifest is not None:
        (mine / copies.MANIFEST).write_text(manifest)
    (mine / NAME).write_text("edited")
    assert copies.refresh(originals, mine) == {NAME: "newer"}
    assert (mine / NAME).read_text() == "edited"


def test_interrupted_copy_is_no_copy(folders, monkeypatch):
    originals, mine = folders

    def cut_off(source, target):
        target.write_text("fir")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(copies.shutil, "copyfile", cut_off)
        with pytest.raises(KeyboardInterrupt):
            copies.refresh(originals, mine)
    assert copies.refresh(originals, mine) == {NAME: "new"}
    assert (mine / NAME).read_text() == "first version"


def test_nothing_is_said_when_nothing_changed(folders, capsys):
    copies.refresh(*folders)
    copies.tell(copies.refresh(*folders))
    assert capsys.readouterr().out == ""
