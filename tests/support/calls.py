"""Count calls: a count does not depend on the machine, or on what else it does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import twisted_beastws

PACKAGE = str(Path(twisted_beastws.__file__).parent)


def files_of_calls(action: Callable[[], object]) -> list[str]:
    """Run ``action``; return the file of each Python function of the package that was called, in order.

    Compiled functions do not count. ``sys.setprofile(None)`` inside of the action ends the count.
    """
    files: list[str] = []

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            files.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        action()
    finally:
        sys.setprofile(before)
    return files
