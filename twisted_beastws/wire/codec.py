"""Which `FrameCodec` is in use: the compiled one where it was built, the pure Python one otherwise or on request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

PURE_VARIABLE = "TWISTED_BEASTWS_PURE"
"""Set to anything but 0 or nothing, this environment variable chooses the pure Python codec."""

ACCELERATED = False

if TYPE_CHECKING or os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
    from twisted_beastws.wire.frames import FrameCodec, clear_send
else:
    try:
        from twisted_beastws.wire._speedups import FrameCodec, clear_send

        ACCELERATED = True
    except ImportError:
        from twisted_beastws.wire.frames import FrameCodec, clear_send

__all__ = ["ACCELERATED", "PURE_VARIABLE", "FrameCodec", "clear_send"]
