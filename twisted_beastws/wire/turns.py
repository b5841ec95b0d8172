# cython: wraparound=False, initializedcheck=False
"""`TurnBudget`: a limit on the work of one connection in one turn of the reactor, so that others get theirs."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted_beastws.wire.frames import GATHER_LIMIT, UNLIMITED

FOREVER = math.inf
"""Seconds of a turn without a limit."""

LOOK_EVERY = 16
"""Frames between two checks of the clock in a long chunk: a check costs a tenth of a small message."""


class TurnBudget:
    """The frames and the seconds that a connection may take in one turn of the reactor.

    Attributes:
        frames_left: Frames left in this turn.
        look_at: The reader checks the budget when this number of frames is left.
        spent: The budget is spent: the rest of the chunk waits for the next turn.
        one_chunk_a_turn: The transport gives at most one chunk of up to 64 KiB in a turn of the reactor, as TCP does.
            TLS gives several; after a longer chunk, uvloop may give more.
    """

    __slots__ = (
        "_awaited",
        "_began",
        "_continues",
        "_frames",
        "_now",
        "_seconds",
        "_step",
        "_used",
        "frames_left",
        "look_at",
        "one_chunk_a_turn",
        "spent",
    )

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.one_chunk_a_turn = False
        self.set(UNLIMITED, None)

    def set(self, frames: int, seconds: float | None) -> None:
        """Allow this number of frames and seconds in a turn, and begin a new one. None is unlimited."""
        self._frames = frames
        self._seconds = FOREVER if seconds is None else seconds
        self.renew()

    def renew(self) -> None:
        """Begin a new turn."""
        self.spent = self._awaited = self._continues = False
        self._began = self._now()
        self._used = 0.0
        self.frames_left = self._frames
        self._look_soon()

    def begin_rest(self) -> None:
        """Begin a new turn with the rest of the last turn's chunk: the next chunk may arrive in this turn, too."""
        self.renew()
        self._continues = True

    def begin_chunk(self, now: float) -> None:
        """A chunk arrived at the time ``now``."""
        if self._awaited:
            self.look_at = self.frames_left
            return
        if self.one_chunk_a_turn:
            self._began = now
            if not self._continues:
                self.frames_left = self._frames
            self._continues = False
        else:
            # The chunks of one turn share the budget; the time between them belongs to other connections.
            self._began = now - self._used
        self._look_soon()

    def end_chunk(self, size: int, stopped: bool) -> bool:
        """Return whether the reader must ask the reactor for its next turn, after a chunk of ``size`` bytes."""
        if not self.spent:
            # A hook may have ended the connection; then nothing answers.
            if self._awaited or stopped or (self.one_chunk_a_turn and size <= GATHER_LIMIT):
                return False
            if not self.one_chunk_a_turn:
                self._used = self._now() - self._began
                if 2 * self._used <= self._seconds and self.frames_left >= self._frames // 2:
                    return False
        self._awaited = True
        return True

    def stop(self) -> None:
        """Let no chunk wait any more: the connection has ended."""
        self.spent = False

    def _look_soon(self) -> None:
        # The first check comes after the next frame, the others at growing distances.
        self._step = 1
        self.look_at = self.frames_left - 1 if self.frames_left else 0

    def look(self) -> bool:
        """Return whether the budget is spent."""
        if not self.frames_left or self.out_of_time():
            self.spent = True
            return True
        self._step = min(4 * self._step, LOOK_EVERY)
        self.look_at = self.frames_left - self._step if self.frames_left > self._step else 0
        return False

    def out_of_time(self) -> bool:
        """Return whether the seconds of this turn are spent; the budget is spent then."""
        self.spent = self._seconds != FOREVER and self._now() - self._began > self._seconds
        return self.spent
