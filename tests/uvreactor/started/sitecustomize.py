"""Startup code for the programs that tests start under --uvloop, which puts this directory in their path.

Python runs this module first. A program that installs no reactor itself then gets `twisted_beastws.uvreactor`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class InPlaceOfTheDefault:
    """An import hook that installs the uvloop reactor when a program imports ``twisted.internet.reactor``."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "twisted.internet.reactor" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from twisted_beastws.uvreactor import install

        # Like Twisted's own module of that name, make room in sys.modules for the reactor.
        del sys.modules[module.__name__]
        install()


sys.meta_path.insert(0, InPlaceOfTheDefault())
