"""picows on uvloop."""

from __future__ import annotations

import serving
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

connections: list[WSTransport] = []


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            transport.send(frame.msg_type, frame.get_payload_as_utf8_text())
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class FanOut(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        connections.append(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_utf8_text()
        for receiver in connections:
            receiver.send(WSMsgType.TEXT, message)


listener = serving.choose({"echo": Echo, "handshake": Echo, "client": Echo, "fanout": FanOut})


async def start() -> int:
    server = await ws_create_server(
        lambda request: listener(), serving.HOST, 0, backlog=serving.BACKLOG, ssl=serving.tls_context()
    )
    return server.sockets[0].getsockname()[1]


async def connect() -> None:
    await ws_connect(listener, f"ws://{serving.HOST}:{serving.PORT}/")


serving.run_uvloop(start, connect)
