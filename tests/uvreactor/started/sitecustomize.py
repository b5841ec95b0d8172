"""What Python runs first in each program that a test starts under --uvloop, which has this directory in its path.

A program that asks for no reactor in particular gets `twisted_beastws.uvreactor`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class InPlaceOfTheDefault:
    """Finds and loads ``twisted.internet.reactor``."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "twisted.internet.reactor" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from twisted_beastws.uvreactor import install

        # As in Twisted's own module of that name: the reactor takes its place.
        del sys.modules[module.__name__]
        install()


sys.meta_path.insert(0, InPlaceOfTheDefault())
