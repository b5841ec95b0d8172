"""`Connecting`: the Deferred of a client that connects, which serves ``async with``, too."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.wire.closing import CloseCode

T = TypeVar("T")


class Connecting(AwaitableDeferred[T]):
    """The Deferred of `connect`. ``async with`` waits for it, and closes the connection at the end of the block.

    It closes with 1000, or with 1011 if the block raises an exception other than `ConnectionClosed`, and waits for the
    end of the connection, which ``Timeouts.close`` bounds.
    """

    _opened: Any = None

    async def __aenter__(self) -> T:
        self._opened = await self
        return cast(T, self._opened)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        failed = error is not None and not isinstance(error, ConnectionClosed)
        await self._opened.close(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL)
