"""A folder of somebody who uses labkit: files that are none of ours, run as their owner would."""

import contextlib
import difflib
import importlib.util
import io
import re
import runpy
import shlex
import shutil
import sys
import tempfile
import weakref
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch

from labkit.watch import cli

PROGRAMS = {
    "python": lambda script, *_: runpy.run_path(script, run_name="__main__"),
    "labkit": lambda *arguments: cli.main(arguments),
}


class Folder:
    """Some files in a temporary folder, which goes when its object goes.

    Args:
        **files: name without ``.py``, and text.
    """

    def __init__(self, **files: str):
        self.path = Path(tempfile.mkdtemp(prefix="labkit-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        for name, text in files.items():
            (self.path / f"{name}.py").write_text(text, encoding="utf-8")

    def __repr__(self) -> str:
        return ", ".join(self.names())

    def names(self) -> list[str]:
        """The files, capsules included; what Python compiled is left out."""
        found = (p.relative_to(self.path) for p in self.path.rglob("*") if p.is_file())
        return sorted(str(name) for name in found if "__pycache__" not in name.parts)

    def show(self, name: str, function: str = "") -> str:
        """The text of a file, or of one function of it."""
        text = (self.path / name).read_text(encoding="utf-8")
        if not function:
            return text
        found = re.search(rf"^def {function}\(.*?(?=^\S|\Z)", text, flags=re.M | re.S)
        return found[0].rstrip() if found else ""

    def edit(self, name: str, changes: dict[str, str]) -> str:
        """Put texts in the place of others, each of which stands there once; return the diff."""
        old = new = self.show(name)
        for here, there in changes.items():
            if new.count(here) != 1:
                raise ValueError(f"{name}: expected {here!r} once; it is there {new.count(here)}x")
            new = new.replace(here, there)
        (self.path / name).write_text(new, encoding="utf-8")
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        return "\n".join(line for line in lines if line[:2] not in ("--", "++", "@@") and line[1:])

    def run(self, command: str) -> str:
        """Run ``python train.py`` or ``labkit replay FILE`` here, as the shell would.

        Both run in this process, which saves two seconds of imports; global random numbers are
        put back.

        Returns:
            What it printed; of an error its name and message.
        """
        program, *rest = shlex.split(command)
        told = io.StringIO()
        here = patch.multiple(sys, argv=rest, path=[str(self.path), *sys.path])
        with contextlib.chdir(self.path), contextlib.redirect_stdout(told), here:
            try:
                with torch.random.fork_rng(devices=[]):
                    PROGRAMS[program](*rest)
            except Exception as error:
                told.write(f"{type(error).__name__}: {error}")
        return told.getvalue().rstrip()

    def load(self, name: str) -> ModuleType:
        """A file as a module, as `import` would give it to the owner of the folder."""
        spec = importlib.util.spec_from_file_location(Path(name).stem, self.path / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@cache
def kept(name: str, text: str) -> ModuleType:
    """A module from a file outside the package; its folder lives as long as the process."""
    folder = Folder(**{name: text})
    module = folder.load(f"{name}.py")
    module.folder = folder
    return module
