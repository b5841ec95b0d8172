"""Run a fuzz target: ``python fuzz/TARGET.py [libFuzzer's arguments]``, or ``... replay FILES AND FOLDERS``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

REPLAY = sys.argv[1:2] == ["replay"]


def instrumented() -> AbstractContextManager[Any]:
    """Return a context manager that instruments imports for the fuzzer's coverage; a replay needs none."""
    if REPLAY:
        return nullcontext()
    import atheris  # type: ignore[import-untyped]

    context: AbstractContextManager[Any] = atheris.instrument_imports(include=["twisted_beastws"])
    return context


def run(check: Callable[[bytes], None]) -> None:
    """Call ``check`` with the fuzzer's inputs, or in a replay with the content of each given file."""
    if REPLAY:
        _replay(check, [Path(name) for name in sys.argv[2:]])
        return
    import atheris

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


def _replay(check: Callable[[bytes], None], paths: list[Path]) -> None:
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for file in files:
        try:
            check(file.read_bytes())
        except Exception:
            print(file, file=sys.stderr)
            raise
    print(f"{len(files)} replayed")
