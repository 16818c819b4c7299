"""Crash and recovery: the file of the last good state holds the bad one, or nothing at all.

A training saves its state now and then, so that a crash costs little. The guide saves what is
there, unchecked, part of it, over the only copy that it has.
"""

import atexit
import inspect
import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from shutil import rmtree

import torch

from labkit.bench import Claim, Reading, choice, dial
from labkit.failures._interrupted import PARTS, STEPS, STOPPED, State, Training  # noqa: F401
from labkit.failures._power import PowerCut, power_cut
from labkit.probes.report import Culprit, Link, Report
from labkit.probes.verdict import Verdict
from labkit.training.checkpoint import load_checkpoint, non_finite, save_checkpoint
from labkit.watch import Blowup, watch

Form = Callable[[State, Path], None]


def the_guides(state: State, path: Path) -> None:
    """What is there, without looking, in part, over the last copy."""
    torch.save({"model": state["model"], "batch": state["batch"], "step": state["step"]}, path)


def complete(state: State, path: Path) -> None:
    """All of it; without looking, over the last copy."""
    torch.save(state, path)


def verified(state: State, path: Path) -> None:
    """All of it, if every number is finite; over the last copy."""
    if not non_finite(state):
        torch.save(state, path)


def atomic(state: State, path: Path) -> None:
    """All of it, if every number is finite; aside first, and under its name once it is whole."""
    if not non_finite(state):
        save_checkpoint(path, state)


TITLE = "Crash and recovery"
NICKNAME = "the last good state that was not"
SYMPTOM = "The run crashed, and the file that should bring it back holds NaN, or cannot be read."
CLAIM = Claim(
    quote="最后正常状态已保存至 last_good_state.pt",
    translation="the last good state has been saved to last_good_state.pt",
    verdict="false",
    truth="A finite loss with a NaN gradient in the step before the save, and NaN is in the file. "
    "The file also lacks the optimizer and the random numbers, and a crash while it is written "
    "destroys the only copy.",
)
SOURCES = (
    "Pillai et al. (2014), All File Systems Are Not Created Equal, OSDI: a file is whole after "
    "a crash if it was written aside, synced and renamed",
    "Kingma and Ba (2015), Adam: the state that decides the next step",
)
CARD = {
    "cause": "The state is saved unchecked, in part, over the only copy.",
    "repair": "Check every number, write all of the state to another name, then rename.",
    "proof": "Crash at every moment, start again from the file: the run has the same bits.",
}
HINTS = {
    Verdict.LOST: "the file cannot bring the run back. Look at every number of the state before "
    "you save it, and keep the last good file until the new one is whole: write to another name, "
    "then rename.",
    Verdict.WRONG: "the run goes on, and it is another run. Save all of the state: the optimizer "
    "and the random numbers decide the next step as the weights do.",
}
FORMS: dict[str, Form] = {
    "the guide's": the_guides,
    "complete": complete,
    "verified": verified,
    "atomic": atomic,
}
FORM_KNOB = "save"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    accident: str = choice("none", ("none", "NaN gradient", "power cut"), "what ends the run")
    at: float = dial(3, 1, 3, 1, "step", "when it happens; of 6 steps, counted from 0")
    every: float = dial(4, 1, 6, 1, "steps", "between two saves; the first one is at step 0")
    save: str = choice("the guide's", FORMS, "how the state is saved")


CASES = {
    "healthy": Settings(),
    "broken": Settings(accident="NaN gradient"),
    "repaired": Settings(accident="NaN gradient", save="atomic"),
    "another run": Settings(accident="NaN gradient", every=3.0),
    "half a file": Settings(accident="power cut", save="verified"),
}
CHECKS = (
    (CASES["half a file"], Verdict.HEALTHY, HINTS[Verdict.LOST]),
    (CASES["another run"], Verdict.HEALTHY, HINTS[Verdict.WRONG]),
)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """Six steps of training on real cells; an accident; then on from what the file holds.

    The value is the loss of the last step, the reference that of a run that nothing disturbed:
    the same program in the same dtype, so that they are equal to the bit or it is another run.

    Args:
        settings: the knobs.
        repair: a function of a state (a dict of dicts, tensors and numbers) and a path, that
            saves the one at the other, in place of the chosen form. It returns nothing.
    """
    save, path, reference = repair or FORMS[settings.save], _path(), _undisturbed()
    training, verdict, why = Training(), Verdict.HEALTHY, ""
    if _until_the_accident(training, settings, save, path):
        training = Training()
        verdict, why = _recovered(training, path)
    report = training.finish()
    if verdict == Verdict.HEALTHY and report.losses[0] != reference:
        missing = ", ".join(sorted(PARTS - training.found))
        verdict, why = Verdict.WRONG, f"another run: the file has no {missing}"
    if verdict != Verdict.HEALTHY:
        report = _blamed(report, verdict, why, save)
    return Reading(settings, report.verdict, report, report.losses[0], reference)


def boundaries() -> dict[str, str]:
    """Cut `save_checkpoint` off at each of its boundaries: which state does the file hold then?"""
    found: dict[str, str] = {}
    names: list[str] = []
    save_checkpoint(_path(), {"state": "old"}, boundary=names.append)
    for name in names:
        path = _path()
        save_checkpoint(path, {"state": "old"})

        def stop(passed: str, name: str = name) -> None:
            if passed == name:
                raise PowerCut

        with suppress(PowerCut):
            save_checkpoint(path, {"state": "new"}, boundary=stop)
        found[name] = load_checkpoint(path)["state"]
    return found


def watched(on_trigger: str) -> str:
    """The same accident with `labkit.watch` on: what it did, and what is left of the model."""
    training, told = Training(), ""
    options = {"keep": [training.noise], "on_trigger": on_trigger, "every": 2, "folder": None}
    watching = watch(training.model, training.optimizer, **options)
    try:
        for training.step in watching.over(range(STEPS)):
            training.advance(spoil=training.step == 3)
        watching.close()
    except Blowup:
        told = "stopped, "
    (alarm,) = watching.triggers
    bad = non_finite(training.state())
    return f"{told}step {alarm.step} undone, {len(bad)} bad numbers; born in {alarm.report.culprit}"


def _until_the_accident(training: Training, settings: Settings, save: Form, path: Path) -> bool:
    """The guide's loop: save now and then, step, look at the loss. Did it crash?"""
    at, every = round(settings.at), round(settings.every)
    saves = [step for step in range(STEPS - 1) if step % every == 0]
    cut = next((step for step in saves if step >= at), None)  # a cut waits for the next save
    try:
        for now in range(STEPS - 1):
            dies = settings.accident == "power cut" and now == (at if cut is None else cut)
            if now in saves:
                with power_cut() if dies else nullcontext():
                    save(training.state(), path)
            if dies:
                return True
            spoil = settings.accident == "NaN gradient" and now == at
            if training.advance(spoil).isnan():
                return True
    except PowerCut:
        return True
    return False


def _recovered(training: Training, path: Path) -> tuple[Verdict, str]:
    """Start again from the file; a verdict, and in words what is wrong with the file."""
    if not path.exists():
        return Verdict.LOST, "no file was saved"
    try:
        content = torch.load(path, weights_only=True)
        state = content.get("state", content)
        training.restore(state)
    except (RuntimeError, EOFError, KeyError, AttributeError, pickle.UnpicklingError):
        return Verdict.LOST, "the file cannot be read"
    total = len(list(training.model.parameters()))
    bad = sum(not p.isfinite().all() for p in training.model.parameters())
    if bad or non_finite(state):
        return Verdict.LOST, f"the file holds NaN in {bad} of {total} parameters"
    return Verdict.HEALTHY, ""


def _blamed(report: Report, verdict: Verdict, why: str, save: Form) -> Report:
    """The report of the run that went on, with the line that saved the file to blame.

    The tracer sees one step. Whether a file can bring a run back is known here alone.
    """
    lines, first = inspect.getsourcelines(save)
    number = next((i for i, line in enumerate(lines) if "save" in line and i), 0)
    path = inspect.getsourcefile(save)
    name, text = os.path.basename(path), lines[number].strip()
    step = (0, (), None, "", None, why)
    culprit = Culprit("input", "save", name, first + number, text, "", save.__name__, *step)
    fates = [f if f.word != "ok" else replace(f, word="wrong") for f in report.parameters]
    return replace(
        report,
        verdict=verdict,
        culprit=culprit,
        chain=report.chain or (Link("harmed", None, why),),
        parameters=tuple(fates),
        files=(*report.files, (name, path)),
    )


@cache
def _undisturbed() -> float:
    return Training().finish().losses[0]


def _path() -> Path:
    """Of the one file in a folder of this process; there is no such file yet."""
    for file in _folder().iterdir():
        file.unlink()
    return _folder() / "last_good_state.pt"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="labkit-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder
