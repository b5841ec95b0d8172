"""The methods and attributes of the reactor that ports and connections use."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class NativeReactor(Protocol):
    """The `UvloopReactor`.

    Attributes:
        native: The ports and connections that run on uvloop's transports.
        descriptors: Watches whether the process has file descriptors left.
        short_chunk: The buffer in which connections look for long payloads.
    """

    native: set[Any]
    descriptors: Any
    short_chunk: bytearray

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def timeout(self) -> float | None: ...

    def runUntilCurrent(self) -> None: ...
