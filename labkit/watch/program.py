"""How a training was started, and how to start it again up to its first watched batch."""

import importlib
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


def whence(frame: FrameType) -> dict[str, Any]:
    """Who called `watch`: a script with its arguments, or a function of a module.

    Args:
        frame: of the call.

    Returns:
        ``{"step": ..., "argv": [...]}``; ``step`` is "" where nothing can be called again
        (a notebook, a function that needs arguments).
    """
    name = frame.f_globals.get("__name__", "")
    if name == "__main__":
        script = frame.f_globals.get("__file__", "")
        spec = frame.f_globals.get("__spec__")
        if spec is not None and spec.name:  # python -m package.train
            return {"step": spec.name.removesuffix(".__main__"), "argv": sys.argv[1:]}
        real = script and os.path.isfile(script) and hasattr(sys, "argv")
        return {"step": os.path.abspath(script) if real else "", "argv": sys.argv[1:]}
    function = getattr(sys.modules.get(name), frame.f_code.co_name, None)
    alone = _needs_nothing(frame.f_code) and getattr(function, "__code__", None) is frame.f_code
    return {"step": f"{name}:{frame.f_code.co_name}" if alone else "", "argv": []}


def _needs_nothing(code: CodeType) -> bool:
    return code.co_argcount == 0 and code.co_kwonlyargcount == 0


def start(step: str, argv: Sequence[str] = ()) -> Any:
    """Run a program: ``package.module:function``, ``package.module`` or ``path/to/train.py``.

    Args:
        step: the program.
        argv: what it finds in ``sys.argv`` behind its own name.

    Returns:
        What the function returned; None for a script.

    Raises:
        ValueError: there is no such program.
    """
    module, _, function = step.partition(":")
    script = Path(step)
    if not function and script.suffix == ".py":
        if not script.is_file():
            raise ValueError(f"--step: expected a script; there is no {step}")
        sys.argv, sys.path[0:0] = [step, *argv], [str(script.resolve().parent)]
        return runpy.run_path(step, run_name="__main__") and None
    sys.argv, sys.path[0:0] = [step, *argv], [os.getcwd()]
    if not function:
        return runpy.run_module(module, run_name="__main__", alter_sys=True) and None
    try:
        target = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as wrong:
        raise ValueError(f"--step: expected module:function; got {step} ({wrong})") from wrong
    return target()
