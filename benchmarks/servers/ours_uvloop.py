"""twisted_beastws on its own reactor: the same program as ours.py."""

from __future__ import annotations

from twisted_beastws.uvreactor import install

install()

import ours  # noqa: E402, F401
