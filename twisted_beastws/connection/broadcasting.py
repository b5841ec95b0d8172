"""`broadcast`: sends one message to many connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.logger import Logger

from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.wire.codec import send_at_once
from twisted_beastws.wire.prepared import Prepared, prepare

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_log = Logger()


class Receiver(Protocol):
    """What `broadcast` needs of a connection."""

    @property
    def send(self) -> Any: ...

    def abort(self) -> None: ...

    @property
    def peer(self) -> IAddress | None: ...


ReceiverT = TypeVar("ReceiverT", bound=Receiver)


def broadcast(
    connections: Iterable[ReceiverT], message: str | bytes | Prepared, *, compress: bool | None = None
) -> list[ReceiverT]:
    """Send a message to many connections: it is framed once, and compressed once for each set of parameters.

    It does the same as ``send`` on each connection, but a connection that does not take the message does not keep it
    from the others. If a write fails otherwise, that is logged, and the connection is dropped.

    Args:
        connections: The receivers. The connections may be of different factories.
        message: ``str`` as text, ``bytes`` as binary, or a prepared message.
        compress: As for `send`. A prepared message has its own.

    Returns:
        The connections that did not take the message: they are not open, or their write buffer refused it.

    Raises:
        UnicodeEncodeError: The text has lone surrogates.
        TypeError: ``message`` is of another type.
    """
    receivers = list(connections)
    prepared = message if isinstance(message, Prepared) else prepare(message, compress=compress)
    refused = []
    for place in send_at_once(receivers, prepared.plain.payload, prepared.plain.frame, drop_failed):
        connection = receivers[place]
        try:
            connection.send(prepared)
        except (ConnectionClosed, LocalError):
            refused.append(connection)
        except Exception:
            drop_failed(connection)
    return refused


def drop_failed(connection: Receiver) -> None:
    """Log the exception that is being handled, and drop the connection that it concerns."""
    _log.failure("could not send to {peer}, which is dropped", peer=peer_text(connection.peer))
    connection.abort()
