"""Tests of your own programs: both ends of a connection in memory, and a peer that the test controls.

A test needs no reactor, socket or test framework: time is a Twisted ``Clock``, and bytes move when the test says so.
Both trial and pytest can run such tests. `connected_pair` connects a server and a client, and performs the handshake:

>>> from twisted_beastws import WebSocketProtocol
>>> from twisted_beastws.testing import Frame, connected_pair, scripted_client, scripted_server
>>> class Echo(WebSocketProtocol):
...     def text_received(self, text):
...         self.send(text)
>>> pair = connected_pair(Echo)
>>> pair.client.send("hello")
>>> pair.flush()
>>> pair.client.receive().result
'hello'

A test can cause the failures of a network. `ConnectedPair.advance` lets time pass, and moves bytes meanwhile:

>>> pair.server_transport.stalled = True
>>> round_trip = pair.client.ping()
>>> pair.advance(1.5)
>>> pair.server_transport.stalled = False
>>> pair.flush()
>>> round_trip.result
1.5
>>> pair.client_transport.break_after(3)
>>> pair.client.send("this is lost")
>>> pair.flush()
>>> pair.server.close_reason.code, pair.server.close_reason.clean
(1006, False)

`scripted_client` exchanges frames and bytes with your server, and `scripted_server` with your client. You may send
frames that no correct peer sends; the frames that you read must be correct:

>>> peer = scripted_client(Echo)
>>> peer.send(Frame.text("hel", fin=False), Frame.ping(b"?"), Frame(0, b"lo"))
>>> peer.expect(Frame.pong(b"?"), Frame.text("hello"))
>>> peer.send(b"\\x83\\x80")
>>> peer.expect(Frame.close(1002))
>>> peer.ended
True

>>> peer = scripted_server(WebSocketProtocol)
>>> peer.send(Frame.text("hello"), Frame.close(1001, "until tomorrow"))
>>> peer.protocol.receive().result
'hello'
>>> peer.expect(Frame.close(1001))
>>> peer.transport.loseConnection()
>>> peer.flush()
>>> peer.protocol.state
<State.CLOSED: 'closed'>

After a connection has closed, or after ``cut()``, no delayed call is left on its clock.
"""

from __future__ import annotations

from twisted_beastws.testing.frames import Frame
from twisted_beastws.testing.link import Link
from twisted_beastws.testing.pair import ConnectedPair, connected_pair
from twisted_beastws.testing.scripted import (
    ScriptedPeer,
    scripted_client,
    scripted_server,
    upgrade_request,
    upgrade_response,
)
from twisted_beastws.testing.transport import MemoryTransport

__all__ = [
    "ConnectedPair",
    "Frame",
    "Link",
    "MemoryTransport",
    "ScriptedPeer",
    "connected_pair",
    "scripted_client",
    "scripted_server",
    "upgrade_request",
    "upgrade_response",
]
