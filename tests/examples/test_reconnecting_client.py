"""The example reconnecting_client.py."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from ..support.patience import PATIENCE
from ..support.ports import free_port
from .processes import Example, Program, run

WELCOME = "^Welcome to the chat!$"


def test_the_client_reconnects(tmp_path: Path) -> None:
    port = free_port()
    with Program("reconnecting_client", tmp_path, "--url", f"ws://127.0.0.1:{port}/") as client:
        # The client starts before the server.
        with Example("chat", tmp_path, port=port):
            client.await_log(WELCOME)
        client.await_log("^lost: .*1001")
        with Example("chat", tmp_path, port=port):
            client.await_log(rf"(?s){WELCOME}.*{WELCOME}")
            client.terminate()
            # The client completed the closing handshake.
            client.await_log("^lost: begun by local, sent 1000, received 1000")
        assert client.log.count("connected to") == 2


def test_the_client_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    with Program("reconnecting_client", tmp_path, "--url", f"ws://127.0.0.1:{free_port()}/") as client:
        client.await_log("Scheduling retry 1 ")
        client.terminate()
        assert client.process.wait(PATIENCE) == 0


def refuse(connection: ServerConnection, request: Request) -> Response:
    return connection.respond(404, "there is nothing\n")


def test_the_client_gives_up_if_no_attempt_can_help(tmp_path: Path) -> None:
    with serve(lambda connection: None, "127.0.0.1", 0, process_request=refuse) as server:
        Thread(target=server.serve_forever).start()
        done = run("reconnecting_client", tmp_path, "--url", f"ws://127.0.0.1:{server.socket.getsockname()[1]}/")
    assert done.returncode == 1
    assert "gave up: " in done.stderr and "404" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_gives_up_after_a_connection_too(tmp_path: Path) -> None:
    asked: list[Request] = []

    def refuse_the_second(connection: ServerConnection, request: Request) -> Response | None:
        asked.append(request)
        return refuse(connection, request) if len(asked) > 1 else None

    with serve(lambda ws: ws.close(4000), "127.0.0.1", 0, process_request=refuse_the_second) as server:
        Thread(target=server.serve_forever).start()
        done = run("reconnecting_client", tmp_path, "--url", f"ws://127.0.0.1:{server.socket.getsockname()[1]}/")
    assert (done.returncode, len(asked)) == (1, 2)
    assert "lost: " in done.stdout and "4000" in done.stdout
    assert "gave up: " in done.stderr
