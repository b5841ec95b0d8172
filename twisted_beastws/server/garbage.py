"""`ShortCollections`: keep Python's garbage collector from holding the reactor for long.

A full collection of CPython walks all objects of the process: with 100,000 connections, each in a room of its own, that
takes two seconds. This service has the collector leave out the objects that an earlier full collection found alive, by
`gc.freeze`.

CPython still frees a frozen object as soon as its last reference goes. It does not find a frozen object that dies in a
reference cycle later. Our own objects leave no cycles; an application's may. So the service compares the blocks of
memory in use with the number of connections and rooms. When there are too many for each, it thaws the objects, and the
next full collection walks all of them.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

LONG = 0.025
"""Seconds of CPU time, beyond which a full collection is long: a tenth of the 250 ms that a call may wait for the
reactor. CPython asks only after some 77,000 new objects whether a full collection is due, and walks those, too."""

EXCESS = 2.0
"""The growth of the blocks for each connection and room, from its lowest value on, beyond which the objects thaw."""

FULL = 2
"""The generation of a full collection."""

# PyPy counts no blocks.
_BLOCKS: Callable[[], int] = getattr(sys, "getallocatedblocks", int)


class ShortCollections(Service):
    """Freezes the objects that survive a long full collection, while the service runs; does nothing on PyPy.

    Args:
        size: returns a number that grows with the objects that the program needs, such as that of its connections. A
            collection calls it, in any thread.
        seconds: returns the CPU time of this thread.
        blocks: returns the blocks of memory in use, and 0 if Python does not count them.
        collector: the module `gc`.

    Attributes:
        size: as given.
    """

    def __init__(
        self,
        size: Callable[[], int],
        seconds: Callable[[], float] = time.thread_time,
        blocks: Callable[[], int] = _BLOCKS,
        collector: Any = gc,
    ) -> None:
        self.size = size
        self._seconds = seconds
        self._blocks = blocks
        self._collector = collector
        self._watches = self._froze = False
        self._began = self._fewest = math.inf

    def startService(self) -> None:
        """Watch the collections from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        if hasattr(self._collector, "freeze") and self._blocks():
            self._collector.callbacks.append(self._collecting)
            self._watches = True

    def stopService(self) -> None:
        """Watch them no more, and give all objects back to the collector."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._watches:
            self._collector.callbacks.remove(self._collecting)
            self._watches = False
            self._thaw()

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < FULL:
            return
        if phase == "start":
            self._began = self._seconds()
            return
        if self._seconds() - self._began > LONG:
            # All other objects are gone, or younger than the collection.
            self._collector.freeze()
            self._froze = True
        if self._froze:
            self._compare()

    def _compare(self) -> None:
        each = self._blocks() / (1 + self.size())
        self._fewest = min(self._fewest, each)
        if each > EXCESS * self._fewest:
            self._thaw()

    def _thaw(self) -> None:
        if self._froze:
            self._collector.unfreeze()
            self._froze = False
            self._fewest = math.inf
